"""Faceptor as a system: shares of tasks, stages, feeds, what a run starts from."""

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.core import trees
from gptface_jax.core.config import load_config, to_mapping
from gptface_jax.experiments import faceptor as experiment
from gptface_jax.experiments import opening
from gptface_jax.nn.perception import PerceptionConfig, TaskConfig
from gptface_jax.nn.query_decoder import QueryDecoderConfig
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.nn.vit import CLIP, ViTConfig
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems import faceptor
from gptface_jax.systems.faceptor.model import Perception
from gptface_jax.systems.faceptor.objective import ObjectiveConfig
from gptface_jax.train import settings, sharding, state

LAYERS = TransformerConfig(num_layers=2, width=8, num_heads=2, mlp_width=12, **CLIP)
MODEL = PerceptionConfig(
    vit=ViTConfig(LAYERS, patch=8, grid=2, output_width=4),
    decoder=QueryDecoderConfig(8, 1, 2, 12, levels=(1,), new_levels=(0,)),
    tasks=(TaskConfig("affect_mine", 7), TaskConfig("recog_mine", identities=4)),
    source_level=1,
    embedding_width=4,
    attribute_resolution=16,
    dense_resolution=16,
)


def system(model=MODEL, sizes=None, **objective):
    sizes = sizes or {"affect_mine": 4, "recog_mine": 6}
    config = {"model": to_mapping(model), "objective": objective, "batch_size": sizes}
    return faceptor.make_system(settings.plain(config))


def batches_of(made):
    rng = np.random.default_rng(0)
    return {
        task: {
            "image": rng.normal(0, 1, (feed.size, 16, 16, 3)).astype(np.float32),
            "label": rng.integers(0, 4, feed.size).astype(np.int32),
            "weight": np.ones(feed.size, np.float32),
        }
        for task, feed in made.feeds.items()
    }


