"""Calibration by hand, and of answers whose right temperature is known."""

import numpy as np
import pytest

from gptface_jax.apps import plotting
from gptface_jax.core.errors import UserError
from gptface_jax.data import label_sets, questions
from gptface_jax.evaluate import calibration
from gptface_jax.pipelines.answers import Answer
from gptface_jax.protocols import answering
from gptface_jax.protocols import calibration as protocol


def test_expected_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55, 1.0])
    right = np.array([1, 1, 1, 0, 1, 0, 1], bool)
    rows = calibration.reliability(confidence, right, bins=10)
    assert [(r["from"], r["count"]) for r in rows] == [(0.5, 2), (0.9, 5)]
    assert rows[0]["accuracy"] == 0.5 and rows[1]["accuracy"] == 0.8
    # |.55 - .5| of two answers, |.96 - .8| of five.
    expected = (2 * 0.05 + 5 * 0.16) / 7
    assert calibration.expected_error(confidence, right, 10) == pytest.approx(expected)


def test_the_temperature_that_made_them_too_sure_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (20_000, 3))
    honest = calibration.tempered(logits, 1.0)
    truth = (rng.random((20_000, 1)) > np.exp(honest).cumsum(1)).sum(1)
    assert calibration.fitted_temperature(honest, truth) == pytest.approx(1, abs=0.05)
    sure = calibration.tempered(logits, 0.4)
    assert calibration.fitted_temperature(sure, truth) == pytest.approx(2.5, abs=0.12)
    found = calibration.figures(sure, truth)
    assert found["count"] == 10_000
    assert found["tempered"]["ece"] < 0.02 < 0.1 < found["as it is"]["ece"]
    assert found["tempered"]["nll"] < found["as it is"]["nll"]
    # A temperature changes no answer; those that are surest are right most often.
    shares = found["tempered"]["abstention"]
    assert shares[0] == {**shares[0], "share": 1.0, "accuracy": found["accuracy"]}
    assert np.all(np.diff([s["accuracy"] for s in shares]) > 0)


def test_abstention_by_hand():
    rows = calibration.abstention([0.9, 0.6, 0.8, 0.7], [1, 0, 1, 0], (1.0, 0.5))
    assert rows == [
        {"share": 1.0, "threshold": 0.6, "accuracy": 0.5},
        {"share": 0.5, "threshold": 0.8, "accuracy": 1.0},
    ]


def test_table_and_picture(tmp_path):
    rng = np.random.default_rng(1)
    truth = rng.integers(2, size=80)
    log_probs = calibration.tempered(rng.normal(size=(80, 2)), 0.5)
    found = {"Smiling": calibration.figures(log_probs, truth)}
    head, line = protocol.table(found).splitlines()
    assert head.split() == "question count acc ECE NLL T ECE NLL surest half".split()
    cells = line.split()
    assert cells[:2] == ["Smiling", "40"] and len(cells) == 9
    assert float(cells[5]) == round(found["Smiling"]["temperature"], 2)
    plotting.reliability(found, tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 5000


def test_answers_that_are_sure_and_wrong(monkeypatch):
    """Of 40 pictures 30 smile; the model is .9 sure of each, of the wrong ones too."""
    trained = questions.of(label_sets.TABLE, ["lfw"])
    smiling, age = (questions.find(f"lfw {n}", trained) for n in ("smiling", "age"))
    words = {"false": 0.1, "true": 0.9}
    said = [Answer("lfw smiling", "true", True, 0.9, words)] * 40
    truth = tuple(i % 4 > 0 for i in range(40))
    asked = [
        answering.Asked(smiling, tuple(range(40)), tuple(said), truth),
        answering.Asked(age, (0,), (Answer("lfw age", "20", 20, 0.5),), (30,)),
    ]
    monkeypatch.setattr(answering, "ask", lambda *_, **__: asked)
    (name, row), *others = protocol.of_answers(None, [None] * 40, []).items()
    assert name == smiling.name and not others
    assert row["as it is"]["ece"] == pytest.approx(0.9 - row["accuracy"])
    assert row["temperature"] > 1 and abs(row["accuracy"] - 0.75) <= 0.15
    monkeypatch.setattr(answering, "ask", lambda *_, **__: asked[1:])
    with pytest.raises(UserError, match="no question has 20 known answers"):
        protocol.of_answers(None, [None] * 40, [])
