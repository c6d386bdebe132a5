"""Predictions of folds put together: figures by hand, intervals over people."""

import json

import numpy as np
import pytest

from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record
from gptface_jax.evaluate import perception
from gptface_jax.protocols import folds, samples
from gptface_jax.protocols.judge import Judge


def rows(said, truth, people=None, task="affect_faces"):
    people = people or [None] * len(said)
    return [
        {"task": task, "picture": str(i), "person": p, "truth": t, "said": s}
        for i, (s, t, p) in enumerate(zip(said, truth, people))
    ]


JOY, CALM = "happiness", "neutral"


def test_expressions_by_hand():
    truth = [JOY, JOY, JOY, CALM]
    found = folds.figures(rows([JOY, JOY, CALM, CALM], truth))["affect_faces"]
    assert (found["count"], found["people"]) == (4, 4)
    assert found["accuracy"][0] == 0.75 and found["majority"] == 0.75
    assert found["balanced"][0] == pytest.approx((2 / 3 + 1) / 2)
    low, high = found["accuracy"][1:]
    assert low < 0.75 < high == 1.0


def test_pictures_of_a_person_stay_together():
    """Of one person all or none is right: the interval knows of two, not of twenty."""
    truth = [JOY] * 20
    said = [JOY] * 10 + [CALM] * 10
    alone = folds.figures(rows(said, truth))["affect_faces"]["accuracy"]
    people = ["a"] * 10 + ["b"] * 10
    together = folds.figures(rows(said, truth, people))["affect_faces"]
    assert together["people"] == 2 and together["accuracy"] == [0.5, 0.0, 1.0]
    assert 0.2 < alone[1] and alone[2] < 0.8


def test_another_model_on_the_same_pictures():
    truth = [JOY, CALM] * 8
    mine, theirs = rows(truth, truth), rows([JOY] * 16, truth)
    found = folds.figures(mine, theirs)["affect_faces"]
    assert found["difference"] == [0.5, 0.5, 0.5]  # whoever is drawn
    same = folds.figures(mine, mine)["affect_faces"]["difference"]
    assert same == [0, 0, 0]
    with pytest.raises(UserError, match="1 of 16 pictures .* not judged by the other"):
        folds.figures(mine, theirs[1:])


def test_ages_by_hand():
    found = folds.figures(
        rows([30.0, 42.0], [31.0, 40.0], task="age_lfw"),
        rows([31.0, 40.0], [31.0, 40.0], task="age_lfw"),
    )["age_lfw"]
    assert found["mae"][0] == 1.5 and found["median"] == 4.5
    assert found["difference"][0] == 1.5


def test_an_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)

    def mean(sums, total):
        return sums[..., 0] / total[..., 0]

    covered = 0
    for i in range(100):
        values = rng.normal(1, 1, (60, 1))
        _, low, high = perception.with_interval(
            mean, values, np.ones((60, 1)), count=400, seed=i
        )
        covered += low <= 1 <= high
    assert 88 <= covered <= 99


def test_the_command_and_files_that_are_none(tmp_path, capsys):
    truth = [JOY, CALM, CALM]
    every = rows(truth, truth, people=[1, 2, None])
    samples.write(tmp_path / "0.jsonl", every[:2])
    samples.write(tmp_path / "1.jsonl", every[2:])
    paths = [str(tmp_path / f"{i}.jsonl") for i in (0, 1)]
    out = tmp_path / "figures.json"
    command = ["evaluate", "folds", *paths]
    assert main([*command, "--against", *paths, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "affect_faces: 3 pictures of 3 people" in said
    assert json.loads(out.read_text())["affect_faces"]["difference"] == [0, 0, 0]
    assert main([*command, paths[0]]) == 2
    assert "give each fold once" in capsys.readouterr().err
    (tmp_path / "1.jsonl").write_text('{"task": "age_lfw"}\n')
    assert main(command) == 2
    assert "line 1 is no prediction" in capsys.readouterr().err
    assert main(["evaluate", "folds", str(tmp_path / "2.jsonl")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_classifier_s_expressions(monkeypatch):
    """The surest of those that it knows, whatever else it tells."""
    judge = object.__new__(Judge)
    judge.attributes, judge.size = ("Male", CALM, JOY), 8
    grey = [0, 100, 200]
    pictures = [np.full((8, 8, 3), value, np.uint8) for value in grey]
    records = [
        Record(image=picture, expression=word, identity=i)
        for i, (picture, word) in enumerate(zip(pictures, (JOY, CALM, "anger")))
    ]

    def logits(images):
        bright = images.mean((1, 2, 3))
        return np.stack([0 * bright + 9, bright, 0 * bright + 50], 1)

    monkeypatch.setattr(judge, "logits", logits, raising=False)
    first, second = judge.expressions(records)
    assert (first["said"], first["truth"], first["person"]) == (JOY, JOY, 0)
    assert (second["said"], second["truth"]) == (CALM, CALM)
    # Another model calls its task differently.
    mine = [{**first, "task": "affect_faces"}, {**second, "task": "affect_faces"}]
    found = folds.figures(mine, [first, second])
    assert found["affect_faces"]["difference"] == [0, 0, 0]
    with pytest.raises(UserError, match="none of 1 pictures has an expression"):
        judge.expressions(records[2:])
    judge.attributes = ("Male", "Smiling")
    with pytest.raises(UserError, match="tells no expressions apart"):
        judge.expressions(records)
