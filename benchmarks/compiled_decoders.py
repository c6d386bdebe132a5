"""What decoding costs on TPUs that need not be there: memory, FLOPs and the roofline.

    python benchmarks/compiled_decoders.py --topology v5e:2x4 --batch 64
    python benchmarks/compiled_decoders.py --topology v5p:2x2x2 --only gptface

Compiles what answers a batch of every system for the devices of a topology, each of
which takes its own rows (`nn.each_device.rows_apart`); needs the extra `tpu`. Times
that a batch cannot do without: products at the device's peak; for a loop, the weights
and the cache of keys and values read once a turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tables import aligned

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping, load_config
from gptface_jax.experiments import opening, registry
from gptface_jax.nn import each_device, platforms
from gptface_jax.systems.faceptor import objective as perception
from gptface_jax.systems.gptface import decode as gptface_decode
from gptface_jax.systems.gptface.options import DecodeConfig
from gptface_jax.systems.talk2face import decode as sequence_decode
from gptface_jax.systems.talk2face.options import GenerateConfig
from gptface_jax.train import settings
from gptface_jax.train.planning import cost, hardware

PROMPT = 78  # positions of "to image" and a sentence of 64 tokens
_GIB, _MIB = 2**30, 2**20


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What answers a batch.

    Attributes:
      function: (params, rows) -> answers.
      params, rows: shapes.
      turns: of its loop, 0 for none.
      kept: bytes of keys and values that a row reads a turn.
    """

    function: Callable[[Any, Any], Any]
    params: Any
    rows: Any
    turns: int = 0
    kept: int = 0


def model_of(name: str, state: bool = False) -> tuple[str, Any, Any]:
    """System, model config and shapes of the parameters of an experiment config."""
    config = load_config(name)
    system = registry.named(config)
    values = settings.plain(config)["model"]
    model = from_mapping(registry.row(system).config, values, "model.")
    return system, model, opening.expected_shapes(system, model, state)


