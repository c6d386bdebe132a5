"""Label -> text -> label, over every template."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.core.errors import UserError
from gptface_jax.data import age_tokens, colour_names, label_sets, label_text, synthetic
from gptface_jax.data.label_text import DataSet, Key
from gptface_jax.data.label_values import Boolean, Colour, Integer, Range, Word
from gptface_jax.data.record import Record
from gptface_jax.data.text import TextTokenizer

TABLE = label_sets.TABLE
WITH_KEYS = [d for d in TABLE.values() if d.keys]
COLOURS = sorted(set(colour_names.NAMES) - {"cyan", "magenta"})  # twins of others


@pytest.fixture(scope="module")
def tokenizer():
    texts = [d.template.replace("{", " ").replace("}", " ") for d in WITH_KEYS]
    texts += [" ".join(colour_names.NAMES), " ".join(map(str, range(120)))]
    return TextTokenizer.train(texts * 4, 1500)


def _values(kind):
    """Any label of a kind."""
    ages = st.integers(0, 119)
    if isinstance(kind, Boolean):
        return st.booleans()
    if isinstance(kind, Integer):
        return ages
    if isinstance(kind, Range):
        return ages.map(kind.write)
    return st.sampled_from(COLOURS if isinstance(kind, Colour) else kind.candidates)


@pytest.mark.parametrize("name", [d.name for d in WITH_KEYS])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_template_round_trips(tokenizer, name, data):
    """As a string, and through WordPiece, which puts its own blanks."""
    mode = data.draw(st.sampled_from(age_tokens.AGE_TOKENS))
    table = age_tokens.with_age_tokens(TABLE, mode)
    keys = st.lists(st.sampled_from(table[name].keys), min_size=1, unique=True)
    labels = {key: data.draw(_values(key.kind)) for key in data.draw(keys)}
    pairs = [(key.name, key.kind.write(value)) for key, value in labels.items()]
    text = label_text.write(name, pairs)
    # The data set's name is on the first key alone.
    assert text.startswith(f"{name} {pairs[0][0]}: ")
    assert [part.split(":")[0] for part in text.split("; ")[1:]] == [
        key for key, _ in pairs[1:]
    ]
    ids = tokenizer.encode([text], 800)[0]
    assert tokenizer.unk_id not in ids
    for seen in (text, text.upper(), tokenizer.decode(i for i in ids if i)):
        reading = label_text.read(seen, table)
        assert reading.data_set == name and not reading.failures
        assert reading.values == {k.name: value for k, value in labels.items()}


def test_the_templates_of_the_paper():
    """SPEC B.7.2."""
    scores = {"Male": 1.0, "Bald": 1.0, "Oval_Face": 0.0, "Age": 25.0}
    record = Record(
        labels=scores,
        expression="surprise",
        facts={"hair": "1", "lip_color": "188,143,142"},
    )
    fair = Record(facts={"age": "10-19", "gender": "Male", "race": "East Asian"})

    def text(name, record=record):
        return label_text.write(name, TABLE[name].pairs(record))

    assert text("celeba") == "celeba bald: true; gender: male; oval face: false"
    assert text("cacd") == "cacd age: 25"
    wanted = "fairface age: 10-19; gender: male; race: east asian"
    assert text("fairface", fair) == wanted
    assert text("imdb wiki") == "imdb wiki age: 25; gender: male"
    assert text("raf db") == "raf db expression: surprise"
    assert text("fs2k") == "fs2k hair: true; gender: male; lip color: rosy brown"
    assert text("ffhq text") == "" and TABLE["ffhq text"].template.endswith("itself")
    assert TABLE["afad"].template == "afad age: {integer}; gender: {female|male}"


def test_the_table_is_that_of_the_paper():
    assert len(label_sets.PAPER) == 13
    assert len(TABLE["celeba"].keys) == 40
    assert [len(TABLE[n].keys[0].kind.candidates) for n in ("affectnet", "raf db")] == [
        8, 7
    ]  # fmt: skip
    assert len(TABLE["fairface"].key("race").kind.candidates) == 7
    assert len(TABLE["celeba dialog"].keys) == 5


def test_answers_that_are_none_are_counted():
    """SPEC B.9.1."""
    integer, word = Integer(), Word(("anger", "fear"))
    assert [integer.read(t) for t in ("25", "25 years", "2 5", "-3", "", "old")] == [
        25, None, None, None, None, None
    ]  # fmt: skip
    assert (
        Integer(apart=True).read("2 5") == 25 and Integer(apart=True).write(25) == "2 5"
    )
    assert word.read("fear") == "fear" and word.read("fears") is None
    assert [Boolean().read(t) for t in ("true", "false and more", "truely", "")] == [
        True, False, None, None
    ]  # fmt: skip
    assert [Range().write(x) for x in (25, "25", "20-29", 25.0)] == ["20-29"] * 4
    with pytest.raises(UserError, match="-3 is no range such as '20-29' and no number"):
        Range().write(-3)
    for wrong in ("25-34", "20-39", "20-25"):
        with pytest.raises(UserError, match=f"'{wrong}' is none.*width 10.*word"):
            Range().write(wrong)
    assert Range(5).write("25-29") == Range(5).write(25) == "25-29"
    assert Range().read("20-29") == "20-29" and Range().read("29-20") is None
    assert Range().read("20") is None and Colour().read("rosy") is None
    reading = label_text.read(
        "lfw smiling: maybe; gender: male; nonsense; age: x", TABLE
    )
    assert reading.values == {"smiling": None, "gender": True, "age": None}
    assert reading.unread == ("nonsense",) and reading.failures == 3
    nobody = label_text.read("smiling: true", TABLE)
    assert nobody.data_set == "" and nobody.failures == 1
    late = label_text.read("what; lfw smiling: true", TABLE)
    assert late.failures == 2 and not late.values
    twice = label_text.read("lfw smiling: true; smiling: false", TABLE)
    assert twice.values == {"smiling": True}
    assert label_text.read("", TABLE).failures == 0


def test_the_longest_name_of_a_data_set_is_meant():
    reading = label_text.read("celeba dialog smiling: 3", TABLE)
    assert reading.data_set == "celeba dialog" and reading.values == {"smiling": "3"}
    assert label_text.read("celeba smiling: true", TABLE).data_set == "celeba"


def test_what_is_unsure_is_not_said():
    record = Record(labels={"Smiling": 0.5, "Male": 0.05, "Eyeglasses": 0.95})
    assert TABLE["lfw"].pairs(record) == [
        ("eyeglasses", "true"), ("gender", "female")
    ]  # fmt: skip
    assert TABLE["lfw"].pairs(Record()) == [] == TABLE["faces"].pairs(Record())


def test_labels_that_do_not_fit_name_the_record():
    record = Record(facts={"race": "east asien"}, source="fairface/7")
    with pytest.raises(UserError, match="'fairface/7', label 'race'.*'east asian'"):
        TABLE["fairface"].pairs(record)
    record = Record(facts={"hair": "maybe"}, source="x")
    with pytest.raises(UserError, match="'maybe' of 'hair' is none of false, true"):
        TABLE["fs2k"].pairs(record)
    with pytest.raises(UserError, match="'4' is none of 0, 1, 2"):
        TABLE["fs2k"].pairs(Record(facts={"style": "4"}))
    with pytest.raises(UserError, match="'old' is no number"):
        TABLE["cacd"].pairs(Record(facts={"Age": "old"}))
    with pytest.raises(UserError, match="no key 'eyeglases'.*'eyeglasses'"):
        TABLE["celeba"].key("eyeglases")


@pytest.mark.parametrize("name", ["a: b", "a;b", "A", "a  b", "", "a_b", "é"])
def test_names_that_would_not_come_back(name):
    with pytest.raises(UserError, match="cannot be a name or value"):
        DataSet(name, (Key("smiling", "Smiling"),))
    with pytest.raises(UserError, match="cannot be a name or value"):
        DataSet("mine", (Key("mood", "mood", Word((name,))),))


def test_a_key_is_there_once():
    with pytest.raises(UserError, match="data set 'mine' has the key 'age' twice"):
        DataSet("mine", (Key("age", "Age"), Key("age", "x")))


def test_conventions_differ_over_the_same_faces():
    """What studio calls a smile, street does so with an open mouth only."""
    faces = synthetic.SyntheticFaces(size=32, count=200, seed=5)
    smiles, ages = {n: [] for n in ("studio", "street", "album")}, []
    for index in range(200):
        factors = faces.factors(index)
        record = Record(labels=synthetic.labels(factors), expression=factors.expression)
        said = {n: dict(TABLE[n].pairs(record)) for n in smiles}
        if all("smiling" in pairs for pairs in said.values()):
            for name, pairs in said.items():
                smiles[name].append(pairs["smiling"] == "true")
        ages.append([said[n]["age"] for n in smiles])
    share = {name: np.mean(values) for name, values in smiles.items()}
    assert share["street"] < share["studio"] - 0.1 < share["album"] - 0.15
    own, ranged, flattered = ages[0]
    low, high = map(int, ranged.split("-"))
    assert low <= int(own) <= high == low + 9
    assert all(abs(int(a) - int(b) - 7) <= 1 for a, _, b in ages)


def test_a_record_finds_its_data_set():
    found = [label_text.data_set_of(Record(source=s), TABLE) for s in (
        "lfw_attributes", "synthetic", "celeb_a", "street", "FairFace/12.jpg", "photos"
    )]  # fmt: skip
    assert [d.name if d else None for d in found] == [
        "lfw", "synthetic", "celeba", "street", "fairface", None
    ]  # fmt: skip


def test_attributes_are_drawn_to_a_budget():
    pairs = [(f"k{i}", "true") for i in range(40)]
    sizes, seen = [], set()
    for seed in range(400):
        chosen = label_text.draw(pairs, np.random.default_rng(seed))
        assert len({key for key, _ in chosen}) == len(chosen)
        sizes.append(len(chosen))
        seen |= {key for key, _ in chosen}
    assert set(sizes) == set(range(1, 13)) and len(seen) == 40
    assert abs(np.mean(sizes) - 6.5) < 0.5
    few = label_text.draw(
        pairs, np.random.default_rng(0), fits=lambda chosen: len(chosen) <= 2
    )
    assert len(few) <= 2
    assert label_text.draw([], np.random.default_rng(0)) == []
    none = label_text.draw(pairs, np.random.default_rng(0), fits=lambda chosen: False)
    assert none == []
    # One that does not fit makes room for another one.
    for seed in range(30):
        short = label_text.draw(pairs[:2], np.random.default_rng(seed), most=1,
                                fits=lambda chosen: chosen[0][0] == "k1")  # fmt: skip
        assert short == [pairs[1]]
    # Both orders of two keys occur.
    orders = {
        tuple(k for k, _ in label_text.draw(pairs[:2], np.random.default_rng(s)))
        for s in range(50)
    }
    assert orders == {("k0",), ("k1",), ("k0", "k1"), ("k1", "k0")}


def test_soft_targets_by_hand():
    """exp(-d^2 / 8): 1 at 0, .8825 at 1, .6065 at 2."""
    ids, weights = age_tokens.ordinal_targets(3, np.arange(100, 200), reach=2)
    assert ids.tolist() == [101, 102, 103, 104, 105]
    near = np.array([0.60653, 0.88250, 1.0, 0.88250, 0.60653])
    np.testing.assert_allclose(weights, near / near.sum(), atol=1e-5)
    ids, weights = age_tokens.ordinal_targets(0, np.arange(100, 200), reach=2)
    assert ids.tolist() == [100, 100, 100, 101, 102]
    assert weights[:2].tolist() == [0, 0] and weights.sum() == pytest.approx(1)


def test_digits_apart():
    table = age_tokens.with_age_tokens(TABLE, "digits")
    record = Record(labels={"Age": 107.4, "Male": 1.0})
    text = label_text.write("afad", table["afad"].pairs(record))
    assert text == "afad age: 1 0 7; gender: male"
    assert label_text.read(text, table).values == {"age": 107, "gender": True}
    assert label_text.read(text, TABLE).values["age"] is None
    assert dataclasses.replace(table["raf db"]) == TABLE["raf db"]
    own = {"mine": DataSet("mine", (Key("age", "Age", Integer(apart=True)),))}
    for mode, written in (("word", "1 0 7"), ("digits", "1 0 7"), ("ordinal", "107")):
        (key,) = age_tokens.with_age_tokens(own, mode)["mine"].keys
        assert key.text_of(record) == written
    with pytest.raises(UserError, match="age_tokens 'digit'; use word, digits, ord"):
        age_tokens.with_age_tokens(TABLE, "digit")
