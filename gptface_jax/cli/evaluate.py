"""Figures of a trained model.

gptface evaluate likelihood --run runs/gptface64 --tokens tokens/lfw_test
gptface evaluate matching --model demo --images synthetic --limit 512 --seed 77
gptface evaluate judge --judge runs/judge --images synthetic --limit 1000 --seed 77
gptface evaluate edits --model demo --judge runs/judge --images synthetic \\
    --limit 256 --seed 77 --guidance ascent_norm none --decode-seeds 0 1 2
gptface evaluate proposals --model demo --limit 64
gptface evaluate probe --model demo --images ../shared/data/lfw_attributes
gptface evaluate tagging --model demo --images synthetic --limit 100

Each has its own help, such as: gptface evaluate probe --help
"""

from __future__ import annotations

import argparse
import json
import types

from gptface_jax.cli import _photo, _probe, _source, _tagging
from gptface_jax.core.errors import UserError

KINDS = {
    "likelihood": "masked likelihoods of a training run on held-out tokens, as JSON",
    "matching": "image-text matching on balanced held-out pairs, as JSON",
    "judge": "balanced accuracy of a judge by attribute, as JSON",
    "edits": """Figures of edits, as JSON.

Every picture is edited twice an attribute, with a text that asks for it and one that
rules it out; a classifier trained apart says what it sees.""",
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
    parser.add_argument("--run", help="GPTFace training run (likelihood)")
    parser.add_argument("--tokens", help="token cache to evaluate on (likelihood)")
    parser.add_argument("--model", default="demo", help="name, directory or run")
    parser.add_argument("--tokenizer", help="VQGAN run, where --model is a run")
    parser.add_argument("--judge", help="judge training run")
    parser.add_argument("--attributes", nargs="+", help="default: six of CelebA's")
    parser.add_argument("--method", default="occlusion", help="of the proposals")
    parser.add_argument("--max-phrases", type=int, default=10)
    parser.add_argument("--guidance", nargs="+", choices=_photo.GUIDANCE)
    parser.add_argument("--step-size", type=float)
    parser.add_argument("--k", type=int)
    parser.add_argument("--no-match-token", action="store_true")
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--decode-seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--sheet", help="picture of examples (edits)")
    parser.add_argument("--out", help="also write the JSON here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    if options.what in _TABLES:
        return _TABLES[options.what].run(options)
    from gptface_jax.apps import evaluation

    figures = globals()[f"_{options.what}"](options, evaluation)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        with open(options.out, "w") as file:
            file.write(text + "\n")


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
    return evaluation.likelihood(options.run, spec, records=options.limit or 1024)


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
    from gptface_jax.apps import networks

    _need(options, "judge")
    return evaluation.Judge(networks.open_network(options.judge, "judge"))


def _judge(options, evaluation):
    judge = _open_judge(options, evaluation)
    figures = judge.balanced_accuracy(_records(options, evaluation))
    return {**figures, "mean": sum(figures.values()) / len(figures)}


def _edits(options, evaluation):
    import gptface_jax
    from gptface_jax.apps import pictures
    from gptface_jax.data import probe

    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    judge = _open_judge(options, evaluation)
    records = _records(options, evaluation)
    attributes = options.attributes or probe.ATTRIBUTES
    changes = {"step_size": options.step_size, "k": options.k}
    changes = {k: v for k, v in changes.items() if v is not None}
    if options.no_match_token:
        changes["match_token"] = False
    rows = []
    for guidance in options.guidance or [model.decode.guidance]:
        config = model.decode_config({**changes, "guidance": guidance})
        for seed in options.decode_seeds:
            figures = evaluation.judge_edits(
                model,
                judge,
                records,
                attributes,
                config,
                seed,
                samples=options.samples,
                progress=not options.quiet,
            )
            examples = figures.pop("examples")
            rows.append({"guidance": guidance, "seed": seed, **changes, **figures})
    if options.sheet:
        shown = [p for triple in examples for p in triple]
        said = [t for a in attributes for t in ("before", f"+ {a}", f"- {a}")]
        pictures.save(pictures.sheet(shown, 6, said, cell=128), options.sheet)
    return rows


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
