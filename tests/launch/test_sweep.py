"""launch/sweep.py: a real sweep, its failures, and what it does when run again."""

import json
import os
import subprocess
import sys

import pytest

from gptface_jax.core import locks

pytest.importorskip("submitit")
JUDGE = "configs/judge/faces64.py:tiny"
# Narrow enough for the tiny form: the points' own widths are those of 64 px.
SMALL = ("--config.model.channels=(8, 16)", "--config.total_steps=2")


def sweep(root, out, *options, config=JUDGE, status=0):
    command = [sys.executable, "launch/sweep.py", "--config", config, "--out", out]
    done = subprocess.run(
        [*map(str, command), "--poll", "0.2", *options],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        timeout=900,
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_points_run_and_a_second_call_has_nothing_to_do(root, tmp_path):
    three = tmp_path / "three.py"
    three.write_text(
        "from configs.judge import faces64\n"
        "def get_config(arg=''):\n"
        "    return faces64.get_config('tiny')\n"
        "def get_sweep():\n"
        "    return dict(list(faces64.get_sweep().items())[::2])\n"
    )
    done = sweep(root, tmp_path / "out", "--parallel", "2", *SMALL, config=three)
    table = json.loads((tmp_path / "out/results.json").read_text())
    assert len(table) == 3
    for row in table:
        assert (row["state"], row["step"]) == ("finished", 2)
        assert row["eval/loss"] > 0
        folder = tmp_path / "out" / row["name"]
        config = json.loads((folder / "config.json").read_text())
        assert config["optim"]["peak_lr"] == row["changes"]["optim.peak_lr"]
    assert len({row["eval/loss"] for row in table}) > 1
    assert table[0]["name"] in done.stdout and "results.png" in done.stdout
    assert (tmp_path / "out/results.png").stat().st_size > 10_000
    before = sorted((tmp_path / "out/jobs").iterdir())
    sweep(root, tmp_path / "out", "--parallel", "2", *SMALL, config=three)
    assert sorted((tmp_path / "out/jobs").iterdir()) == before


@pytest.mark.slow
def test_a_failing_point_is_tried_again_and_reported(root, tmp_path):
    config = tmp_path / "two.py"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n"
        "    return ConfigDict({'system': 'judge', 'data': {'train': {'kind': ''}}})\n"
        "def get_sweep():\n"
        "    return {'one': {'data.train.kind': 'none_such'}}\n"
    )
    done = sweep(root, tmp_path / "out", "--retries", "1", config=config, status=1)
    assert "trying again" in done.stderr
    assert "one failed 2 times" in done.stderr
    (row,) = json.loads((tmp_path / "out/results.json").read_text())
    assert "exit status" in row["state"] and row["step"] == 0
    assert (tmp_path / "out/one/log.txt").stat().st_size > 0


def test_bad_sweeps_are_explained(root, tmp_path):
    done = sweep(root, tmp_path / "out", config="configs/vqgan/faces64.py", status=2)
    assert "defines no get_sweep" in done.stderr
    done = sweep(root, tmp_path / "out", "--config.total_step=1", status=2)
    assert "total_step" in done.stderr
    assert not (tmp_path / "out").exists()


def test_two_sweeps_into_one_folder(root, tmp_path):
    with locks.held(tmp_path / "out" / "sweep.lock", "sweeps", "wait"):
        done = sweep(root, tmp_path / "out", *SMALL, status=2)
    assert "in use: process" in done.stderr and "another --out" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_commands(root, tmp_path):
    done = sweep(root, tmp_path / "out", "--dry-run", *SMALL)
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and all("train --quiet --config" in x for x in lines)
    assert not (tmp_path / "out").exists()