def shape(*sizes: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def keys(*sizes: int) -> jax.ShapeDtypeStruct:
    return shape(*sizes, dtype=jax.eval_shape(lambda: jax.random.key(0)).dtype)


def gptface(batch: int, guidance: str) -> Decoder:
    """Whole pictures after a sentence, `DecodeConfig.k` tokens a turn."""
    _, model, params = model_of("gptface/pretrain_base")
    module = registry.row("gptface").module(model)
    config = DecodeConfig(guidance=guidance).settled(model, "tpu")
    length, image = model.layout.length, model.layout.num_image_tokens

    def function(params, rows):
        return gptface_decode.fill(module, params, rows[0], rows[1], config, rows[2])

    rows = shape(batch, length), shape(batch, length, dtype=bool), keys(batch)
    return Decoder(function, params, rows, turns=-(-image // config.k))


def talk2face(batch: int) -> Decoder:
    """Pictures of 256 tokens after a sentence, one token a turn."""
    _, model, params = model_of("talk2face/seq2seq_base")
    module = registry.row("talk2face").module(model)
    config = GenerateConfig()
    generate = functools.partial(sequence_decode.generate, module)

    def function(params, rows):
        return generate(params, rows[0], config, rows[1])

    transformer, turns = model.transformer, config.length(model)
    width = jnp.dtype(transformer.dtype).itemsize * transformer.width
    kept = 2 * transformer.num_layers * width * (PROMPT + turns)
    rows = shape(batch, PROMPT), keys(batch, 1)
    return Decoder(function, params, rows, turns, kept)


def vqgan(batch: int, method: str) -> Decoder:
    """Pictures of 256 px to tokens, or tokens to pictures."""
    _, model, params = model_of("vqgan/taming_f16")
    module = registry.row("vqgan").module(model)

    def function(params, rows):
        return module.apply({"params": params}, rows, method=method)

    side, grid = model.resolution, model.grid
    rows = shape(batch, side, side, 3, dtype=jnp.float32)
    return Decoder(
        function, params, shape(batch, *grid) if method == "decode" else rows
    )


def faceptor(batch: int) -> Decoder:
    """All tasks of pictures in both sizes that they are meant for."""
    _, model, variables = model_of("faceptor/base", state=True)
    module = registry.row("faceptor").module(model)

    def function(variables, rows):
        params = {k: v for k, v in variables.items() if k != perception.STATS}
        statistics = {perception.STATS: variables[perception.STATS]}
        given = {t.name: rows[str(model.resolution(t.name))] for t in model.tasks}
        given_to = {"params": params, **statistics}
        answers, _ = perception.forward(module, given_to, given, model.last_stage)
        return answers

    sides = {model.resolution(task.name) for task in model.tasks}
    rows = {str(s): shape(batch, s, s, 3, dtype=jnp.float32) for s in sorted(sides)}
    return Decoder(function, variables, rows)


def facegpt(batch: int) -> Decoder:
    """Coefficients of heads after the tokens of pictures."""
    _, model, params = model_of("facegpt/faces64")
    module = registry.row("facegpt").module(model)

    def function(params, rows):
        return module.apply({"params": params}, rows, None, method="predicted")

    return Decoder(function, params, shape(batch, model.layout.num_image_tokens))


DECODERS: dict[str, Callable[[int], Decoder]] = {
    "gptface, guided": functools.partial(gptface, guidance=DecodeConfig.guidance),
    "gptface, not guided": functools.partial(gptface, guidance="none"),
    "talk2face, cached": talk2face,
    "vqgan, encode": functools.partial(vqgan, method="encode"),
    "vqgan, decode": functools.partial(vqgan, method="decode"),
    "faceptor, base": faceptor,
    "facegpt, faces64": facegpt,
}


def row_of(name: str, decoder: Decoder, batch: int, topology: str) -> list[str]:
    """A row of the table; compiles."""
    accelerator, devices = hardware.devices(topology)
    mesh = Mesh(np.array(devices), ("batch",))

    def placed(tree, *axes):
        where = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree
        )

    with platforms.compiling_for("tpu"):
        traced = each_device.rows_apart.trace(
            mesh, decoder.function, placed(decoder.params),
            placed(decoder.rows, "batch"),
        )  # fmt: skip
        memory = traced.lower().compile().memory_analysis()
        flops = cost.count_flops(
            decoder.function, decoder.params, decoder.rows, turns=decoder.turns or 1
        )
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    held += memory.output_size_in_bytes - memory.alias_size_in_bytes
    products = flops / len(devices) / accelerator.peak_flops
    weights = trees.count(decoder.params) * 4
    a_turn = weights + decoder.kept * batch / len(devices)
    read = a_turn * max(decoder.turns, 1) / accelerator.bandwidth
    slowest = max(products, read)
    return [
        name, f"{decoder.turns or '-'}", f"{memory.temp_size_in_bytes / _MIB:,.0f}",
        f"{held / _GIB:.2f} of {accelerator.memory / _GIB:.2f}", f"{flops / 1e12:.2f}",
        f"{1e3 * products:.2f}", f"{1e3 * read:.2f}", f"{batch / slowest:,.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5e:2x4", help="v5e:2x4, v5p:2x2x2, ...")
    parser.add_argument("--batch", type=int, default=64, help="of all devices")
    parser.add_argument("--only", default="", help="decoders whose name begins so")
    options = parser.parse_args()
    header = [
        options.topology, "turns", "temporary, MiB", "memory, GiB", "TFLOP",
        "products, ms", "weights and cache, ms", "pictures/s at most",
    ]  # fmt: skip
    rows = [header]
    for name, make in DECODERS.items():
        if name.startswith(options.only):
            rows.append(
                row_of(name, make(options.batch), options.batch, options.topology)
            )
            print(aligned([header, rows[-1]]), flush=True)
    print(f"\n{aligned(rows)}")


if __name__ == "__main__":
    main()
