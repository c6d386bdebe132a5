"""Train what a config file describes; run it again to resume.

  gptface train --config configs/vqgan/faces64.py:tiny --workdir runs/try
  gptface train --config configs/gptface/faces64.py --workdir runs/gptface \\
      --config.optim.peak_lr=5e-4 --config.data.train.path=my_tokens

The work folder gets checkpoints/, metrics.jsonl and config.json. Ctrl-C or SIGTERM
stops after the current step and saves (status 75); the same command goes on from
there. Every key of a config can be set as --config.KEY=VALUE. On several hosts start
the same command on each: SLURM, JobSet and GKE TPU jobs are recognised, Cloud TPU
pods need --distributed, anything else --coordinator, --num-processes and
--process-id; launch/ has a script or manifest for each.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _hosts
from gptface_jax.core.errors import Stopped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        required=True,
        help="a name that `gptface configs` lists, or a file; with :tiny after it "
        "a try of four steps",
    )
    parser.add_argument("--workdir", required=True, help="folder of this run")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--profile",
        type=int,
        nargs="?",
        const=10,
        metavar="STEPS",
        help="record some steps (default 10) in WORKDIR/profile, for TensorBoard or "
        "XProf",
    )
    _hosts.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.core.config import load_config, override

    config = override(load_config(options.config), options.overrides)
    if options.profile:
        config.profile_steps = options.profile
    _hosts.join(options)
    from gptface_jax.experiments import training
    from gptface_jax.train import metrics

    state = training.train(config, options.workdir, progress=not options.quiet)
    if state.stopped:
        raise Stopped(
            f"stopped after step {int(state.step)} of {config.total_steps} and saved; "
            "run the same command again to go on"
        )
    if not options.quiet:
        metrics.print_line(
            f"{int(state.step)} steps done: {options.workdir}; curves: "
            f"gptface plot {options.workdir} --out curves.png"
        )
