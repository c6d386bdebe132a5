"""Figures of a trained model.

gptface evaluate likelihood --run runs/gptface64 --tokens tokens/lfw_test
gptface evaluate masked --run runs/masks/span runs/masks/random
gptface evaluate matching --model demo --images synthetic --limit 512 --seed 77
gptface evaluate judge --judge runs/judge --images synthetic --limit 1000 --seed 77
gptface evaluate edits --model demo --judge runs/judge --images synthetic \\
    --limit 256 --seed 77 --guidance ascent_norm none --decode-seeds 0 1 2
gptface evaluate edits --model runs/weak_text/rho_0.3 --tokenizer demo \\
    --judge runs/judge --images synthetic --methods configs/experiments/guidance.py
gptface evaluate proposals --model demo --limit 64
gptface evaluate probe --model demo --images ../shared/data/lfw_attributes
gptface evaluate tagging --model demo --images synthetic --limit 100

Each has its own help, such as: gptface evaluate probe --help
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import types
from typing import Any

from gptface_jax.cli import _photo, _probe, _source, _tagging, _written
from gptface_jax.core import files
from gptface_jax.core.errors import UserError, nearest

KINDS = {
    "likelihood": "masked likelihoods of a training run on held-out tokens, as JSON",
    "masked": "how likely the codes behind spans and random masks are, as JSON",
    "matching": "image-text matching on balanced held-out pairs, as JSON",
    "judge": "balanced accuracy of a judge by attribute, as JSON",
    "edits": """Figures of edits, as JSON.

Every picture is edited twice an attribute, with a text that asks for it and one that
rules it out; a classifier trained apart says what it sees. --methods names a file whose
get_sweep() gives {name: options of the decoder and "samples"}; then comes a table, and
what --out holds already is not measured again.""",
    "proposals": """How well proposed masks fit, as JSON.

