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


def frame(config, workdir):
    return json.loads(training.build(config, workdir).extra_files[faceptor_run.FRAME])


def noted(config, workdir):
    return frame(config, workdir).get("tasks")


@pytest.fixture
def started(config, tmp_path):
    """Function of what a model notes -> what a run notes that starts from it."""

    tiny_faceptor.write(tmp_path / "model")

    def run(**said):
        (tmp_path / "model" / faceptor_run.FRAME).write_text(json.dumps(said))
        config.init_from = str(tmp_path / "model")
        return frame(config, tmp_path / "run")

    return run


def test_a_run_notes_the_tasks_that_it_trains(config, tmp_path):
    assert len(config.model.tasks) > 1 and noted(config, tmp_path) == ["age_drawn"]
    config.init_from = "demo64"  # a GPTFace, which knows none
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
    meta["config"] = {"model": config.model.to_dict()}
    monkeypatch.setattr(checkpoint, "read_meta", lambda *_: meta)
    config.init_from = str(tmp_path / "gone")
    assert noted(config, tmp_path) == ["affect_drawn", "age_drawn"]
    del meta["extra_files"][faceptor_run.FRAME]  # of an older version
    assert noted(config, tmp_path) is None


def test_the_stage_of_a_task_is_that_at_which_it_was_trained(config, started):
    tasks, config.objective.stage = ["affect_drawn", "parsing_drawn"], 1
    found = started(tasks=tasks, stage={"affect_drawn": 2})
    # Of the third nothing is noted: the network that it is of has two stages.
    wanted = {"affect_drawn": 2, "parsing_drawn": 2, "age_drawn": 1}
    assert found["stage"] == wanted and found["latest"] == ["age_drawn"]
    config.objective.stage = 2
    found = started(tasks=tasks, stage=dict.fromkeys(tasks, 1))
    assert found["stage"] == dict.fromkeys(tasks, 1) | {"age_drawn": 2}


def test_what_was_taught_before_is_not_forgotten(config, started):
    where = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]]
    taught = {"biattr_drawn": ["5_o_Clock_Shadow"], "biattr_another": ["Oval_Face"]}
    tasks = ["affect_drawn", "biattr_drawn"]
    found = started(tasks=tasks, frame=where, attributes=taught)
    assert found["frame"] == where
    assert found["attributes"] == {"biattr_drawn": taught["biattr_drawn"]}
    config.batch_size = {"biattr_drawn": 2}
    both = started(tasks=tasks, attributes=taught)["attributes"]["biattr_drawn"]
    assert {"5_o_Clock_Shadow", "Smiling"} <= {*both} and "Oval_Face" not in both
    # Of a model that notes nothing, all may have been taught.
    assert len(started()["attributes"]["biattr_drawn"]) == 40
