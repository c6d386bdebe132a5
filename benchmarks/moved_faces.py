"""Expressions by moving the face in 3D, against asking for them in words.

    python benchmarks/moved_faces.py --model demo64 --judge runs/judge \\
        --images ../shared/data/lfw_attributes --split test --limit 32

Each photograph is edited twice an attribute, for it and against it, in six ways: by a
sentence, by a strength, by a face that moves ("revealed": the model draws what the
photo did not show; "moved": all that moves, near to the bent photo), each without the
sentence and with it. A judge that was trained apart says what is seen; `--sheet
FILE.png` shows the first photographs.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import numpy as np
from tables import aligned

import gptface_jax
from gptface_jax.cli import _source
from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import sources
from gptface_jax.experiments import opening
from gptface_jax.pipelines import pictures
from gptface_jax.protocols import editors, edits, judge
from gptface_jax.protocols.records import pictures_of

SIZE = 128
# Attribute -> what moves for it, and against it.
SHAPES = {
    "Smiling": (
        {"mouthSmile": 0.9, "cheekSquint": 0.5, "jawOpen": 0.15, "mouthUpperUp": 0.4},
        {"mouthSmile": -0.5, "mouthFrown": 0.3},
    ),
    "Mouth_Slightly_Open": ({"jawOpen": 0.35}, {"jawOpen": -0.2, "mouthClose": 0.2}),
}
STRENGTH = 2.0


def ways(model, seed: int) -> dict[str, editors.Edit]:
    """Name of a way -> what edits so."""

    def edit(asked):
        def run(photos, task, done):
            found = []
            for number, (photo, text) in enumerate(zip(photos, task.texts)):
                try:
                    made = model.edit(photo, **asked(task, text), seed=seed + number)
                    found.append(np.asarray(made.image))
                except UserError:  # no face: the photo as it is
                    found.append(photo)
                done(1)
            return editors.Edited(np.stack(found))

        return run

    def shape(task):
        return {"expression": SHAPES[task.attribute][0 if task.present else 1]}

    def sign(task):
        return STRENGTH if task.present else -STRENGTH

    return {
        "sentence": edit(lambda task, text: {"text": text, "region": "mouth"}),
        "strength": edit(lambda task, _: {"strength": {task.attribute: sign(task)}}),
        "revealed": edit(lambda task, _: shape(task)),
        "revealed, sentence": edit(lambda task, text: {**shape(task), "text": text}),
        "moved": edit(lambda task, _: {**shape(task), "paint": "moved"}),
        "moved, sentence": edit(
            lambda task, text: {**shape(task), "paint": "moved", "text": text}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo64")
    parser.add_argument("--judge", required=True, help="run of configs/judge")
    parser.add_argument("--attributes", nargs="+", default=[*SHAPES], choices=SHAPES)
    parser.add_argument("--ways", nargs="+", default=[], help="some of them only")
    parser.add_argument("--decode-seed", type=int, default=0)
    parser.add_argument("--out", help="JSON of all figures")
    parser.add_argument("--sheet", help="a picture")
    _source.add_arguments(parser)
    options = parser.parse_args()
    model = gptface_jax.load(options.model)
    seen = judge.Judge(opening.open_network(options.judge, "judge"))
    records = sources.open_source(_source.spec(options))
    records = [records[i] for i in range(len(records))]
    photos = pictures_of(records, SIZE)
    tasks = editors.tasks(records, options.attributes, SIZE)
    rows, figures, columns = [["way", "attribute", "asked", "opposite", "before",
                               "gap", "others kept"]], {}, []  # fmt: skip
    for name, edit in ways(model, 1000 * options.decode_seed).items():
        if options.ways and name not in options.ways:
            continue
        figures[name] = found = edits.judge_edits(edit, seen, photos, tasks)
        examples = found.pop("examples")
        columns.append((name, examples))
        for attribute, rate in found["attributes"].items():
            said = (rate[k] for k in ("asked", "opposite", "before", "gap"))
            kept = f"{found['others_kept']:.3f}"
            rows.append([name, attribute, *(f"{x:.2f}" for x in said), kept])
    print(aligned(rows))
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(figures, indent=1) + "\n")
    if options.sheet:
        cells = [images.resize(x, (SIZE, SIZE))
                 for _, found in columns for row in found for x in row]  # fmt: skip
        pictures.save(pictures.sheet(cells, 3 * len(options.attributes)), options.sheet)


if __name__ == "__main__":
    main()
