"""Faceptor's networks: sizes, tasks that do not see one another, encoders."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.core import trees
from gptface_jax.core.vocab import JointVocab
from gptface_jax.nn.perception import (
    Perception,
    PerceptionConfig,
    TaskConfig,
    example_inputs,
    prediction,
)
from gptface_jax.nn.query_decoder import QueryDecoderConfig
from gptface_jax.nn.sequence_encoder import SequenceEncoderConfig
from gptface_jax.nn.transformer import Transformer, TransformerConfig
from gptface_jax.nn.vit import CLIP, ViT, ViTConfig
from gptface_jax.train import sharding

BASE = (
    *("recog_ms1mv3", "age_morph2", "biattr_celeba", "affect_affectnet"),
    *("affect_rafdb", "parsing_celebam", "align_300w"),
)
MORE = (
    *("age_utkface", "affect_ferplus", "parsing_lapa", "align_cofw", "align_wflw"),
    "align_aflw",
)
KEY = jax.random.key(0)
SMALL = TransformerConfig(num_layers=3, width=16, num_heads=2, mlp_width=24, **CLIP)
TINY = PerceptionConfig(
    vit=ViTConfig(SMALL, patch=8, grid=4, output_width=0),
    decoder=QueryDecoderConfig(16, 1, 2, 24, levels=(2,), new_levels=(0, 1)),
    tasks=("affect_drawn", "parsing_drawn", "recog_drawn"),
    source_level=2,
    embedding_width=8,
    attribute_resolution=16,
    dense_resolution=32,
)
IMAGE = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))


def test_parsing_has_the_resolution_of_its_task():
    own = TaskConfig("parsing_lapa", resolution=48)
    config = dataclasses.replace(TINY, tasks=(*TINY.tasks, own))
    raw = jnp.zeros((1, 16, 16, 11))
    assert prediction(config, "parsing_lapa", raw).shape == (1, 48, 48, 11)
    assert prediction(config, "parsing_drawn", raw).shape == (1, 32, 32, 11)


@functools.cache
def shapes(config):
    init = lambda key: Perception(config).init(  # noqa: E731
        key, example_inputs(config), method="init_all"
    )
    return sharding.unbox(jax.eval_shape(init, KEY))


def created(config):
    """Variables of a network, at random: nothing is compiled for them."""
    rng = np.random.default_rng(0)
    made = {
        name: rng.normal(0, 0.4, x.shape).astype(np.float32)
        ** (2 if name.endswith("/var") else 1)
        for name, x in trees.flatten(shapes(config)).items()
    }
    return trees.unflatten(made)


def said(config, variables, inputs, tasks, **options):
    """What the network says, compiled."""
    run = lambda v, x: Perception(config).apply(v, x, tasks, 2, **options)  # noqa: E731
    return jax.jit(run)(variables, inputs)


@pytest.mark.parametrize(
    "changes,tasks,count",
    [
        ({}, BASE, 103_200_001),
        pytest.param({}, BASE + MORE, 103_335_681, marks=pytest.mark.slow),
        ({"new_levels": (1, 3, 5, 7, 9)}, BASE + MORE, 103_335_681 + 985_600),
        ({"design": "heads"}, BASE, 178_911_058),
    ],
)
def test_the_published_sizes(changes, tasks, count):
    design = {k: v for k, v in changes.items() if k == "design"}
    levels = {k: v for k, v in changes.items() if k == "new_levels"}
    config = PerceptionConfig(
        decoder=QueryDecoderConfig(**levels), tasks=tasks, **design
    )
    assert trees.count(shapes(config)["params"]) == count


def test_what_the_published_count_holds():
    """Weights that nothing reads are in it, the classifier of the loss is not."""
    people = TaskConfig("recog_ms1mv3", identities=93_431)
    found = dict(shapes(PerceptionConfig(tasks=(people, *BASE[1:])))["params"])
    assert found.pop("classifier_recog_ms1mv3").shape == (93_431, 512)
    assert trees.count(found) == 103_200_001
    unused = ("output_norm", "output_projection")
    idle = sum(trees.count(found["backbone"][name]) for name in unused)
    assert trees.count(found) - idle == 102_805_249


def test_a_new_task_costs_its_queries_and_leaves_all_else_as_it_is():
    """512 parameters a query in the published size; the same bits from the others."""
    more = dataclasses.replace(TINY, tasks=(*TINY.tasks, TaskConfig("align_mine", 5)))
    published = PerceptionConfig(tasks=BASE)
    wider = PerceptionConfig(tasks=(*BASE, TaskConfig("align_mine", 5)))
    before, after = (trees.count(shapes(c)["params"]) for c in (published, wider))
    assert after - before == 512 * 5
    old, new = created(TINY), created(more)
    extra = {"queries_align_mine": new["params"]["decoder"]["queries_align_mine"]}
    params = {**old["params"], "decoder": {**old["params"]["decoder"], **extra}}
    assert trees.count(params) - trees.count(old["params"]) == 2 * 16 * 5
    names = tuple(t.name for t in TINY.tasks)
    before = said(TINY, old, IMAGE, names)
    after = said(more, {**old, "params": params}, IMAGE, (*names, "align_mine"))
    assert after["align_mine"].shape == (2, 16, 16, 5)
    for name, x in before.items():
        assert np.asarray(x).tobytes() == np.asarray(after[name]).tobytes(), name


def test_stage_2_without_its_keys_is_stage_1():
    """And what is asked in company is answered as alone."""
    variables, tasks = created(TINY), ("affect_drawn", "parsing_drawn")
    own = jnp.arange(48)[None, None, None] < 16  # tokens of the last level come first

    @jax.jit
    def run(variables, image):
        ask = functools.partial(Perception(TINY).apply, variables, image)
        masked, alone = ask(tasks, 2, mask=own), ask(tasks[:1], 1)
        return ask(tasks, 1), masked, ask(tasks, 2), alone

    first, masked, second, alone = run(variables, IMAGE)
    for task in tasks:
        np.testing.assert_allclose(masked[task], first[task], atol=1e-4)
        assert np.abs(second[task] - first[task]).max() > 1e-3
    np.testing.assert_allclose(alone["affect_drawn"], first["affect_drawn"], atol=1e-5)


@pytest.mark.parametrize("encoder", ["tokens", "patches"])
def test_gptface_as_the_encoder(encoder):
    layers = dataclasses.replace(SMALL, gate="gelu", feed_forward="gated")
    sequence = SequenceEncoderConfig(
        layers,
        JointVocab(200, 27, multiple_of=1),
        max_positions=20,
        patch=8 if encoder == "patches" else 0,
    )
    config = dataclasses.replace(TINY, encoder=encoder, sequence=sequence)
    variables = created(config)
    tables = {"embedding", "position"}
    assert set(variables["params"]["backbone"]["tokens"]) == tables
    assert ("stem" in variables["params"]["backbone"]) == (encoder == "patches")
    inputs = jax.random.randint(KEY, (2, 4, 4), 0, 27)
    if encoder == "patches":
        inputs = jax.random.normal(KEY, (2, 32, 32, 3))
    found = said(config, variables, inputs, ("affect_drawn",))["affect_drawn"]
    assert found.shape == (2, 7) and np.isfinite(found).all()
    assert np.ptp(found, axis=0).max() > 1e-4  # it reads its input
    wrong = inputs[..., None] if encoder == "tokens" else inputs[..., 0]
    with pytest.raises(ValueError, match="the encoder reads"):
        Perception(config).apply(variables, wrong, ("affect_drawn",), 2)
    with pytest.raises(ValueError, match="more than max_positions 20"):
        big = jnp.tile(inputs, (1, 2, 1, 1)[: inputs.ndim])
        Perception(config).apply(variables, big, ("affect_drawn",), 2)


@pytest.mark.parametrize("by", ["sample", "position"])
def test_stochastic_depth(by):
    """Dropped for whole samples, or for positions of the whole batch."""
    config = dataclasses.replace(SMALL, drop_path=0.5, drop_path_by=by, num_layers=2)
    module, x = Transformer(config), jax.random.normal(KEY, (3, 5, 16))
    mask = jnp.ones((1, 1, 1, 5), bool)
    params = module.init(KEY, x, mask)
    train = lambda rate, key: Transformer(  # noqa: E731
        dataclasses.replace(config, drop_path=rate)
    ).apply(params, x, mask, False, False, rngs={"dropout": key})
    # The last layer is left out with a probability of nearly one: what is not changed
    # by it is what the first one gives.
    first = Transformer(dataclasses.replace(config, num_layers=1, drop_path=0.0))
    stacked = jax.tree.map(lambda p: p[:1], params["params"]["layers"])
    alone = first.apply({"params": {"layers": stacked}}, x, mask, normalise=False)
    gone = np.isclose(train(0.7, jax.random.key(3)), alone, atol=1e-5).all(-1)  # [B,L]
    assert gone.any() and not gone.all()
    if by == "sample":
        assert (gone.all(1) == gone.any(1)).all()
    else:
        assert (gone.all(0) == gone.any(0)).all()


def test_bad_configs_are_refused():
    for changes, said in (
        ({"tasks": ("pose_300w",)}, "'pose_300w' is of no known family"),
        ({"tasks": ("age_mine",)}, "'age_mine' has 0 queries"),
        ({"tasks": ("age_morph2", "age_morph2")}, "is there twice"),
        ({"source_level": 1}, "source_level 1 is none of decoder.levels"),
        ({"encoder": "cnn"}, "encoder 'cnn' is none of vit"),
        ({"decoder": QueryDecoderConfig(levels=(2, 5))}, "layer 5 is asked for"),
    ):
        with pytest.raises(ValueError, match=said):
            dataclasses.replace(TINY, **changes)
    with pytest.raises(ValueError, match="its sides must be multiples of 8"):
        ViT(TINY.vit).init(KEY, jnp.zeros((1, 30, 32, 3)), (0,))
