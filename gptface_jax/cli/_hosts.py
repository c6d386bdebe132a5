"""Arguments that start one job on several hosts."""

from __future__ import annotations

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several hosts",
        "the same command on each; SLURM, JobSet and GKE TPU jobs need none of these",
    )
    group.add_argument("--coordinator", help="host:port of process 0")
    group.add_argument(
        "--num-processes", "--num_processes", type=int, help="number of processes"
    )
    group.add_argument(
        "--process-id", "--process_id", type=int, help="number of this one, from 0 on"
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="let JAX find the other hosts (Cloud TPU pods)",
    )
    group.add_argument(
        "--join-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait for the slowest process; default 300",
    )


def join(options: argparse.Namespace) -> None:
    """Joins the other processes, if there are any; before anything else of JAX."""
    from gptface_jax.train import hosts

    flags = (options.coordinator, options.num_processes, options.process_id)
    cluster = hosts.from_flags(*flags) or hosts.from_environment(os.environ)
    if cluster is None and options.distributed:
        cluster = hosts.Cluster("JAX")
    hosts.join(cluster, timeout=options.join_timeout)
