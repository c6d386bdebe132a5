"""Training runs -> a model directory (safetensors, tokenizer files, model card).

gptface export --gptface runs/gptface --tokenizer runs/vqgan --out my_model
gptface edit --model my_model --image photo.jpg --region mouth --text "..." --out e.png

A training run of any other system, with the tokenizer of its codes if it has some:

gptface export --run runs/talk2face --tokenizer runs/vqgan --out my_talk2face
gptface export --run runs/shared --tokenizer vqgan128 --decode k=16 --out my_shared
gptface export --run runs/judge --out my_judge

A model directory again, with other options, card or precision:

gptface export --run my_shared --decode k=8 --synthesis temperature=0.7 --out better

A VQGAN alone, as a directory or for taming-transformers (FILE.ckpt or
FILE.safetensors, and FILE.yaml beside it; `gptface import` is the way back):

gptface export --tokenizer runs/vqgan --out my_vqgan
gptface export --format taming --tokenizer runs/vqgan --out vqgan.ckpt

A Talk2Face for TencentPretrain (FILE.bin or FILE.safetensors, with FILE.json and
FILE.vocab.txt), in the form that it knows: dense, pre-LN, bare output, as
configs/talk2face/seq2seq_base.py is:

gptface export --format tencent --run runs/talk2face --out talk2face.bin

A Faceptor in the layout of its release, with its sizes beside it as JSON:

gptface export --format faceptor --run runs/faceptor --out faceptor.pth.tar

A model directory with one StableHLO program of the whole edit, for servers that have
JAX but not this package (extra `export`; its edit.py shows how to run it):

gptface export --format stablehlo --model demo --batch-size 8 --out demo_program

taming has 32 groups in every GroupNorm and level widths that are multiples of the
first one; other networks are refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

from gptface_jax.cli import _help, _upright
from gptface_jax.core.config import assignments
from gptface_jax.core.errors import UserError

# Format that holds one network -> which.
_ALONE = {"tencent": "a Talk2Face", "faceptor": "a Faceptor"}
# Options of a directory that a taming checkpoint has no place for.
_DIRECTORY_ONLY = (
    "run", "gptface", "description", "card", "decode", "synthesis", "frame",
    "attributes", "license", "dtype",
)  # fmt: skip
_OF_GPTFACE = ("decode", "synthesis", "frame", "attributes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        default="directory",
        choices=("directory", "taming", "tencent", "faceptor", "stablehlo"),
        help="what is written; default directory",
    )
    parser.add_argument(
        "--gptface",
        help="run of the transformer, or a model directory; without: VQGAN only",
    )
    parser.add_argument(
        "--tokenizer",
        help="run of the VQGAN; without --gptface also a model directory",
    )
    parser.add_argument(
        "--run",
        help="run of another system, e.g. of a Talk2Face or a judge; or a model "
        "directory of one, to change its options, card or precision",
    )
    parser.add_argument(
        "--model", help="bundled name, model directory or hub id (stablehlo)"
    )
    parser.add_argument("--out", required=True, help="new folder or file")
    parser.add_argument("--description", help="first lines of the card")
    parser.add_argument("--card", help="file that replaces the generated model card")
    parser.add_argument(
        "--decode",
        action="append",
        metavar="KEY=VALUE",
        help="recommended decoder option, e.g. step_size=0.02; repeatable",
    )
    parser.add_argument(
        "--synthesis",
        action="append",
        metavar="KEY=VALUE",
        help="recommended option of a Talk2Face's pictures, e.g. temperature=0.7; "
        "repeatable (--run)",
    )
    parser.add_argument(
        "--frame",
        metavar="FILE.json",
        help="where the training pictures show a face, by `gptface faces --measure`; "
        "default what the token cache says",
    )
    parser.add_argument(
        "--attributes",
        nargs="+",
        action=_help.Names,
        metavar="NAME",
        help="sliders that the page offers; default six of CelebA's",
    )
    parser.add_argument(
        "--license",
        help='of the weights, such as "research only: trained on LFW"; who loads the '
        "model is told",
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="precision of the stored weights; default bfloat16",
    )
    parser.add_argument(
        "--step",
        help="checkpoint of the transformer, or of a VQGAN alone; default best",
    )
    _add_program(parser.add_argument_group("stablehlo"))


def _add_program(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--batch-size", type=int, default=1, help="edits that the program makes at once"
    )
    group.add_argument(
        "--samples",
        type=int,
        help="candidates, of which the best match is kept; default as of `edit`",
    )
    group.add_argument(
        "--platforms", default="cpu,cuda,tpu", help="comma-separated, of these three"
    )


def run(options: argparse.Namespace) -> None:
    if options.format == "stablehlo":
        return _program(options)
    step: Any = options.step or "best"
    step = int(step) if step.isdigit() else step
    if options.format in _ALONE:
        return _alone(options, step)
    from gptface_jax.apps import exporting

    if options.run and options.gptface:
        raise UserError("give either --run or --gptface")
    if options.tokenizer is None and not options.run:
        raise UserError("--tokenizer is missing; give the run of the VQGAN")
    if options.format == "taming":
        _refuse(options, _DIRECTORY_ONLY, "taming, a VQGAN alone")
        millions = exporting.export_taming(options.tokenizer, options.out, step)
    else:
        card = {
            "description": options.description or "",
            "card": options.card,
            "license": options.license,
            "dtype": options.dtype or "bfloat16",
            "step": step,
        }
        if options.run:
            millions = exporting.export_run(
                options.run,
                options.out,
                tokenizer=options.tokenizer,
                synthesis=assignments("--synthesis", options.synthesis or ()),
                **_of_editor(options),
                **card,
            )
        elif options.gptface:
            _refuse(options, ("synthesis",), "directory and --gptface; give --run")
            millions = exporting.export(
                options.gptface,
                options.tokenizer,
                options.out,
                **_of_editor(options),
                **card,
            )
        elif given := [n for n in _OF_GPTFACE if getattr(options, n) is not None]:
            raise UserError(f"--{given[0]} is for a transformer; give --gptface")
        else:
            millions = exporting.export_tokenizer(
                options.tokenizer, options.out, **card
            )
    _print_parameters(millions, options)


def _of_editor(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "decode": assignments("--decode", options.decode or ()),
        "attributes": options.attributes or [],
        "frame": options.frame and _upright.read_frame(options.frame),
    }


def _alone(options: argparse.Namespace, step: Any) -> None:
    from gptface_jax.apps import exporting, releasing

    what = _ALONE[options.format]
    others = {*_DIRECTORY_ONLY, "tokenizer"} - {"run"}
    _refuse(options, sorted(others), f"{options.format}, {what} alone")
    if not options.run:
        raise UserError(f"--run is missing; give the run of {what}")
    write = {
        "tencent": exporting.export_tencent,
        "faceptor": releasing.export_faceptor,
    }[options.format]
    _print_parameters(write(options.run, options.out, step), options)


def _refuse(options: argparse.Namespace, names: Iterable[str], what: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise UserError(f"--{name} does not go with --format {what}")


def _print_parameters(
    millions: Mapping[str, float], options: argparse.Namespace
) -> None:
    parts = ", ".join(f"{k} {v:.2f} M parameters" for k, v in millions.items())
    print(f"{parts} -> {options.out}")


def _program(options: argparse.Namespace) -> None:
    from gptface_jax.apps import program

    for name in sorted({*_DIRECTORY_ONLY, "tokenizer", "step"} - {"decode"}):
        if getattr(options, name) is not None:
            raise UserError(
                f"--{name} does not go with --format stablehlo; export a directory "
                "first and give it as --model"
            )
    if options.model is None:
        raise UserError("--model is missing; give a bundled name or a model directory")
    size = program.write(
        options.model,
        options.out,
        batch_size=options.batch_size,
        samples=options.samples,
        decode_options=assignments("--decode", options.decode or ()),
        platforms=options.platforms.split(","),
    )
    print(f"{program.NAME} {size / 1e6:.1f} MB, {program.SCRIPT} -> {options.out}")
