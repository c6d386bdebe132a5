"""A model's parameters, and what training it costs on devices that need not be there.

gptface describe --config configs/gptface/pretrain_base.py
gptface describe --config configs/gptface/pretrain_base.py --mesh 4x2x1
gptface describe --config configs/gptface/pretrain_base.py --topology v5e:2x4
gptface describe --config configs/gptface/pretrain_base.py --topology v5e:2x4 --fit
gptface describe --model demo

Nothing is allocated. With --mesh or --topology the training step is compiled: FLOPs,
memory of one device by kind, collectives and the time that the step cannot be faster
than. TPU topologies are compiled for by libtpu itself (extra `tpu`), without a TPU,
which also says how long it expects each operation to take; for GPUs the program of the
CPU's compiler stands in, whose temporaries are larger. --fit looks for the fastest
settings (what is recomputed, microbatches) that fit the device.
"""

from __future__ import annotations

import argparse
import sys

from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        help="a name that `gptface configs` lists, or a file; with :tiny shrunk",
    )
    parser.add_argument("--model", help="bundled name, model directory or run")
    parser.add_argument(
        "--depth", type=int, default=2, help="levels of names; 0 shows all"
    )
    parser.add_argument(
        "--mesh", help="data, fsdp, tensor, mixed, two_slices, or sizes such as 4x2x1"
    )
    parser.add_argument(
        "--topology", help="v5e:2x4, v5e:16x16, v5p:4x4x4, v6e:2x4, h100:8, h200:8, ..."
    )
    parser.add_argument(
        "--fit", action="store_true", help="find the fastest settings that fit"
    )


def run(options: argparse.Namespace) -> None:
    if bool(options.config) == bool(options.model):
        raise UserError("give either --config or --model")
    if options.model and (options.mesh or options.topology):
        raise UserError("--mesh and --topology need --config")
    if options.depth < 0:
        raise UserError(f"--depth is {options.depth}; use 1 or more, or 0 for all")
    if options.fit and not options.topology:
        raise UserError("--fit needs --topology: how much memory is there?")
    from gptface_jax.apps import describing

    if options.model:
        print(describing.of_model(options.model, options.depth))
        return
    from gptface_jax.core.config import load_config, override

    config = override(load_config(options.config), options.overrides)
    cost = ""
    if options.mesh or options.topology:
        # Before anything else of JAX: it decides how many devices there are.
        print("compiling the training step ...", file=sys.stderr)
        where = {"topology": options.topology, "mesh": options.mesh}
        ways = describing.ways_to_fit(config) if options.fit else []
        for way in ways:
            fine, line, found = describing.fits(config, way, **where)
            print(line, file=sys.stderr)
            if fine:
                break
        else:
            if ways:
                raise UserError("nothing fits; use more devices, or --mesh fsdp")
            found = describing.cost_of(config, **where)
        cost = "\n\n" + describing.cost_table(*found)
    print(describing.of_config(config, options.depth) + cost)
