"""A person's words find the key that a model was trained on."""

import dataclasses

import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import label_sets, questions

TRAINED = questions.of(label_sets.TABLE, ["lfw", "faces", "fairface", "street"])


@pytest.mark.parametrize(
    "asked, name",
    [
        ("age", "lfw age"),
        ("Age?", "lfw age"),
        ("how old is he?", "lfw age"),
        ("fairface age", "fairface age"),
        ("expression", "faces expression"),
        ("what emotion", "faces expression"),
        ("wearing a hat", "lfw wearing hat"),
        ("Wearing_Hat", "lfw wearing hat"),
        ("hat", "street hat"),  # the key itself comes before what could be meant
        ("Eyeglasses", "lfw eyeglasses"),
        ("glasses", "street glasses"),
        ("is she smiling?", "lfw smiling"),
        ("Male", "lfw gender"),
        ("is it a man or a woman", "lfw gender"),
        ("sex", "street sex"),
        ("street sex", "street sex"),
        ("5_o_Clock_Shadow", "lfw 5 o clock shadow"),
        ("blond hair", "lfw blond hair"),
        ("is he bald", "lfw bald"),
        ("does she wear makeup", "lfw heavy makeup"),
        ("how old is this man?", "lfw age"),
        ("is this woman smiling?", "lfw smiling"),
        ("the man", "lfw gender"),
        ("street smiling:", "street smiling"),
        ("Race", "fairface race"),
    ],
)
def test_words_and_what_they_ask(asked, name):
    found = questions.find(asked, TRAINED)
    assert found.name == name and found.prompt == name + ":"


def test_a_key_of_ones_own():
    found = questions.find("Mood of the day:", TRAINED)
    assert found.prompt == "mood of the day:" and found.candidates == ()
    assert found.read("merry; and more") == "merry" and found.read("") is None
    # Taken as it is, where no data set's name stands before it.
    assert questions.find("gender:", TRAINED).prompt == "gender:"
    bare = [dataclasses.replace(question, named=False) for question in TRAINED]
    assert questions.find("gender:", bare).name == "lfw gender"


def test_unknown_questions_name_the_nearest():
    with pytest.raises(UserError, match="'eyeglases'.*mean 'eyeglasses'"):
        questions.find("eyeglases", TRAINED)
    few = questions.of(label_sets.TABLE, ["faces"])
    with pytest.raises(UserError, match="'age': it answers expression"):
        questions.find("age", few)
    with pytest.raises(UserError, match="'nose'.*did you mean 'big nose' or"):
        questions.find("nose", TRAINED)  # no question
    with pytest.raises(UserError, match="several things; ask for one of .*smiling"):
        questions.find("is she smiling or wearing glasses", TRAINED)
    for nothing in ("", "?", ":"):
        with pytest.raises(UserError, match="was not trained to answer"):
            questions.find(nothing, TRAINED)


def test_answers_by_hand():
    """SPEC B.9.1; what WordPiece puts between is forgiven."""
    age, race, smile = (
        questions.find(a, TRAINED) for a in ("age", "race", "street smiling")
    )
    assert age.read("31") == 31 and age.read("31 ; gender : male") == 31
    assert age.read("thirty") is None and age.read("") is None
    assert race.read("East Asian") == "east asian" and race.read("asian") is None
    assert smile.read("true") is True and smile.read("no") is None
    group = questions.find("fairface age", TRAINED)
    assert group.read("20 - 29") == "20-29" and group.read("20 - 28") is None
    assert smile.candidates == ("false", "true") and age.candidates == ()


def test_attributes_are_stated_as_one_data_set_writes_them():
    said = questions.parsed("Wearing_Hat = true; Male=no;")
    assert said == {"Wearing_Hat": "true", "Male": "no"}
    wanted = "lfw wearing hat: true; gender: female"
    assert questions.stated(said, TRAINED) == wanted
    assert (
        questions.stated({"Wearing_Hat": True, "gender": "female"}, TRAINED) == wanted
    )
    assert questions.stated({"expression": "Anger"}, TRAINED) == (
        "faces expression: anger"
    )
    assert questions.stated({"street hat": False}, TRAINED) == "street hat: no"
    assert questions.stated({}, TRAINED) == ""
    for wrong, message in (
        ({"street hat": True, "lfw age": 3}, "no data set knows all of"),
        ({"expression": "bliss"}, "'bliss'"),
        ({"Wearing_Hat": "maybe"}, "'maybe' of 'Wearing_Hat'"),
        ({"hut": True}, "was not trained"),
        ({"Smiling": 0.03}, "0.03 is neither true nor false"),
        ({"Smiling": None}, "None is neither true nor false"),
        ({"Smiling": True, "smiling": False}, "'Smiling' and 'smiling' are both"),
        ({"age": None}, "None is no number"),
        ({"age": 250}, "'age' is 250; give a number from 0 to 119"),
    ):
        with pytest.raises(UserError, match=message):
            questions.stated(wrong, TRAINED)
    with pytest.raises(UserError, match="'Smiling' is no NAME=VALUE"):
        questions.parsed("Smiling; Male=true")
    with pytest.raises(UserError, match="'Smiling' is true and false; say it once"):
        questions.parsed("Smiling=true; Smiling=false")
    assert questions.stated({"Smiling": 0, "age": 119}, TRAINED) == (
        "lfw smiling: false; age: 119"
    )


def test_a_model_that_was_taught_no_names_of_data_sets_is_asked_without():
    asked = questions.of(label_sets.TABLE, ["street"])
    bare = [dataclasses.replace(question, named=False) for question in asked]
    found = questions.find("street sex", bare)
    assert (found.name, found.prompt) == ("street sex", "sex:")
    assert questions.stated({"sex": "man"}, bare) == "sex: man"
    assert questions.stated({"sex": "man"}, asked) == "street sex: man"


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"Smiling": "true"}, "a person smiling"),
        ({"Male": "male", "Eyeglasses": "false"}, "a man with bare eyes"),
        ({"street sex": "woman", "age": 34}, "a woman in her thirties"),
        ({"expression": "anger", "Young": True}, "a young person looking angry"),
        # There are no words for these.
        ({"expression": "contempt"}, ""),
        ({"age": 4}, ""),
        ({"age": 97}, "a person in the nineties"),
        ({"Chubby": False, "fairface age": "20-29"}, ""),
        ({}, ""),
    ],
)
def test_attributes_in_plain_words(attributes, sentence):
    assert questions.in_words(attributes, TRAINED) == sentence
