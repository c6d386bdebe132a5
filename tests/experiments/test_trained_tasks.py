"""What a run of a Faceptor notes of the tasks that it, and those before it, trained."""

import json

import pytest
import tiny_faceptor

from gptface_jax.core.config import load_config
from gptface_jax.experiments import faceptor_run, training
from gptface_jax.train import checkpoint


@pytest.fixture
def config():
    """Of a run that trains ages alone, of six tasks that the model has."""
    config = load_config("configs/faceptor/mini.py:tiny")
    config.batch_size = {"age_drawn": 2}
    config.objective.weights = {}
    return config


def noted(config, workdir):
    frame = training.build(config, workdir).extra_files[faceptor_run.FRAME]
    return json.loads(frame).get("tasks")


def test_a_run_notes_the_tasks_that_it_trains(config, tmp_path):
    assert len(config.model.tasks) > 1 and noted(config, tmp_path) == ["age_drawn"]
    config.init_from = "demo"  # a GPTFace, which knows none
    assert noted(config, tmp_path) == ["age_drawn"]


def test_tasks_of_the_network_that_it_starts_from_count(config, tmp_path):
    model, run = tmp_path / "model", tmp_path / "run"
    tiny_faceptor.write(model)
    config.init_from = str(model)
    assert noted(config, run) is None  # that one's are not known: all, as before
    tasks = ["affect_drawn", "affect_another"]
    (model / faceptor_run.FRAME).write_text(json.dumps({"tasks": tasks}))
    assert noted(config, run) == ["affect_drawn", "age_drawn"]


def test_a_run_that_goes_on_needs_them_no_more(config, tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    frame = json.dumps({"tasks": ["affect_drawn", "age_drawn"]}).encode()
    meta = {"system": "faceptor", "extra_files": {faceptor_run.FRAME: frame}}
    monkeypatch.setattr(checkpoint, "read_meta", lambda *_: meta)
    config.init_from = str(tmp_path / "gone")
    assert noted(config, tmp_path) == ["affect_drawn", "age_drawn"]
    del meta["extra_files"][faceptor_run.FRAME]  # of an older version
    assert noted(config, tmp_path) is None
