"""How fast is the tokenizer: pictures a second beside PyTorch, in one run.

    python benchmarks/vqgan.py                              # this machine's CPU
    python benchmarks/vqgan.py --size taming128 --batch 2 --repeats 5
    python benchmarks/vqgan.py --size faces128 --losses features --threads 1
    python benchmarks/vqgan.py --size taming336 --device cuda --dtype bfloat16

Needs torch (extra `bench`). Both libraries get the same weights, batch, cores and
pictures that lie on the device already. They must agree before they are timed, and
they take turns, so that a noisy moment of the machine hits both. A training step is
the whole one: generator and discriminator, forward, backward and update. On a GPU
both may use TensorFloat-32 while they are timed in float32.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
import vqgan_sides
import where
from tables import aligned

from gptface_jax.core import files
from gptface_jax.nn.vqgan import VQGANConfig

try:
    import torch
except ModuleNotFoundError:
    torch = None  # `main` says so
else:
    import torch_peer

# name -> (the network, the batch)
SIZES: dict[str, tuple[VQGANConfig, int]] = {
    "tiny": (
        VQGANConfig(
            resolution=32,
            channels=8,
            channel_multipliers=(1, 2),
            num_res_blocks=1,
            attn_resolutions=(16,),
            z_channels=8,
            embed_dim=8,
            codebook_size=32,
            groups=4,
        ),
        2,
    ),
    # configs/vqgan/faces64.py
    "faces64": (
        VQGANConfig(
            resolution=64,
            level_channels=(16, 16, 64, 128),
            num_res_blocks=1,
            attn_resolutions=(),
            z_channels=128,
            embed_dim=16,
            codebook_size=1024,
            groups=8,
        ),
        32,
    ),
    # configs/vqgan/faces128.py:cpu, and the wide network of its comparisons
    "faces128": (
        VQGANConfig(
            resolution=128,
            level_channels=(16, 16, 64, 128),
            num_res_blocks=1,
            attn_resolutions=(),
            z_channels=128,
            embed_dim=16,
            codebook_size=1024,
            groups=8,
        ),
        16,
    ),
    "patches128": (
        VQGANConfig(
            resolution=128,
            patch=4,
            level_channels=(128, 256),
            num_res_blocks=1,
            attn_resolutions=(),
            z_channels=256,
            embed_dim=16,
            codebook_size=1024,
            groups=8,
        ),
        16,
    ),
    # taming's widths at f = 8
    "taming128": (
        VQGANConfig(
            resolution=128, channel_multipliers=(1, 1, 2, 4), codebook_size=1024
        ),
        16,
    ),
    # configs/vqgan/taming_f16.py
    "taming336": (VQGANConfig(resolution=336, attn_resolutions=(21,)), 16),
}
WHAT = ("encode", "decode", "train")


def rates(spent: dict[str, dict[str, float]], batch: int) -> str:
    """{what: {side: seconds}} -> pictures a second, and ours over theirs."""
    sides = list(next(iter(spent.values())))
    others = [side for side in sides if side != "JAX"]
    rows = [["pictures/s", *sides, *(f"JAX / {side}" for side in others)]]
    for what, times in spent.items():
        speeds = [f"{batch / times[side]:.2f}" for side in sides]
        ratios = [f"{times[side] / times['JAX']:.2f}" for side in others]
        rows.append([what, *speeds, *ratios])
    return aligned(rows)


def where_time_goes(
    ours: vqgan_sides.Ours, image: jax.Array, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """{what: {part of the network: share of JAX's time}}, recorded under --profile."""
    calls, programs = ours.calls(image), ours.programs(image)
    return {
        what: where.shares(
            calls[what],
            programs[what],
            options.profile / what,
            options.repeats,
        )
        for what in options.only
    }


def share_table(shares: dict[str, dict[str, float]]) -> str:
    parts = dict.fromkeys(part for spent in shares.values() for part in spent)
    rows = [["% of JAX's time", *shares]]
    for part in parts:
        cells = (f"{100 * spent.get(part, 0.0):.1f}" for spent in shares.values())
        rows.append([part, *cells])
    return aligned(rows)


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="faces64")
    parser.add_argument("--batch", type=int, help="default: that of the size")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--losses", choices=vqgan_sides.LOSSES, default="full")
    parser.add_argument("--threads", type=int, help="CPU cores of both; default: all")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="no torch.compile")
    parser.add_argument("--only", choices=WHAT, nargs="+", default=WHAT)
    parser.add_argument(
        "--profile",
        type=pathlib.Path,
        metavar="DIR",
        help="record JAX there, and print where its time goes",
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Gives both libraries the same cores and device; what the header says."""
    timing.needs_torch(torch)
    cores = sorted(os.sched_getaffinity(0))[: options.threads]
    os.sched_setaffinity(0, cores)  # JAX starts a thread for each
    torch.set_num_threads(len(cores))
    torch.backends.cudnn.benchmark = True  # XLA tries algorithms, too
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_platforms", options.device)
    return {
        "size": options.size,
        "batch": options.batch or SIZES[options.size][1],
        "dtype": options.dtype,
        "losses": options.losses,
        "device": jax.devices()[0].device_kind,
        "cores": len(cores),
        "clock": options.clock,
        "repeats": options.repeats,
        "jax": jax.__version__,
        "torch": torch.__version__,
    }


def main(arguments: list[str] | None = None) -> None:
    options = read_options(arguments)
    facts = prepare(options)
    batch, device = facts["batch"], options.device
    config = dataclasses.replace(SIZES[options.size][0], dtype=options.dtype)
    shape = (batch, config.resolution, config.resolution, config.in_channels)
    image = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    print("  ".join(f"{name} {value}" for name, value in facts.items()))

    ours = vqgan_sides.Ours(config, batch, options.losses)
    sides = {"PyTorch": vqgan_sides.Theirs(ours, device, compiled=False)}
    if not options.no_compile:
        sides["compiled"] = vqgan_sides.Theirs(ours, device, compiled=True)
    with vqgan_sides.full_float32(device):
        apart = vqgan_sides.differences(ours, sides["PyTorch"], image)
    print("largest differences: ", "  ".join(f"{k} {v:.2g}" for k, v in apart.items()))
    vqgan_sides.check(apart)

    there = torch_peer.picture(image, device)
    calls = {"JAX": ours.calls(jnp.asarray(image))}
    calls |= {name: side.calls(there) for name, side in sides.items()}
    spent = {
        what: timing.interleaved(
            {side: functions[what] for side, functions in calls.items()},
            options.repeats,
            options.clock,
        )
        for what in options.only
    }
    print(rates(spent, batch))
    record = {**facts, "differences": apart, "seconds": spent}
    if options.profile:
        record["shares"] = where_time_goes(ours, jnp.asarray(image), options)
        print(share_table(record["shares"]))
    if options.json:
        files.write_text(options.json, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
