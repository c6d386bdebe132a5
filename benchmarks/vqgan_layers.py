"""Where the tokenizer's time goes, layer by layer, beside PyTorch's on one core.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/vqgan_layers.py
    python benchmarks/vqgan_layers.py --channels 128 --side 64        # one layer

The layers of `configs/vqgan/faces128.py:cpu`: 3 x 3 convolutions, and a group norm with
SiLU after it, alone and with their gradients. Needs torch (extra `bench`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import timing
from tables import aligned

from gptface_jax.nn.conv import GroupNorm
from gptface_jax.ops.convolution import convolve

try:
    import torch
except ModuleNotFoundError:
    raise SystemExit("this benchmark needs torch: install the extra 'bench'") from None

# Channels before and after, and the side in pixels.
LAYERS = ((3, 16, 128), (16, 16, 128), (16, 16, 64), (16, 64, 32), (64, 64, 32),
          (64, 128, 16), (128, 128, 16))  # fmt: skip
GROUPS = 8


def convolution(
    x: np.ndarray, channels: int
) -> tuple[Callable, Callable, tuple, tuple]:
    """Both libraries' functions of the same arrays, JAX's arrays, PyTorch's weights."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.1, (3, 3, x.shape[-1], channels)).astype(np.float32)
    theirs = torch.tensor(kernel.transpose(3, 2, 0, 1).copy(), requires_grad=True)

    def ours(x, kernel):
        return convolve(x, kernel, (1, 1), ((1, 1), (1, 1)))

    return (
        ours,
        lambda x: torch.nn.functional.conv2d(x, theirs, padding=1),
        (jnp.array(x), jnp.array(kernel)),
        (theirs,),
    )


def norm(x: np.ndarray) -> tuple[Callable, Callable, tuple, tuple]:
    """As `convolution`, of a group norm and SiLU."""
    module = GroupNorm(GROUPS, "float32")
    params = module.init(jax.random.key(0), jnp.array(x))
    theirs = torch.nn.GroupNorm(GROUPS, x.shape[-1])
    return (
        lambda x: jax.nn.silu(module.apply(params, x)),
        lambda x: torch.nn.functional.silu(theirs(x)),
        (jnp.array(x),),
        (),
    )


def measured(layer, x: np.ndarray, options: argparse.Namespace) -> list[str]:
    """Cells: JAX, PyTorch and their ratio, without and with gradients."""
    ours, theirs, arrays, weights = layer
    picture = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    with torch.no_grad():
        apart = np.abs(theirs(picture).numpy() - np.moveaxis(ours(*arrays), 3, 1))
    assert apart.max() < 1e-3, apart.max()
    forward = jax.jit(ours)
    numbers = tuple(range(len(arrays)))
    step = jax.jit(jax.grad(lambda *a: jnp.sum(ours(*a) ** 2), numbers))

    def forward_torch():
        with torch.no_grad():
            theirs(picture)

    def step_torch():
        torch.autograd.grad((theirs(picture) ** 2).sum(), (picture, *weights))

    spent = timing.interleaved(
        {
            "jax": lambda: jax.block_until_ready(forward(*arrays)),
            "torch": forward_torch,
            "jax step": lambda: jax.block_until_ready(step(*arrays)),
            "torch step": step_torch,
        },
        options.repeats,
        "cpu",
    )
    cells = []
    for kind in ("", " step"):
        jax_, torch_ = spent["jax" + kind], spent["torch" + kind]
        cells += [f"{1e3 * jax_:.1f}", f"{1e3 * torch_:.1f}", f"{torch_ / jax_:.2f}"]
    return cells


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, help="one layer of this width instead")
    parser.add_argument("--side", type=int, default=128, help="of that, in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    layers = LAYERS
    if options.channels:
        layers = ((options.channels, options.channels, options.side),)
    rows = [["layer", "JAX, ms", "PyTorch, ms", "JAX / PyTorch"]]
    rows[0] += ["with gradients: JAX, ms", "PyTorch, ms", "JAX / PyTorch"]
    rng = np.random.default_rng(1)
    for before, after, side in layers:
        x = rng.normal(size=(options.batch, side, side, before)).astype(np.float32)
        cells = measured(convolution(x, after), x, options)
        rows.append([f"3 x 3, {before} -> {after} at {side} px", *cells])
    for channels, side in dict.fromkeys(
        (b, s) for b, _, s in layers if b % GROUPS == 0
    ):
        x = rng.normal(size=(options.batch, side, side, channels)).astype(np.float32)
        cells = measured(norm(x), x, options)
        rows.append([f"group norm and SiLU, {channels} at {side} px", *cells])
    print(aligned(rows))


if __name__ == "__main__":
    main()
