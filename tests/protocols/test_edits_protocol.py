"""Edits judged by a judge, on the tiny model."""

import json

import numpy as np
import pytest

from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.experiments import opening, training
from gptface_jax.protocols import edits
from gptface_jax.protocols import judge as judges
from gptface_jax.protocols import records as held_out


def test_edits_are_judged(tiny, model, tmp_path, gptface_command, capsys):
    config = load_config("configs/judge/faces64.py:tiny")
    training.train(config, tmp_path / "judge", progress=False)
    judge = judges.Judge(opening.open_network(tmp_path / "judge", "judge"))
    faces = SyntheticFaces(size=32, count=10, seed=4)
    records = [faces[i] for i in range(5)]
    scores = judge.balanced_accuracy(records)
    assert set(scores) == set(judge.attributes)
    names = ("Smiling", "Eyeglasses")
    config = model.decode_config({"guidance": "none"})
    spec = {"kind": "synthetic", "size": 32, "count": 10, "seed": 4}
    features = judges.features_of(tmp_path / "judge")
    people = np.array([0, 0, 1, 1, 2])
    figures = edits.judge_edits(
        model, judge, records, names, config, batch_size=4, progress=False,
        truth=edits.counterfactuals({**spec, "size": 48}),  # of any size
        features=features, people=people,
    )  # fmt: skip
    seen = features(held_out.pictures_of(records, 32)).astype(float)
    apart = ((seen[:, None] - seen) ** 2).sum(-1) + np.diag([np.inf] * 5)
    hits = people[apart.argmin(1)] == people  # number 4 has no other to find
    assert figures["same_person_before"] == hits[:4].mean()
    assert 0 <= figures["same_person"] <= 1
    assert set(figures["attributes"]) == set(names)
    assert figures["mean"]["count"] == 10
    assert np.isinf(figures["outside_psnr"])  # composited: bit-identical
    assert np.isfinite(figures["outside_psnr_raw"])
    assert figures["examples"].shape == (2, 3, 32, 32, 3)
    assert 5 < figures["inside_psnr"] < 60 and figures["frechet"] > 0
    assert 0 < figures["others_kept"] <= 1 and figures["seconds"] > 0
    before = edits.counterfactuals(spec)(0, "Smiling", faces[0].labels["Smiling"] > 0.5)
    np.testing.assert_array_equal(before, faces[0].image)
    with pytest.raises(UserError, match="does not know 'Bald'"):
        edits.judge_edits(model, judge, records, ("Bald",), config)
    methods, out = tmp_path / "methods.py", tmp_path / "rows.json"
    methods.write_text(
        "def get_sweep():\n"
        "    plain = {'guidance': 'none', 'k': 64}\n"
        "    return {'plain': plain, 'best_of_2': {**plain, 'samples': 2}}\n"
    )
    command = (
        "evaluate", "edits", "--quiet", "--model", tiny / "model", "--judge",
        tmp_path / "judge", "--images", "synthetic", "--data", "size=32",
        "--attributes", "Smiling", "--methods", methods, "--out", out, "--limit",
    )  # fmt: skip
    assert gptface_command(*command, 3, "--only", "plain") == 0
    (first,) = json.loads(out.read_text())
    capsys.readouterr()
    assert gptface_command(*command, 3) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("| method | forwards | asked | opposite | gap | others")
    assert [line.split(" | ")[0] for line in table[2:]] == ["| plain", "| best_of_2"]
    rows = json.loads(out.read_text())
    assert rows[0] == first and rows[1]["samples"] == 2  # seconds too: not again
    assert all(row["decode"]["cfg"] == 1.0 for row in rows)  # whatever the model's own
    assert gptface_command(*command, 4) == 2
    assert "of another evaluation; write to another --out" in capsys.readouterr().err
    judge.attributes = (*judge.attributes, "Young")
    with pytest.raises(UserError, match="where 'Young' shows"):
        edits.judge_edits(model, judge, records, ("Young",), config)
