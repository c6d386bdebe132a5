"""What attention costs as pictures get more tokens: softmax against linear (SPEC E.3).

    python benchmarks/attention.py                                 # this machine's CPU
    python benchmarks/attention.py --heads 12 --dtype bfloat16 --length 1764 28224

One layer's attention of one picture, without its projections, and with its gradient.
"softmax" is what "auto" takes on this device. Memory is what XLA plans for temporaries;
at a length whose plan is larger than --memory GiB nothing runs.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import timing
from tables import aligned

from gptface_jax.nn import attention

KINDS = {"softmax": "auto", "linear": "linear"}


def measured(length: int, options: argparse.Namespace) -> list[list[str]]:
    """Rows of the table for one length."""
    keys = jax.random.split(jax.random.key(0), 3)
    shape = 1, length, options.heads, options.width
    arrays = [jax.random.normal(k, shape, options.dtype) for k in keys]
    mask = jnp.ones((1, 1, 1, length), bool)
    compiled = {}
    for name, kind in KINDS.items():

        def forward(*arrays, kind=kind):
            return attention.attend(*arrays, mask, kind).astype(jnp.float32)

        def step(*arrays, forward=forward):
            return jax.grad(lambda *x: jnp.sum(forward(*x) ** 2), (0, 1, 2))(*arrays)

        for what, function in (("forward", forward), ("with gradient", step)):
            program = jax.jit(function).lower(*arrays).compile()
            compiled[name, what] = program
    rows, functions = [], {}
    memory = {
        key: program.memory_analysis().temp_size_in_bytes / 2**30
        for key, program in compiled.items()
    }
    for key, program in compiled.items():
        if memory[key] <= options.memory:
            functions[key] = lambda p=program: jax.block_until_ready(p(*arrays))
    # One after the other: giving back the gigabytes of one would count for the next.
    spent = {
        key: timing.interleaved({"": function}, options.repeats, options.clock)[""]
        for key, function in functions.items()
    }
    for name, what in compiled:
        seconds = spent.get((name, what))
        rows.append(
            [
                f"{length} tokens, {name}, {what}",
                f"{1e3 * seconds:.1f}" if seconds else "-",
                f"{1024 * memory[name, what]:,.0f}",
            ]
        )
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, nargs="+", default=[441, 1764, 7056])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64, help="of a head")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--memory", type=float, default=4.0, help="GiB at most")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    print(f"{jax.devices()[0].device_kind}  jax {jax.__version__}  {options.dtype}")
    rows = [["one layer", "ms", "MiB"]]
    for length in options.length:
        rows += measured(length, options)
    print(aligned(rows))


if __name__ == "__main__":
    main()
