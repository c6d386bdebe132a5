"""Training runs -> one model directory (safetensors, tokenizer files, model card).

gptface export --gptface runs/gptface --tokenizer runs/vqgan --out my_model
gptface edit --model my_model --image photo.jpg --region mouth --text "..." --out e.png
"""

from __future__ import annotations

import argparse

from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gptface", required=True, help="run of the transformer")
    parser.add_argument("--tokenizer", required=True, help="run of the VQGAN")
    parser.add_argument("--out", required=True, help="new folder")
    parser.add_argument("--description", default="", help="first lines of the card")
    parser.add_argument("--card", help="file that replaces the generated model card")
    parser.add_argument(
        "--decode",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="recommended decoder option, e.g. step_size=0.02; repeatable",
    )
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--step", help="checkpoint of the transformer; default best")


def run(options: argparse.Namespace) -> None:
    import ast

    from gptface_jax.apps import exporting

    decode = {}
    for pair in options.decode:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"--decode '{pair}' has no '='; write key=value")
        try:
            decode[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            decode[name] = text
    step = options.step or "best"
    millions = exporting.export(
        options.gptface,
        options.tokenizer,
        options.out,
        description=options.description,
        card=options.card,
        decode=decode,
        dtype=options.dtype,
        step=int(step) if step.isdigit() else step,
    )
    parts = ", ".join(f"{k} {v:.2f} M parameters" for k, v in millions.items())
    print(f"{parts} -> {options.out}")
