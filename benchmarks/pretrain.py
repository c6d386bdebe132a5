"""How fast is pre-training: tokens a second and MFU beside PyTorch, in one run.

    python benchmarks/pretrain.py                                  # this machine's CPU
    python benchmarks/pretrain.py --size pretrain_base --batch 64 --device cuda \\
        --dtype bfloat16

Needs torch (extra `bench`). Both libraries get the same weights, batch and cores, must
agree on loss and gradient before they are timed, and take turns. Ours is the whole
training step, masks drawn on the device; the peer's masks are drawn beforehand. MFU is
three times the forward pass over the peak of a matrix product, measured here. The
input pipeline is timed by itself, from token shards that are made for it (needs grain).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
from sizes import SIZES
from tables import aligned

from gptface_jax.core import files, trees
from gptface_jax.core.config import from_mapping
from gptface_jax.systems import gptface
from gptface_jax.systems.gptface import corruption
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface import objective as gptface_objective
from gptface_jax.train import program, sharding
from gptface_jax.train.planning import cost

try:
    import torch
except ModuleNotFoundError:
    torch = None  # `main` says so
else:
    import torch_gptface

STEPS = 1000
OPTIM = {
    "peak_lr": 1e-4,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
}
OBJECTIVE = {
    "ratio_schedule": "paper",
    "clean_fraction": 0.0,
    "pooled": True,
    "span_fraction": 1.0,
}


# Of loss and gradient norm, relative, in float32.
LIMIT = 1e-3


@contextlib.contextmanager
def one_device() -> Iterator[tuple[Any, sharding.Rules]]:
    """The mesh and rules in force while ours is made and used."""
    mesh, rules = sharding.open_mesh(sharding.MeshConfig(), jax.devices()[:1])
    with sharding.in_force(mesh, rules):
        yield mesh, rules


class Ours:
    """The training step of the engine.

    Args:
      model: of `sizes.SIZES`.
      batch, dtype, remat: as asked for.
      where: from `one_device`.
    """

    def __init__(
        self, model: dict[str, Any], batch: int, dtype: str, remat: str, where
    ):
        transformer = {**model["transformer"], "dtype": dtype, "remat": remat}
        config = {
            "system": "gptface",
            "model": {**model, "transformer": transformer},
            "objective": OBJECTIVE,
            "optim": OPTIM,
            "batch_size": batch,
            "total_steps": STEPS,
        }
        self.config = from_mapping(
            gptface_model.GPTFaceConfig, config["model"], "model."
        )
        self.objective = gptface_objective.ObjectiveConfig(**OBJECTIVE)
        system = gptface.make_system(config)
        planned = program.Program(config, system, *where)
        self.flops = 3 * cost.forward_flops(system, planned)
        self.state, shardings = planned.create()
        step, _ = planned.step(shardings)
        self.batch = self._made_up(batch)
        lowered = step.lower(self.state, {}, {"pairs": self.batch})
        self.compiled = lowered.compile()

    def _made_up(self, batch: int) -> dict[str, jax.Array]:
        rng, layout, vocab = (
            np.random.default_rng(0), self.config.layout, self.config.vocab
        )  # fmt: skip
        words = rng.integers(104, vocab.text_size, (2, batch, layout.max_text_tokens))
        words[..., layout.max_text_tokens * 3 // 4 :] = vocab.pad_id
        codes = rng.integers(vocab.codebook_size, size=(batch, layout.num_image_tokens))
        arrays = {
            "image_ids": codes,
            "text_ids": words[0],
            "negative_ids": words[1],
            "word_ids": words[0],
        }
        return {name: jnp.asarray(x, jnp.int32) for name, x in arrays.items()}

    def corrupted(self) -> corruption.Masked:
        """A corrupted batch, at the ratio of the middle of the run."""
        size = len(self.batch["image_ids"])
        ratios = jnp.full((size,), 0.4)
        key = jax.random.key(0)
        return corruption.corrupt(self.config, self.objective, self.batch, ratios, key)

    def loss_and_norm(self, corrupted) -> tuple[float, float]:
        """In float32, of the loss on a batch that is corrupted already."""
        transformer = dataclasses.replace(self.config.transformer, dtype="float32")
        config = dataclasses.replace(self.config, transformer=transformer)
        module = gptface_model.GPTFace(config)

        @jax.jit
        def run(params):
            def loss(params):
                return gptface_objective.joint_loss(
                    module, self.objective, params, corrupted, jax.random.key(0)
                )[0]

            value, grads = jax.value_and_grad(loss)(params)
            squares = (jnp.sum(g**2) for g in jax.tree.leaves(grads))
            return value, jnp.sqrt(sum(squares))

        return tuple(map(float, run(self.state.params)))

    def step(self) -> None:
        self.state, metrics = self.compiled(self.state, {}, {"pairs": self.batch})
        jax.block_until_ready(metrics)

    def memory(self) -> float:
        """Bytes: the most that was used, on CPUs what the compiler plans."""
        stats = jax.devices()[0].memory_stats() or {}
        if "peak_bytes_in_use" in stats:
            return stats["peak_bytes_in_use"]
        plan = self.compiled.memory_analysis()
        return plan.temp_size_in_bytes + plan.argument_size_in_bytes


def matmul_peak(dtype: str, device: str) -> float:
    """FLOP/s of a large matrix product."""
    side = 8192 if device == "cuda" else 2048
    a = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    spent = timing.seconds(lambda: jax.block_until_ready(product(a, a)), 5)
    return 2 * side**3 / spent


def fed(config: gptface_model.GPTFaceConfig, batch: int, seconds: float) -> float:
    """Examples a second that the input pipeline gives, from shards made for it."""
    from gptface_jax.data import pipeline, shards, transforms
    from gptface_jax.data.record import Record
    from gptface_jax.data.text import TextTokenizer

    rng = np.random.default_rng(0)
    words = "a smiling young woman with long brown hair and a red hat".split()
    records = [
        Record(
            image_ids=rng.integers(
                config.vocab.codebook_size, size=config.layout.grid
            ).astype(np.uint16),
            text=" ".join(rng.permutation(words)),
            source="made up",
        )
        for _ in range(4096)
    ]
    tokenizer = TextTokenizer.train([r.text for r in records], 200)
    with tempfile.TemporaryDirectory() as folder:
        manifest = {
            "grid": config.layout.grid,
            "codebook_size": config.vocab.codebook_size,
            "tokenizer_digest": "made up",
        }
        writer = shards.Writer(pathlib.Path(folder, "set"), manifest, len(records))
        for index in writer.missing:
            writer.write(index, [records[i] for i in writer.records(index)])
        writer.finish()
        source = shards.Tokens(pathlib.Path(folder, "set"))
        transform = transforms.TokenTransform(
            tokenizer, config.layout.max_text_tokens, source,
            transforms.CaptionOptions(from_labels=False),
        )  # fmt: skip
        feed = pipeline.Pipeline(source, transform, batch, 0)
        batches = feed.batches()
        next(batches)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(batches)
            count += batch
        rate = count / (time.perf_counter() - start)
        batches.close()
    return rate


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="faces64")
    parser.add_argument("--batch", type=int, help="default: that of the size")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--remat", default="none", help="a key of nn.transformer.REMAT")
    parser.add_argument("--threads", type=int, help="CPU cores of both; default: all")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="no torch.compile")
    parser.add_argument("--feed", type=float, default=5.0, help="seconds of the input")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Gives both libraries the same cores and device; what the header says."""
    timing.needs_torch(torch)
    cores = sorted(os.sched_getaffinity(0))[: options.threads]
    os.sched_setaffinity(0, cores)  # JAX starts a thread for each
    torch.set_num_threads(len(cores))
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_platforms", options.device)
    return {
        "size": options.size,
        "batch": options.batch or SIZES[options.size][1],
        "dtype": options.dtype,
        "remat": options.remat,
        "device": jax.devices()[0].device_kind,
        "cores": len(cores),
        "clock": options.clock,
        "repeats": options.repeats,
        "jax": jax.__version__,
        "torch": torch.__version__,
    }


