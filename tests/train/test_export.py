"""Training and decoding can be lowered for TPUs and GPUs that are not there."""

import functools

import jax
import numpy as np
import pytest
import tiny
from jax import export

from gptface_jax.core.config import load_config, override
from gptface_jax.experiments import registry, training
from gptface_jax.nn import platforms
from gptface_jax.systems.gptface import decode
from gptface_jax.systems.gptface.options import DecodeConfig
from gptface_jax.train import program, sharding

PLATFORMS = ("tpu", "cuda")


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        pytest.param("vqgan/faces64.py:tiny_gan", marks=pytest.mark.slow),
        "gptface/faces64.py:tiny",
        "judge/faces64.py:tiny",
    ],
)
def test_the_training_step_is_lowered(config, tmp_path):
    config = load_config(f"configs/{config}")
    if config.system == "gptface":
        config = training.build(config, tmp_path).config
    mesh, rules = sharding.open_mesh(sharding.MeshConfig(), jax.devices()[:1])
    with sharding.in_force(mesh, rules):
        planned = program.Program(config, registry.make(config), mesh, rules)
        shapes, shardings = planned.create(abstract=True)
        step_fn, _ = planned.step(shardings)
        exported = export.export(step_fn, platforms=PLATFORMS)(
            shapes, planned.constants(abstract=True), planned.batches()
        )  # fmt: skip
    assert exported.platforms == PLATFORMS
    assert "stablehlo.dot_general" in exported.mlir_module()


@pytest.mark.slow
def test_guided_decoding_is_lowered():
    module, params = tiny.model()
    known = tiny.known_mask(2, range(2, 8))
    options = DecodeConfig(k=2)
    run = jax.jit(
        functools.partial(decode.decode, module, config=options, key=jax.random.key(0))
    )
    args = params, np.asarray(tiny.tokens(2)), known
    exported = export.export(run, platforms=PLATFORMS)(*args)
    assert exported.platforms == PLATFORMS
    assert "stablehlo.while" in exported.mlir_module()
    here = export.export(run, platforms=("cpu",))(*args)
    np.testing.assert_array_equal(here.call(*args).tokens, run(*args).tokens)


PAIRS = ["gptface/pretrain_base.py:tiny", "model.layout.multiple_of=128",
         "model.max_positions=128"]  # fmt: skip
SEQUENCES = ["talk2face/faces64.py:tiny", "model.length=128",
             "model.max_positions=208"]  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "given"),
    [
        ("splash", PAIRS),  # as "auto" has it
        pytest.param(
            "flash",
            [*PAIRS, "model.transformer.attention=flash"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "splash",
            [*SEQUENCES, "model.transformer.attention=splash"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_attention_kernels_are_lowered_for_tpus(kernel, given, tmp_path):
    path, *options = given
    config = override(load_config(f"configs/{path}"), options)
    config = training.build(config, tmp_path).config
    mesh, rules = sharding.open_mesh(sharding.MeshConfig(), jax.devices()[:1])
    with sharding.in_force(mesh, rules), platforms.compiling_for("tpu"):
        planned = program.Program(config, registry.make(config), mesh, rules)
        shapes, shardings = planned.create(abstract=True)
        step_fn, _ = planned.step(shardings)
        exported = export.export(step_fn, platforms=("tpu",))(
            shapes, planned.constants(abstract=True), planned.batches()
        )  # fmt: skip
    assert "tpu_custom_call" in exported.mlir_module()
    assert kernel in exported.mlir_module()
