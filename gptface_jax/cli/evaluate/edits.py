"""Figures of edits, as JSON.

Every picture is edited twice an attribute, with a text that asks for it and one that
rules it out; a classifier trained apart says what it sees. --methods names a file whose
get_sweep() gives {name: options of the decoder and "samples"}; then comes a table, and
what --out holds already is not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from typing import Any

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared
from gptface_jax.cli.evaluate._shared import add_arguments as add_arguments
from gptface_jax.core.errors import UserError, nearest


def run(options: argparse.Namespace) -> None:
    import numpy as np

    from gptface_jax.apps import plotting
    from gptface_jax.data import probe
    from gptface_jax.pipelines import pictures
    from gptface_jax.protocols import edits
    from gptface_jax.protocols.judge import features_of

    model = _shared.model(options)
    judge = _shared.open_judge(options)
    records = _shared.records(options)
    attributes = options.attributes or probe.ATTRIBUTES
    more = {}
    if options.images == "synthetic":
        more["truth"] = edits.counterfactuals(_source.spec(options))
        more["people"] = np.array([record.identity for record in records])
    if options.features:
        more["features"] = features_of(options.features)
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
            figures = edits.judge_edits(
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
            _shared.write(rows, options.out)  # what there is, should it be stopped
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
    if options.methods:
        print(edits.edits_table(rows))
        _shared.write(rows, options.out)
    else:
        _shared.show(rows, options)


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
