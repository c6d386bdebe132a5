"""Options and results that several kinds of evaluation share."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from gptface_jax.cli import _photo, _source
from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that six kinds share; each says in its help which it uses."""
    _source.add_arguments(parser, required=False)
    parser.add_argument(
        "--run", nargs="+", help="GPTFace training runs (likelihood, masked)"
    )
    parser.add_argument(
        "--ratios",
        nargs="+",
        type=float,
        default=[0.15, 0.4, 0.65, 0.85],
        help="shares of the codes that are hidden (masked)",
    )
    parser.add_argument("--tokens", help="token cache to evaluate on (likelihood)")
    parser.add_argument("--model", default="demo", help="name, directory or run")
    parser.add_argument("--tokenizer", help="VQGAN run, if --model is a run")
    parser.add_argument("--judge", help="judge training run")
    parser.add_argument("--attributes", nargs="+", help="default: six of CelebA's")
    parser.add_argument("--method", default="likelihood", help="of the proposals")
    parser.add_argument(
        "--max-phrases", type=int, default=10, help="attributes a caption names at most"
    )
    parser.add_argument(
        "--guidance",
        nargs="+",
        choices=_photo.GUIDANCE,
        help="to be compared, without classifier-free guidance; default: what the "
        "model takes by default (edits)",
    )
    parser.add_argument("--methods", metavar="FILE.py", help="instead (edits)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of --methods")
    parser.add_argument(
        "--features", help="judge run whose features give Frechet distances (edits)"
    )
    parser.add_argument("--plot", help="picture of the figures (edits, masked)")
    parser.add_argument("--step-size", type=float, help="of the guidance")
    parser.add_argument("--k", type=int, help="tokens committed per iteration")
    parser.add_argument(
        "--no-match-token", action="store_true", help="do not condition on a match"
    )
    parser.add_argument("--samples", type=int, default=1, help="candidates an edit")
    parser.add_argument(
        "--borders",
        type=int,
        default=30,
        help="levels, as of `edit`; default 30, as there (edits)",
    )
    parser.add_argument("--decode-seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--sheet", help="picture of examples (edits)")
    parser.add_argument("--out", help="also write the JSON here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_talk2face(
    parser: argparse.ArgumentParser, what: str = "", images: bool = True
) -> None:
    """Adds the options of Talk2Face evaluations; each `what` is a row of --samples."""
    _source.add_arguments(parser, required=images)
    parser.add_argument(
        "--model", required=True, help="directory or run of a Talk2Face"
    )
    parser.add_argument("--tokenizer", help="VQGAN run, where --model is a run")
    if what:
        parser.add_argument(
            "--samples", metavar="FILE.jsonl", help=f"every single {what}"
        )
    parser.add_argument("--out", help="the figures as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_generation(parser: argparse.ArgumentParser) -> None:
    """How a Talk2Face draws or writes: --decode-seed and --decode."""
    parser.add_argument("--decode-seed", type=int, default=0, help="seed")
    parser.add_argument(
        "--decode",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any option of GenerateConfig, e.g. temperature=0.7; repeatable",
    )


def need(options: argparse.Namespace, *names: str) -> None:
    """Refuses an evaluation without these options."""
    for name in names:
        if getattr(options, name) is None:
            raise UserError(f"evaluate {options.what} needs --{name}")


def records(options: argparse.Namespace) -> list[Record]:
    """The first of --images, 256 if --limit says nothing else."""
    from gptface_jax.protocols.records import open_records

    need(options, "images")
    return open_records(_source.spec(options), options.limit or 256)


def model(options: argparse.Namespace):
    """The model of --model and --tokenizer."""
    import gptface_jax

    return gptface_jax.load(options.model, tokenizer=options.tokenizer)


def open_judge(options: argparse.Namespace):
    """The `protocols.judge.Judge` of --judge."""
    from gptface_jax.experiments import opening
    from gptface_jax.protocols.judge import Judge

    need(options, "judge")
    return Judge(opening.open_network(options.judge, "judge"))


def named(given: list[str], flag: str) -> dict[str, str]:
    """Paths by name, of a repeatable flag's NAME=PATH or PATH.

    Raises:
      UserError: a name twice, or half a pair.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            path, name = text, os.path.basename(os.path.normpath(text))
        if not (name and path):
            raise UserError(f"{flag} {text} is no NAME=PATH; write e.g. itm=runs/itm")
        if name in found:
            raise UserError(f"{flag} names '{name}' twice; write {flag} NAME=PATH")
        found[name] = path
    return found


def write(figures: Any, path: str | None) -> None:
    """Writes figures as JSON, if a file is given."""
    if path:
        files.write_text(path, json.dumps(figures, indent=2) + "\n")


def show(figures: Any, options: argparse.Namespace) -> None:
    """Prints figures as JSON, and writes them to --out."""
    print(json.dumps(figures, indent=2))
    write(figures, options.out)
