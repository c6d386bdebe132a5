"""What one set of weights costs GPTFace and Talk2Face: held-out numbers of runs.

python benchmarks/interference.py runs/joint runs/pairs runs/sequences \\
    --images tokens/lfw_validation --tokenizer demo64

A row a run, of systems "gptface", "talk2face" or "shared": likelihood and matching from
the last evaluation of its log, and what it answers of LFW attributes when it is asked
(balanced accuracy, two answers scored; chance is .50), on the records of a token cache.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import numpy as np
import tables

from gptface_jax.core.errors import UserError
from gptface_jax.data import sources
from gptface_jax.experiments import talk2face_run
from gptface_jax.protocols import answering

ASKED = ("gender", "smiling", "eyeglasses", "wearing hat", "no beard")
# Column -> metric, by the evaluation that has it.
LOGGED = {
    "pairs": {
        "image 40 %": "image_nll_40",
        "text": "text_nll",
        "gain": "image_text_gain",
        "matching": "itm_accuracy_0",
    },
    "sequences": {
        "image": "image_nll",
        "words": "text_nll",
        "caption": "image_to_caption_nll",
        "attributes": "image_to_attributes_nll",
        "after caption": "caption_to_image_nll",
    },
}


def logged(run: pathlib.Path) -> dict[str, str]:
    """Columns from the last evaluation in a run's log; empty where it has none."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    last = [row for row in rows if any(k.startswith("eval/") for k in row)][-1]
    shared = any(k.startswith("eval/pairs/") for k in last)
    has = {
        "pairs": "eval/image_text_gain" in last,
        "sequences": "eval/image_to_caption_nll" in last,
    }
    found = {"steps": str(last["step"])}
    for feed, columns in LOGGED.items():
        for column, metric in columns.items():
            where = f"eval/{feed}/{metric}" if shared else f"eval/{metric}"
            value = last.get(where, last.get(f"eval/{metric}"))
            found[column] = f"{value:.3f}" if has[feed] and value is not None else ""
    return found


def asked(run: pathlib.Path, tokenizer: str, images: str, count: int) -> dict[str, str]:
    """Balanced accuracy of each question; {} of a run that answers none."""
    try:
        model = talk2face_run.open_run(run, tokenizer)
    except UserError:
        return {}
    source = sources.open_source({"kind": "tokens", "path": images})
    records = [source[i] for i in range(min(count, len(source)))]
    said = answering.ask(model, records, ASKED, convention="lfw", progress=False)
    found = {
        row.question.key.name: f"{row.figures()['balanced_accuracy']:.2f}"
        for row in said
    }
    mean = np.mean([float(x) for x in found.values()])
    return {**found, "mean": f"{mean:.3f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--images", required=True, help="a held-out token cache")
    parser.add_argument("--tokenizer", required=True, help="the VQGAN of the codes")
    parser.add_argument("--count", type=int, default=400, help="records asked about")
    options = parser.parse_args()
    rows = [
        {
            "run": run.name,
            **logged(run),
            **asked(run, options.tokenizer, options.images, options.count),
        }
        for run in options.runs
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    body = [[row.get(name, "") for name in names] for row in rows]
    print(tables.aligned([names, *body]))


if __name__ == "__main__":
    main()