The masks that a sentence proposes against the pixels that two drawings differ in.""",
}
_TABLES: dict[str, types.ModuleType] = {"probe": _probe, "tagging": _tagging}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    described = {**KINDS, **{n: m.__doc__ for n, m in _TABLES.items()}}
    for name, text in described.items():
        kind = kinds.add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        adds = _TABLES[name].add_arguments if name in _TABLES else _add_arguments
        adds(kind)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--tokenizer", help="VQGAN run, where --model is a run")
    parser.add_argument("--judge", help="judge training run")
    parser.add_argument("--attributes", nargs="+", help="default: six of CelebA's")
    parser.add_argument("--method", default="likelihood", help="of the proposals")
    parser.add_argument("--max-phrases", type=int, default=10)
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
    parser.add_argument("--step-size", type=float)
    parser.add_argument("--k", type=int)
    parser.add_argument("--no-match-token", action="store_true")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument(
        "--borders", type=int, default=0, help="levels, as of `edit` (edits)"
    )
    parser.add_argument("--decode-seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--sheet", help="picture of examples (edits)")
    parser.add_argument("--out", help="also write the JSON here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    _written.check_file("--out", options.out)
    if options.what in _TABLES:
        return _TABLES[options.what].run(options)
    from gptface_jax.apps import evaluation

    figures = globals()[f"_{options.what}"](options, evaluation)
    if options.what == "edits" and options.methods:
        print(evaluation.edits_table(figures))
    else:
        print(json.dumps(figures, indent=2))
    if options.out:
        _write(figures, options.out)


def _write(figures: Any, path: str) -> None:
    files.write_text(path, json.dumps(figures, indent=2) + "\n")


def _need(options: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(options, name) is None:
            raise UserError(f"evaluate {options.what} needs --{name}")


def _records(options, evaluation):
    _need(options, "images")
    return evaluation.open_records(_source.spec(options), options.limit or 256)


def _likelihood(options, evaluation):
    _need(options, "run")
    spec = {"kind": "tokens", "path": options.tokens} if options.tokens else None
    found = {
        run: evaluation.likelihood(run, spec, records=options.limit or 1024)
        for run in options.run
    }
    return found if len(found) > 1 else found[options.run[0]]


def _masked(options, evaluation):
    import tqdm

    _need(options, "run")
    limit = options.limit or 512
    runs = tqdm.tqdm(options.run, unit="run", disable=options.quiet)
    found = {run: evaluation.masked(run, options.ratios, records=limit) for run in runs}
    if options.plot:
        from gptface_jax.apps import plotting

        plotting.hidden_codes(found, options.plot)
    return found


def _matching(options, evaluation):
    import gptface_jax

    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    return evaluation.matching(
        model,
        _records(options, evaluation),
        max_phrases=options.max_phrases,
        attributes=options.attributes,
    )


def _open_judge(options, evaluation):
    from gptface_jax.experiments import opening

    _need(options, "judge")
    return evaluation.Judge(opening.open_network(options.judge, "judge"))


def _judge(options, evaluation):
    judge = _open_judge(options, evaluation)
    figures = judge.balanced_accuracy(_records(options, evaluation))
    return {**figures, "mean": sum(figures.values()) / len(figures)}


def _edits(options, evaluation):
    import numpy as np

    import gptface_jax
    from gptface_jax.apps import plotting
    from gptface_jax.data import probe
    from gptface_jax.pipelines import pictures

    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    judge = _open_judge(options, evaluation)
    records = _records(options, evaluation)
    attributes = options.attributes or probe.ATTRIBUTES
    more = {}
    if options.images == "synthetic":
        more["truth"] = evaluation.counterfactuals(_source.spec(options))
        more["people"] = np.array([record.identity for record in records])
    if options.features:
        more["features"] = evaluation.features_of(options.features)
    about = {
        "model": model.digest,
        "judge": options.judge,
        "pictures": [options.images, options.split, options.limit, options.seed],
        "attributes_asked": list(attributes),
        "borders": options.borders,
        "measured": sorted([*more, *([options.features] if options.features else [])]),
    }
    rows, examples = _earlier(options.out, about), None
    for name, (config, samples) in _methods(options, model).items():
        told = model.editor.gptface.config.match_token
        cost = config.forwards(told) * samples
        asked = {"decode": dataclasses.asdict(config), "samples": samples, **about}
        for seed in options.decode_seeds:
            row = {"method": name, "seed": seed, "forwards": cost, **asked}
            if any(row.items() <= earlier.items() for earlier in rows):
                continue
            figures = evaluation.judge_edits(
                model,
                judge,
                records,
                attributes,
                config,
                seed,
                samples=samples,
                borders=options.borders,
                progress=not options.quiet,
                **more,
            )
            examples = figures.pop("examples")
            rows.append({**row, **figures})
            if options.out:
                _write(rows, options.out)  # what there is, should it be stopped
    if options.sheet and examples is None:
        print(
            "no sheet: --out holds all of it already, and no pictures", file=sys.stderr
        )
    elif options.sheet:
        shown = [p for triple in examples for p in triple]
        said = [t for a in attributes for t in ("before", f"+ {a}", f"- {a}")]
        sheet = pictures.sheet(shown, 6, said, cell=128)
        details = model.details(True, "; ".join(said), seed, config)
        pictures.save(sheet, options.sheet, details)
    if options.plot:
        plotting.rates(rows, options.plot)
    return rows


def _earlier(path: str | None, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an evaluation that was stopped, or that other methods join."""
    if path is None or not os.path.exists(path):
        return []
    with open(path) as file:
        try:
            rows = json.load(file)
            same = all(row[k] == v for row in rows for k, v in about.items())
        except (ValueError, TypeError, KeyError):
            same = False
    if not same:
        raise UserError(
            f"'{path}' holds figures of another evaluation; write to another --out"
        )
    return rows


def _methods(options, model) -> dict:
    """Name -> (DecodeConfig, samples)."""
    from gptface_jax.core.config import load_sweep

    changes = {"step_size": options.step_size, "k": options.k}
    changes = {k: v for k, v in changes.items() if v is not None}
    if options.no_match_token:
        changes["match_token"] = False
    own, plain = {"default": {}}, {"cfg": 1.0, "cfg_end": None}
    if options.methods:
        methods = load_sweep(options.methods)
    else:
        methods = {r: {"guidance": r} for r in options.guidance or ()} or own
    if methods is not own:  # a way is what it says, whatever the model takes by default
        methods = {name: {**plain, **method} for name, method in methods.items()}
    unknown = [name for name in options.only or () if name not in methods]
    if unknown:
        raise UserError(
            f"'{unknown[0]}' is no method{nearest(unknown[0], methods)}; have "
            + ", ".join(methods)
        )
    found = {}
    for name in options.only or methods:
        method = {"samples": options.samples, **methods[name], **changes}
        samples = method.pop("samples")
        found[name] = model.decode_config(method), samples
    return found


def _proposals(options, evaluation):
    import gptface_jax

    return evaluation.proposals(
        gptface_jax.load(options.model, tokenizer=options.tokenizer),
        options.attributes or evaluation.SHOWN,
        options.limit or 64,
        method=options.method,
        seed=options.seed or 0,
        progress=not options.quiet,
    )
