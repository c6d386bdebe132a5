"""Options and results that several kinds of evaluation share."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

from gptface_jax.cli import _help, _source, _written
from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record


def add_photos(
    parser: argparse.ArgumentParser, limit: int = 256, required: bool = True
) -> None:
    """--images and what goes with it; `limit` of them are used, if no other is said."""
    _source.add_arguments(parser, required, str(limit))


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="demo",
        help="bundled name, model directory or training run; default the bundled "
        "GPTFace, demo",
    )
    add_tokenizer(parser)


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", help="VQGAN training run, where --model is a training run"
    )


def add_judge(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--judge",
        required=required,
        help="training run or model directory of a classifier (configs/judge) that "
        "says what pictures show",
    )


def add_attributes(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--attributes",
        nargs="+",
        action=_help.Names,
        metavar="NAME",
        help=f"names as of CelebA, e.g. Smiling Eyeglasses; default {default}",
    )


def add_max_phrases(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-phrases", type=int, default=10, help="attributes a caption names at most"
    )


def add_candidates(parser: argparse.ArgumentParser) -> None:
    """How edits that are judged are made."""
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        help="candidates an edit, of which the best match is kept; default 1, while "
        "`gptface edit` draws several",
    )
    parser.add_argument(
        "--borders",
        type=int,
        default=30,
        help="maximum colour shift that hides the mask's border, in levels of 255",
    )
    parser.add_argument(
        "--decode-seeds",
        nargs="+",
        type=int,
        default=[0],
        help="random seeds of the edits, each a round of its own",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", nargs="+", required=True, help="GPTFace training runs, to be compared"
    )


def add_out(parser: argparse.ArgumentParser, what: str = "the figures as JSON") -> None:
    parser.add_argument("--out", metavar="FILE.json", help=what)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def add_talk2face(
    parser: argparse.ArgumentParser, what: str = "", images: bool = True
) -> None:
    """Adds the options of Talk2Face evaluations; each `what` is a row of --samples."""
    add_photos(parser, required=images)
    add_model_of(parser, "Talk2Face")
    if what:
        parser.add_argument(
            "--samples", metavar="FILE.jsonl", help=f"every single {what}"
        )
    add_out(parser)


def add_model_of(parser: argparse.ArgumentParser, system: str) -> None:
    parser.add_argument(
        "--model",
        required=True,
        help=f"model directory or training run of a {system}",
    )
    add_tokenizer(parser)


def add_generation(parser: argparse.ArgumentParser) -> None:
    """How a Talk2Face draws or writes: --decode-seed and --decode."""
    parser.add_argument("--decode-seed", type=int, default=0, help="random seed")
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


def add_fold(parser: argparse.ArgumentParser, of: str) -> None:
    """Adds what cross-validation needs; see `fold_of`."""
    parser.add_argument(
        "--fold", metavar="K/N", help="the people of part K of N alone, K from 0 on"
    )
    parser.add_argument(
        "--samples",
        metavar="FILE.jsonl",
        help=f"every single prediction, {of}; see evaluate folds",
    )


def fold_of(options: argparse.Namespace, size: int) -> dict[str, Any]:
    """The source of --images, or the people of --fold of it; see `_source.spec`.

    Raises:
      UserError: a fold that is none, or --samples that cannot be written.
    """
    if options.samples:
        _written.check_file("--samples", options.samples)
    spec = _source.spec(options, size)
    if not options.fold:
        return spec
    part, slash, parts = options.fold.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise UserError(f"--fold {options.fold} is no K/N; write e.g. --fold 0/5")
    limit = spec.pop("limit", None)
    numbers = {"folds": int(parts), "fold": int(part), "held_out": True}
    return {"kind": "fold", "source": spec, **numbers, "limit": limit}


def records(options: argparse.Namespace, size: int) -> list[Record]:
    """The first of --images, 256 if --limit says nothing else; see `_source.spec`."""
    from gptface_jax.protocols.records import open_records

    return open_records(_source.spec(options, size), _source.limit(options, 256))


def model(options: argparse.Namespace, verb: str, path: str | None = None):
    """The model of --model, or of a path, and --tokenizer.

    verb: of those that can be evaluated; of a model of several systems it is the one
    that has it.

    Raises:
      UserError: the model lacks it, with what models have it.
    """
    import gptface_jax

    found = gptface_jax.load(path or options.model, tokenizer=options.tokenizer)
    return getattr(found, verb).__self__


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


def defined(figures: Mapping[str, float]) -> dict[str, float]:
    """Those of attributes that some pictures have and others have not.

    A note on stderr names the others, whose figures are NaN.
    """
    undefined = [name for name, value in figures.items() if math.isnan(value)]
    if undefined:
        said = "no figure for " + ", ".join(undefined)
        print(f"{said}: no labels, or the same in all pictures", file=sys.stderr)
    return {k: v for k, v in figures.items() if k not in undefined}


def rounded(figures: Any) -> Any:
    """Figures with three digits after the point, for people to read."""
    if isinstance(figures, Mapping):
        return {name: rounded(value) for name, value in figures.items()}
    return round(figures, 3) if isinstance(figures, float) else figures


def write(figures: Any, path: str | None) -> None:
    """Writes figures as JSON, if a file is given."""
    if path:
        files.write_text(path, files.json_text(figures, 2))


def show(figures: Any, options: argparse.Namespace) -> None:
    """Prints figures as JSON, and writes them to --out."""
    print(files.json_text(figures, 2), end="")
    write(figures, options.out)
