"""Table of a model's parameters, of a config or of a trained model.

gptface describe --config configs/gptface/pretrain_base.py
gptface describe --model demo

Nothing is allocated: only shapes are computed.
"""

from __future__ import annotations

import argparse

from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", help="a config file")
    parser.add_argument("--model", help="bundled name, model directory or run")
    parser.add_argument(
        "--depth", type=int, default=2, help="levels of names; 0 shows all"
    )


def run(options: argparse.Namespace) -> None:
    if bool(options.config) == bool(options.model):
        raise UserError("give either --config or --model")
    from gptface_jax.apps import describing

    if options.config:
        from gptface_jax.core.config import load_config, override

        config = override(load_config(options.config), options.overrides)
        print(describing.of_config(config, options.depth))
    else:
        print(describing.of_model(options.model, options.depth))