def check(ours: Ours, flat: dict[str, np.ndarray], batch, slots, device: str) -> float:
    """The largest relative difference of loss and gradient norm, in float32.

    Raises:
      SystemExit: the two are not the same network.
    """
    model = torch_gptface.GPTFace(ours.config, slots)
    peer = torch_gptface.Training(
        torch_gptface.load(model, flat, device), batch, device, "float32"
    )
    torch.set_float32_matmul_precision("highest")
    pairs = zip(ours.loss_and_norm(ours.corrupted()), peer.step())
    apart = max(abs(a - b) / abs(b) for a, b in pairs)
    torch.set_float32_matmul_precision("high")
    if not apart <= LIMIT:
        raise SystemExit(
            f"the two differ by {apart:.3g} in loss or gradient (at most {LIMIT:g}): "
            "nothing was timed"
        )
    return apart


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    facts = prepare(options)
    print("  ".join(f"{name} {value}" for name, value in facts.items()))
    with one_device() as where:
        model = SIZES[options.size][0]
        ours = Ours(model, facts["batch"], options.dtype, options.remat, where)
        record = facts | compare(ours, options)
    if options.json:
        files.write_text(options.json, json.dumps(record, indent=2) + "\n")


def compare(ours: Ours, options: argparse.Namespace) -> dict[str, Any]:
    """Checks that both are the same network, times them, prints the table."""
    device, batch = options.device, len(ours.batch["image_ids"])
    corrupted = ours.corrupted()
    fixed = [
        np.asarray(x)
        for x in (
            corrupted.tokens, corrupted.targets, corrupted.masked, corrupted.itm_labels
        )
    ]  # fmt: skip
    flat = {k: np.asarray(v) for k, v in trees.flatten(ours.state.params).items()}
    slots = corruption.budgets(ours.config, ours.objective)
    apart = check(ours, flat, fixed, slots, device)
    print(f"largest relative difference of loss and gradient: {apart:.2g}")

    peers = {"PyTorch": False} | ({} if options.no_compile else {"compiled": True})
    sides = {"JAX": ours}
    for name, compiled in peers.items():
        model = torch_gptface.load(
            torch_gptface.GPTFace(ours.config, slots), flat, device
        )
        sides[name] = torch_gptface.Training(
            model, fixed, device, options.dtype, compiled
        )
    spent = timing.interleaved(
        {name: side.step for name, side in sides.items()},
        options.repeats,
        options.clock,
    )
    peak = matmul_peak(options.dtype, device)
    tokens = batch * ours.config.layout.length
    memory = {"JAX": ours.memory()}
    if device == "cuda":
        memory |= dict.fromkeys(peers, torch.cuda.max_memory_allocated())
    rows = [["", *sides], ["step, ms"], ["tokens/s"], ["MFU"], ["memory, GiB"]]
    for name in sides:
        rows[1].append(f"{1e3 * spent[name]:.1f}")
        rows[2].append(f"{tokens / spent[name]:,.0f}")
        rows[3].append(f"{ours.flops / spent[name] / peak:.1%}")
        rows[4].append(f"{memory[name] / 2**30:.2f}" if name in memory else "")
    print(aligned(rows))
    ratios = {name: spent[name] / spent["JAX"] for name in peers}
    print("  ".join(f"JAX / {name}: {ratio:.2f}" for name, ratio in ratios.items()))
    print(f"peak of a matrix product: {peak / 1e12:.3f} TFLOP/s")
    record = {"seconds": spent, "peak": peak, "flops": ours.flops}
    try:
        rate = fed(ours.config, batch, options.feed)
        needed = batch / spent["JAX"]
        print(f"input: {rate:,.0f} examples/s, {rate / needed:.1f} x what JAX takes")
        record["input"] = rate
    except ModuleNotFoundError as error:
        print(f"input: not timed, {error}")
    return record


if __name__ == "__main__":
    main()
