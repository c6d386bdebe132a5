"""How fast six perception tasks are answered: one pass, six passes, and PyTorch.

    python benchmarks/faceptor.py                         # `mini` on this CPU
    python benchmarks/faceptor.py --size base --batch 1     # the published model
    python benchmarks/faceptor.py --device cuda --dtype bfloat16 --compile

Needs torch (extra `bench`). One pass: the encoder sees a picture once and all tasks are
read from it. Six passes: each task by itself, as six models of one task each would be.
`mini` has pictures of one size, `base` two: 112 pixels for age, expression, attributes
and identity, 512 for parsing and landmarks. Both sides get the same weights and must
give the same answers before they are timed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import timing
from flax import linen as nn
from tables import aligned

from gptface_jax.nn.perception import Perception, PerceptionConfig, example_inputs
from gptface_jax.nn.query_decoder import QueryDecoderConfig
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.nn.vit import CLIP, ViTConfig
from gptface_jax.pipelines.perception import with_dtype
from gptface_jax.systems.faceptor import model

try:
    import torch
except ModuleNotFoundError:
    torch = None  # `main` says so
else:
    import torch_faceptor

TASKS = ("recog_drawn", "age_drawn", "biattr_drawn", "affect_drawn", "parsing_drawn",
         "align_drawn")  # fmt: skip
SIZES = {
    "tiny": PerceptionConfig(
        vit=ViTConfig(
            TransformerConfig(2, 32, 2, 64, unroll=2, **CLIP), 8, 16, output_width=0
        ),
        decoder=QueryDecoderConfig(32, 1, 2, 64, (1,), (1,), unroll=1),
        tasks=TASKS,
        pixels="unit",
        source_level=1,
        embedding_width=32,
        attribute_resolution=64,
        dense_resolution=64,
    ),
    # `configs/faceptor/mini.py`, with layers in one loop as it is trained.
    "mini": PerceptionConfig(
        vit=ViTConfig(
            TransformerConfig(6, 192, 6, 576, unroll=6, **CLIP), 8, 16, output_width=0
        ),
        decoder=QueryDecoderConfig(128, 4, 4, 256, (5,), (1, 3), unroll=4),
        tasks=TASKS,
        pixels="unit",
        source_level=5,
        embedding_width=128,
        attribute_resolution=128,
        dense_resolution=128,
    ),
    # Faceptor-Base as published, stage 1.
    "base": PerceptionConfig(
        vit=ViTConfig(TransformerConfig(unroll=12, **CLIP)),
        decoder=QueryDecoderConfig(unroll=9),
        tasks=TASKS,
    ),
}


class Ours:
    """The package's model with random weights."""

    def __init__(self, config: PerceptionConfig, dtype: str):
        module = Perception(config)
        inputs = example_inputs(config)
        init = functools.partial(module.init, method="init_all")
        made = nn.meta.unbox(jax.jit(init)(jax.random.key(0), inputs))
        self.params = made["params"]
        self.state = {"batch_stats": made["batch_stats"]}
        self.plain, self.config = config, with_dtype(config, dtype)

    def asked(self, image: np.ndarray, tasks):
        """Function of no arguments -> {task: answer [B,...]}."""
        stage, image = self.config.last_stage, jnp.asarray(image)
        apply = functools.partial(model.apply, self.config)
        run = jax.jit(lambda p, s, x: apply(p, s, x, tasks, stage))
        return lambda: jax.block_until_ready(run(self.params, self.state, image))


class Theirs:
    """The peer with the same weights."""

    def __init__(self, ours: Ours, device: str, dtype: str, compiled: bool):
        peer = torch_faceptor.Peer.of(ours.plain, ours.params, ours.state).to(device)
        self.peer, self.device = torch.compile(peer) if compiled else peer, device
        self.cast = lambda: (
            torch.autocast(device, torch.bfloat16)
            if dtype == "bfloat16"
            else contextlib.nullcontext()
        )

    def asked(self, image: np.ndarray, tasks):
        x = torch.from_numpy(image.transpose(0, 3, 1, 2).copy()).to(self.device)

        def run():
            with self.cast():
                found = self.peer(x, tasks)
            if self.device != "cpu":
                torch.cuda.synchronize()
            return found

        return run


def check(ours, theirs, images) -> float:
    """Largest difference of answers, over their largest absolute value."""
    worst = 0.0
    for tasks, image in images:
        mine, other = ours.asked(image, tasks)(), theirs.asked(image, tasks)()
        for task in tasks:
            a, b = np.asarray(mine[task]), other[task].float().cpu().numpy()
            b = b.transpose(0, 2, 3, 1) if b.ndim == 4 else b
            worst = max(worst, float(np.abs(a - b).max() / np.abs(b).max()))
    return worst


def groups(config: PerceptionConfig, batch: int):
    """(tasks, pictures of their size) of one pass."""
    rng, sides = np.random.default_rng(0), {}
    for task in TASKS:
        sides.setdefault(config.resolution(task), []).append(task)
    return [
        (tuple(tasks), rng.normal(0, 1, (batch, side, side, 3)).astype(np.float32))
        for side, tasks in sides.items()
    ]


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="mini")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of PyTorch: cpu or cuda")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--compile", action="store_true", help="torch.compile the peer")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    timing.needs_torch(torch)
    config = SIZES[options.size]
    ours = Ours(config, options.dtype)
    theirs = Theirs(ours, options.device, options.dtype, options.compile)
    images = groups(config, options.batch)
    worst = check(ours, theirs, images)
    limit = 1e-3 if options.dtype == "float32" else 0.1
    if worst > limit:
        raise SystemExit(f"the two differ by {worst:.1e} of the largest answer")
    functions = {}
    for name, side in (("gptface_jax", ours), ("torch", theirs)):
        whole = [side.asked(image, tasks) for tasks, image in images]
        alone = [side.asked(x, (t,)) for tasks, x in images for t in tasks]
        functions[f"{name}, one pass"] = functools.partial(_all, whole)
        functions[f"{name}, six passes"] = functools.partial(_all, alone)
    spent = timing.interleaved(functions, options.repeats, options.clock)
    mine = spent["gptface_jax, one pass"]
    rows = [("", "ms", "pictures/s", "x")]
    for name, seconds in spent.items():
        speed = options.batch / seconds
        rows.append(
            (name, f"{1e3 * seconds:.1f}", f"{speed:.2f}", f"{seconds / mine:.2f}")
        )
    print(f"{options.size}, {options.batch} pictures, {options.dtype}, "
          f"{jax.devices()[0].device_kind}; answers differ by {worst:.1e}")  # fmt: skip
    print(aligned(rows))


def _all(functions) -> None:
    for function in functions:
        function()


if __name__ == "__main__":
    main()