def test_shares_of_the_loss():
    tasks = ("age_a", "affect_b", "parsing_c")
    plain = ObjectiveConfig(weights={"age_a": 6.0, "affect_b": 2.0})
    assert plain.shares(tasks) == {
        "age_a": 6 / 9, "affect_b": 2 / 9, "parsing_c": 1 / 9,
    }  # fmt: skip
    # Auxiliary supervised learning: half for the main task, the rest as it was.
    found = ObjectiveConfig(
        weights={"age_a": 6.0, "affect_b": 2.0}, main="parsing_c", main_share=0.5
    ).shares(tasks)
    assert found == pytest.approx({"age_a": 0.375, "affect_b": 0.125, "parsing_c": 0.5})
    for objective, said in (
        (ObjectiveConfig(weights={"age_x": 1.0}), "name 'age_x', which has no batch"),
        (ObjectiveConfig(main="age_x"), "name 'age_x'"),
        (ObjectiveConfig(weights={"age_a": -1.0}), "use 0 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            objective.shares(tasks)
    with pytest.raises(ValueError, match="that is of stage 2"):
        ObjectiveConfig(trained="stage2")


def test_what_each_stage_trains():
    made = system()
    shapes = sharding.unbox(jax.eval_shape(made.init, jax.random.key(0)))
    paths = [*trees.flatten(shapes)]

    def trained(**objective):
        pattern = system(sizes={"affect_mine": 2}, **objective).phases[0].trainable
        return {path for path in paths if re.search(pattern, path)}

    unused = {p for p in paths if p.startswith("backbone/output_")}
    assert trained() == {*paths} - unused and len(unused) == 3
    new = {p for p in paths if p.startswith("decoder/new_")}
    assert trained(stage=2, trained="stage2_released") == new and len(new) == 3
    own = {p for p in paths if p.startswith("decoder/queries_affect_mine/")}
    assert trained(stage=2, trained="stage2") == new | own and len(own) == 2


def test_released_stage_2_has_the_published_count():
    """985,600 parameters learn; as intended the queries of the task too."""
    config = load_config("configs/faceptor/stage2_rafdb.py:released")
    made = faceptor.make_system(settings.plain(config))
    shapes = sharding.unbox(jax.eval_shape(made.init, jax.random.key(0)))
    chosen, _ = trees.split(shapes, made.phases[0].trainable)
    assert trees.count(chosen) == 985_600 and [*made.feeds] == ["affect_rafdb"]
    config = load_config("configs/faceptor/stage2_rafdb.py")
    intended = faceptor.make_system(settings.plain(config)).phases[0].trainable
    chosen, _ = trees.split(shapes, intended)
    assert trees.count(chosen) == 985_600 + 2 * 7 * 256


def test_a_step_learns_and_keeps_statistics():
    made = system(weights={"affect_mine": 3.0})
    shapes = sharding.unbox(jax.eval_shape(made.init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: np.float32(rng.normal(0, 0.5, x.shape)), shapes)
    begin, batches = made.init_state(), batches_of(made)
    assert set(begin) == {"batch_stats"}
    (phase,) = made.phases
    grad = jax.jit(jax.value_and_grad(phase.loss, has_aux=True))
    run = lambda given: grad(params, begin, {}, given, jax.random.key(1), 0)  # noqa: E731
    (total, (new, metrics)), grads = run(batches)
    mean = {name: float(s / n) for name, (s, n) in metrics.items()}
    wanted = 0.75 * mean["affect_mine/loss"] + 0.25 * mean["recog_mine/loss"]
    assert float(total) == pytest.approx(wanted, rel=1e-5)
    assert jax.tree.structure(new) == jax.tree.structure(begin)
    stats = new["batch_stats"]["feature"]["batch_norm_0"]
    assert int(stats["count"]) == 1 and np.abs(stats["mean"]).max() > 0
    flat = {k: float(np.abs(g).max()) for k, g in trees.flatten(grads).items()}
    assert flat["classifier_recog_mine"] > 0
    assert flat["backbone/position"] > 0 and flat["backbone/output_projection"] == 0
    # A row without a label changes nothing.
    silent = {**batches, "affect_mine": dict(batches["affect_mine"])}
    silent["affect_mine"]["label"] = batches["affect_mine"]["label"] * 0 - 1
    silent["affect_mine"]["weight"] = batches["affect_mine"]["weight"] * 0
    (total, (_, metrics)), grads = run(silent)
    assert float(metrics["affect_mine/loss"][1]) == 0
    assert not np.abs(grads["decoder"]["queries_affect_mine"]["content"]).any()
    assert np.isfinite(total)


def test_configs_that_make_no_sense():
    for sizes, said in (
        (8, "batch_size is 8; give one for each task"),
        ({"age_mine": 4}, "task 'age_mine' is not the model's"),
    ):
        with pytest.raises(ValueError, match=said):
            system(sizes=sizes)
    with pytest.raises(ValueError, match="task 'recog_mine' has no identities; set"):
        nobody = (TaskConfig("recog_mine"),)
        system(dataclasses.replace(MODEL, tasks=nobody), sizes={"recog_mine": 4})
    with pytest.raises(ValueError, match="no levels of stage 2"):
        decoder = dataclasses.replace(MODEL.decoder, new_levels=())
        system(dataclasses.replace(MODEL, decoder=decoder), stage=2)


def experiment_of(model):
    return types.SimpleNamespace(config={"model": to_mapping(model)})


def test_a_run_starts_from_another_faceptor():
    """What both have is taken over, statistics of batches as well."""
    shapes = opening.expected_shapes("faceptor", MODEL, state=True)
    params = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), shapes)
    params["decoder"]["queries_age_old"] = {"content": np.zeros((3, 8), np.float32)}
    network = Network(Perception(MODEL), params, "", {})
    more = dataclasses.replace(MODEL, tasks=(*MODEL.tasks, TaskConfig("age_new", 3)))
    given = experiment.start(network, experiment_of(more))
    assert "queries_age_old" not in given["decoder"]
    made = system(more, {"age_new": 2})
    fresh = sharding.unbox(jax.eval_shape(made.init, jax.random.key(0)))
    zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)  # noqa: E731
    created = state.TrainState(jnp.int32(0), zeros(fresh), {}, zeros(made.init_state()))
    started = state.start_from(created, given)
    assert started.params["decoder"]["queries_affect_mine"]["content"].all()
    assert not started.params["decoder"]["queries_age_new"]["content"].any()
    stats = started.state["batch_stats"]["feature"]["batch_norm_1"]
    assert stats["var"].all() and stats["count"].dtype == jnp.int32
