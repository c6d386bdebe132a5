"""whether edits show what was asked for, and keep the rest

gptface evaluate edits --model demo --judge runs/judge --images synthetic \\
    --limit 64 --seed 77 --guidance ascent_norm none --sheet examples.png
gptface evaluate edits --model demo --judge runs/judge --images synthetic --limit 64 \\
    --methods configs/experiments/guidance.py --out table.json --plot table.png

Every picture is edited twice an attribute, with a text that asks for it and one that
rules it out; a classifier trained apart says what it sees. --methods names a file whose
get_sweep() gives {name: options of the decoder and "samples"}; then comes a table, and
what --out holds already is not measured again.

Another program edits the same photographs in three steps:

gptface evaluate edits --images photos --limit 64 --write-jobs jobs
    jobs/ID.png, jobs/ID_mask.png (white = may change) and jobs/jobs.jsonl with a line
    {"id": "ID", "image": "ID.png", "mask": "ID_mask.png", "text": ...} an edit, at the
    size of --model's pictures
the program reads them and writes edited/ID.png of the same size
gptface evaluate edits --images photos --limit 64 --pictures edited --judge runs/judge

Its pictures are judged as they are. --redrawn names a Talk2Face that was trained to
edit (configs/talk2face/faces64.py:edits): it draws the whole picture anew, and is
judged twice, with the region pasted into the photograph, and as drawn ("NAME, whole").
With --methods or --guidance, or an --out that holds others, they stand in one table;
--images, --limit, --seed, --attributes and --model must then be the same.

Judged as people judge an edit, by kind (expression, hair, clothing, ...): what was
asked for, by the judge; what had to stay; and how natural it looks:

gptface evaluate edits --model demo --judge runs/judge --images photos --limit 64 \\
    --attributes Smiling Blond_Hair Wearing_Hat Eyeglasses --upright \\
    --features efficientnet_lite0 --landmarks --seams --repairs
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from typing import Any

from gptface_jax.cli import _photo, _source, _upright
from gptface_jax.cli.evaluate import _shared
from gptface_jax.core.errors import UserError, nearest

_REPAIRS = "repairs"  # their name in the table of kinds
# What a way of --methods leaves to the model: what it has learnt, and how its codes are
# drawn. All else that a model takes by default would be measured in its place.
_MODELS_OWN = ("guidance", "match_token", "temperature", "temperature_end", "density")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser)
    _upright.add_arguments(parser)
    _shared.add_model(parser)
    _shared.add_judge(parser, required=False)
    _shared.add_attributes(parser, "six of CelebA's")
    _add_ways(parser)
    _shared.add_candidates(parser)
    _add_results(parser)
    parser.add_argument(
        "--redrawn",
        action="append",
        metavar="NAME=MODEL",
        help="edits by this Talk2Face as well, with a name for the table or without; "
        "repeatable",
    )
    parser.add_argument(
        "--perception",
        metavar="NAME_OR_DIR",
        help="a Faceptor that sees in each photograph where an attribute's region "
        "lies, as of `edit`; default: where it lies in an upright face",
    )
    group = parser.add_argument_group("editors that are other programs")
    group.add_argument(
        "--write-jobs",
        metavar="DIR",
        help="write photographs, masks and texts there for another program, and stop",
    )
    group.add_argument(
        "--pictures",
        action="append",
        metavar="NAME=DIR",
        help="judge DIR/ID.png that another program made of these jobs, with a name "
        "for the table or without; repeatable",
    )


def _add_ways(parser: argparse.ArgumentParser) -> None:
    """Which ways of decoding are compared."""
    group = parser.add_argument_group(
        "ways to edit; default: what the model takes by default"
    )
    group.add_argument(
        "--guidance",
        nargs="+",
        choices=_photo.GUIDANCE,
        help="rules to compare, without classifier-free guidance",
    )
    group.add_argument(
        "--methods",
        metavar="FILE.py",
        help="instead of --guidance a file whose get_sweep() names them, such as "
        "configs/experiments/guidance.py; of the model's own options they keep "
        + ", ".join(_MODELS_OWN),
    )
    group.add_argument(
        "--only", nargs="+", metavar="NAME", help="of --methods; default all"
    )
    group.add_argument("--step-size", type=float, help="step size of the guidance")
    group.add_argument("--k", type=int, help="tokens committed per decoding iteration")
    group.add_argument(
        "--no-match-token",
        action="store_true",
        help="do not condition on the token of a match",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        metavar="RUN",
        help="judge, or efficientnet_lite0 (extra 'features'), in whose features "
        "pictures are compared: Frechet distance and KID of all, and what has changed "
        "outside the region; default: none",
    )
    parser.add_argument(
        "--landmarks",
        action="store_true",
        help="how far points of the face outside the region move, as shares of the "
        "distance between the eyes",
    )
    parser.add_argument(
        "--seams",
        action="store_true",
        help="train a small network to tell edits by their borders: area under its "
        "ROC curve, .5 if it cannot",
    )
    parser.add_argument(
        "--repairs",
        action="store_true",
        help="also scratches that are painted over and photographs that are joined",
    )
    parser.add_argument("--sheet", metavar="FILE.png", help="examples, as a picture")
    parser.add_argument(
        "--plot",
        metavar="FILE.png",
        help="attribute present with the text and its opposite, as a picture",
    )
    _shared.add_out(parser, "the figures as JSON; what it holds is not made again")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps.api import perceiver
    from gptface_jax.data import attribute_questions
    from gptface_jax.protocols import editors
    from gptface_jax.protocols.records import pictures_of

    others = _shared.named(options.pictures or [], "--pictures")
    redrawn = _shared.named(options.redrawn or [], "--redrawn")
    own = bool(options.methods or options.guidance or not (others or redrawn))
    _check(options, own)
    judge = None if options.write_jobs else _shared.open_judge(options)
    model = _shared.model(options, "edit")
    records, frame = _records(options, model)
    attributes = options.attributes or attribute_questions.ATTRIBUTES
    if judge:
        judge.check(attributes)
    size = model.editor.size
    perception = perceiver(options.perception) if options.perception else None
    asked = {
        seed: editors.tasks(records, attributes, size, seed, perception)
        for seed in options.decode_seeds
    }
    if options.write_jobs:
        (tasks,) = asked.values()
        photos = pictures_of(records, size)
        print(editors.write_jobs(options.write_jobs, photos, tasks))
        return
    edits = []
    if own:
        edits += _by_model(options, model, asked)
    edits += _redrawn(options, redrawn, asked)
    for name, folder in others.items():
        ((seed, tasks),) = asked.items()
        edit, digest = editors.by_other(folder, tasks)
        said = {"method": name, "seed": seed, "forwards": None, "digest": digest}
        edits.append((said, edit))
    _judge(options, model, judge, records, frame, asked, edits)


def _records(options: argparse.Namespace, model):
    """Records of --images, and the frame that --upright has brought them into or None.

    Raises:
      UserError: too few are left.
    """
    from gptface_jax.protocols.repairs import LEAST

    records, frame = _shared.records(options, model.size), None
    if upright := _upright.upright(options, model.editor.size, model.frame):
        found, frame = list(upright(records)), upright.described()["frame"]
        records = [record for record in found if not isinstance(record, str)]
        if dropped := [reason for reason in found if isinstance(reason, str)]:
            reasons = ", ".join(f"{dropped.count(x)} {x}" for x in sorted(set(dropped)))
            print(f"dropped {len(dropped)} of {len(found)}: {reasons}", file=sys.stderr)
    least = LEAST if options.repairs else 2 if options.features or options.seams else 1
    if len(records) < least:
        raise UserError(
            f"{len(records)} of the photographs are left, and {least} are needed; give "
            "more (--limit)"
        )
    return records, frame


def _check(options: argparse.Namespace, own: bool) -> None:
    if options.upright and options.images == "synthetic":
        raise UserError(
            "drawn faces are upright, and their truth is not moved; leave out --upright"
        )
    if options.repairs and not own:
        raise UserError(
            "--repairs is what --model makes; add --methods or --guidance, or leave it "
            "out"
        )
    if options.write_jobs and options.pictures:
        raise UserError("--write-jobs comes before --pictures; give one of them")
    if options.write_jobs or options.pictures:
        if len(options.decode_seeds) > 1:
            flag = "--write-jobs" if options.write_jobs else "--pictures"
            raise UserError(
                f"{flag} goes with one of --decode-seeds at a time, for each has texts "
                "of its own"
            )
    if options.sheet and not own:
        raise UserError(
            "--sheet shows what --model made; add --methods or --guidance, or leave "
            "it out"
        )


def _by_model(options, model, asked) -> list[tuple[dict[str, Any], Any]]:
    """Entries of the row and edits of every method and seed."""
    from gptface_jax.protocols import editors

    found = []
    for name, (config, samples) in _methods(options, model).items():
        said = {
            "forwards": round(
                config.forwards(model.editor.match_token) * config.passes(samples), 1
            ),
            # As it is read again: a tuple comes back as a list.
            "decode": json.loads(json.dumps(dataclasses.asdict(config))),
            "samples": samples,
        }
        for seed in asked:
            edit = editors.by_model(
                model, config, seed, num_candidates=samples, borders=options.borders
            )
            found.append(({"method": name, "seed": seed, **said}, edit))
    return found


def _redrawn(options, models, asked) -> list[tuple[dict[str, Any], Any]]:
    """Entries of the row and edits of Talk2Faces by name, for each seed."""
    import gptface_jax
    from gptface_jax.pipelines.compositing import Blend
    from gptface_jax.protocols import editors

    found = []
    for name, path in models.items():
        model = gptface_jax.load(path, system="talk2face")
        said = {"forwards": None, "digest": model.digest}
        for title, blend in (
            (name, Blend(borders=options.borders)),
            (f"{name}, whole", Blend(composite=False)),
        ):
            for seed in asked:
                edit = editors.by_redrawing(model, seed, blend=blend)
                found.append(({"method": title, "seed": seed, **said}, edit))
    return found


def _judge(options, model, judge, records, frame, asked, methods) -> None:
    """Measures what is not measured yet; prints and writes it."""
    from gptface_jax.apps import plotting
    from gptface_jax.protocols import edits, repairs
    from gptface_jax.protocols.records import pictures_of

    photos = pictures_of(records, model.editor.size)
    more = _measures(options, records, model.size)
    measures = edits.Measures(**more)
    about = {
        "model": model.digest,
        "judge": options.judge,
        "pictures": [options.images, options.split, options.limit, options.seed],
        "attributes_asked": [t.attribute for t in asked[options.decode_seeds[0]][::2]],
        "borders": options.borders,
        "perception": options.perception,
        "upright": frame,
        "measured": sorted(
            [*more, *(["kid", options.features] if options.features else [])]
        ),
    }
    rows, shown = _earlier(options.out, about), None
    planned = [({**said, **about}, edit) for said, edit in methods]
    if options.repairs:
        planned += [
            ({"method": _REPAIRS, "seed": seed, "forwards": None, **about}, None)
            for seed in asked
        ]
    for row, edit in _missing(rows, planned):
        if edit is None:
            kinds = repairs.judge_repairs(
                model, photos, measures, row["seed"], not options.quiet
            )
            rows.append({**row, "kinds": kinds})
            _shared.write(rows, options.out)
            continue
        figures = edits.judge_edits(
            edit,
            judge,
            photos,
            asked[row["seed"]],
            measures,
            progress=not options.quiet,
        )
        examples = figures.pop("examples")
        if "decode" in row:
            shown = examples, row
        rows.append({**row, **figures})
        _shared.write(rows, options.out)  # what there is, should it be stopped
    if options.sheet:
        _save_sheet(options.sheet, model, shown, about["attributes_asked"])
    if options.plot:
        plotting.rates([row for row in rows if "mean" in row], options.plot)
    if options.methods or options.pictures or options.redrawn:
        _shared.write(rows, options.out)
        file = sys.stdout
    else:
        _shared.show(rows, options)
        file = sys.stderr  # for who looks on
    print(edits.edits_table(rows), file=file)
    if options.features or options.landmarks or options.seams or options.repairs:
        print(edits.kinds_table(rows), file=file)


def _missing(rows, planned) -> list[tuple[dict[str, Any], Any]]:
    """Pairs of (row, edits) that no earlier row holds.

    Raises:
      UserError: two kinds of edits of one name and seed.
    """
    found = [
        (row, edit)
        for row, edit in planned
        if not any(row.items() <= earlier.items() for earlier in rows)
    ]
    names = {(row["method"], row["seed"]) for row in rows}
    for row, _ in found:
        if (name := (row["method"], row["seed"])) in names:
            raise UserError(
                f"there are other edits as '{name[0]}', seed {name[1]}, in --out or "
                "beside; give these another name (--pictures NAME=DIR), or write to "
                "another --out"
            )
        names.add(name)
    return found


def _measures(options, records, size: int) -> dict[str, Any]:
    """Arguments of `protocols.edits.Measures`."""
    import numpy as np

    from gptface_jax.protocols import edits
    from gptface_jax.protocols.feature_space import open_space

    more: dict[str, Any] = {}
    if options.images == "synthetic":
        more["truth"] = edits.counterfactuals(_source.spec(options, size))
        more["people"] = np.array([record.identity for record in records])
    if options.features:
        more["features"] = open_space(options.features)
    if options.landmarks:
        from gptface_jax.protocols.reconstruction import mesh_landmarks

        more["landmarks"] = mesh_landmarks
    if options.seams:
        more["seams"] = True
    return more


def _save_sheet(path: str, model, shown, attributes) -> None:
    """A picture of the last examples that the model made: (pictures, their row)."""
    from gptface_jax.pipelines import pictures

    if shown is None:
        print(
            "no sheet: --out holds all of it already, and no pictures", file=sys.stderr
        )
        return
    examples, row = shown
    said = [t for a in attributes for t in ("before", f"+ {a}", f"- {a}")]
    sheet = pictures.sheet(
        [p for triple in examples for p in triple], 6, said, cell=128
    )
    config = model.decode_config(row["decode"])
    pictures.save(
        sheet, path, model.details(True, "; ".join(said), row["seed"], config)
    )


def _earlier(path: str | None, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an evaluation that was stopped, or that other methods join."""
    from gptface_jax.protocols import edits

    if path is None or not os.path.exists(path):
        return []
    with open(path) as file:
        try:
            rows = json.load(file)
            for row in rows:  # of what nobody could choose, when they were written
                row |= {k: None for k in ("perception", "upright") if k not in row}
            same = all(row[k] == v for row in rows for k, v in about.items())
        except (ValueError, TypeError, KeyError):
            same = False
    if not same:
        raise UserError(
            f"'{path}' holds figures of another evaluation; write to another --out"
        )
    for row in rows:  # JSON has no infinity: null, where every pixel is the same
        row |= {k: math.inf for k in edits.PSNR_OUTSIDE if row.get(k, 0) is None}
    return rows


def _methods(options, model) -> dict:
    """Decoder options and number of candidates by name of the method."""
    from gptface_jax.core.config import load_sweep
    from gptface_jax.systems.gptface.options import DecodeConfig

    changes = {"step_size": options.step_size, "k": options.k}
    changes = {k: v for k, v in changes.items() if v is not None}
    if options.no_match_token:
        changes["match_token"] = False
    own = {"default": {}}
    if options.methods:
        methods = load_sweep(options.methods)
    else:
        methods = {r: {"guidance": r} for r in options.guidance or ()} or own
    if methods is not own:  # a way is what it says, whatever the model takes by default
        plain = dataclasses.asdict(DecodeConfig())
        plain = {k: v for k, v in plain.items() if k not in _MODELS_OWN}
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
