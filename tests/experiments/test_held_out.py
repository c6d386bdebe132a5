"""Held-out batches of experiments."""

import pytest

from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import training


def test_batches_have_the_size_of_the_feed_of_their_name(tmp_path):
    """A batch of pictures of 512 px had the 256 rows of the largest feed."""
    config = load_config("configs/faceptor/mini.py:tiny")
    config.batch_size.recog_drawn = 6
    config.data.eval_records = 5
    own = {"age_drawn": 16}
    config.model.tasks = tuple(
        {**task, "resolution": own.get(task["name"], 0)} for task in config.model.tasks
    )
    system = training.build(config, tmp_path).system
    for name, evaluation in system.evaluations.items():
        sizes = [len(batch["image"]) for batch in evaluation.batches]
        assert (name, system.feeds[name].size, sizes) == (name, 2, [2, 2, 1])
        side = own.get(name, 32)
        assert evaluation.batches[0]["image"].shape == (2, side, side, 3)


def test_recognition_needs_no_held_out_data(tmp_path):
    """It is not evaluated in training; every other task is."""
    config = load_config("configs/faceptor/mini.py:tiny")
    drawn = config.data.eval.to_dict()
    judged = [name for name in config.batch_size if not name.startswith("recog")]
    config.data.eval = {name: drawn for name in judged}
    assert set(training.build(config, tmp_path).system.evaluations) == set(judged)
    config.data.eval = {name: drawn for name in judged[1:]}
    with pytest.raises(UserError, match=f"and not '{judged[0]}'; give one source"):
        training.build(config, tmp_path)


def test_what_no_turn_asks_for_may_be_missing(tmp_path):
    """Pictures without labels, which a model learns to describe alone."""
    config = load_config("configs/talk2face/faces64.py:tiny")
    (tmp_path / "none.json").write_text('{"synthetic": {}}')
    config.data.label_sets = str(tmp_path / "none.json")
    with pytest.raises(UserError, match="no record has attributes"):
        training.build(config, tmp_path)
    config.data.tasks.turns = ("image_to_caption",)
    (evaluation,) = training.build(config, tmp_path).system.evaluations.values()
    numbers = {int(n) for batch in evaluation.batches for n in batch["task"]}
    assert numbers == {0, 1}  # captions both ways: what there is, is evaluated
