"""Arguments that start one job on several hosts."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several hosts", "the same command on each of them"
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="found by JAX (TPU pods and SLURM jobs)",
    )
    group.add_argument("--coordinator", help="host:port of process 0")
    group.add_argument("--num-processes", type=int)
    group.add_argument("--process-id", type=int)


def join(options: argparse.Namespace) -> None:
    """Joins the other processes, if there are any; before anything else of JAX."""
    if options.distributed or options.coordinator:
        import jax

        jax.distributed.initialize(
            options.coordinator, options.num_processes, options.process_id
        )
