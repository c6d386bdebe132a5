"""Claims about Talk2Face on drawn faces, of one trained model (SPEC appendix 1).

python benchmarks/talk2face_claims.py --model my_model --judge runs/judge_synthetic \\
    --seed 77 --limit 200 --claims T5 T6 T7 T9 T10

T5   captions and attributes combine: one attribute by a sentence and one by its key,
     together against each alone
T6   captions against those of other faces (what is frequent) and against true ones
T7   sampling gives diversity: distance of pairs of faces after one text, and success
T9   writing freely loses answers: against choosing among all there are
T10  attention finds the person: the last layer's map against the parsing's truth

T5 and T7 draw with each of --decode-seeds, the same ones in all that is compared.
T1, T3, T4 and T8 compare trainings: configs/experiments/talk2face.py. T2 needs a
tokenizer of another grid.
"""

from __future__ import annotations

import argparse
import itertools
import json

import numpy as np

import gptface_jax
from gptface_jax.core import files
from gptface_jax.data import captions as wordings
from gptface_jax.data import image, questions
from gptface_jax.data.label_values import Integer
from gptface_jax.experiments import opening
from gptface_jax.pipelines import answers, rows, sequence_drawing
from gptface_jax.protocols import answering, captioning, feature_space
from gptface_jax.protocols.judge import Judge
from gptface_jax.protocols.records import open_records, pictures_of

PAIRS = (
    ("Smiling", "Eyeglasses"), ("Male", "Wearing_Hat"), ("Blond_Hair", "Smiling"),
    ("Eyeglasses", "Wearing_Hat"),
)  # fmt: skip
CONVENTION = "synthetic"
QUESTIONS = ("smiling", "gender", "wearing hat", "eyeglasses", "expression")


def drawn(model, text, attributes, count, seed, **decode) -> np.ndarray:
    """uint8 [count,S,S,3] after a sentence and attributes {name: value}, or either."""
    own = [q for q in model.learnt.questions if q.data_set == CONVENTION]
    keys = {name: questions.find(name, own) for name in attributes}
    said = {keys[n].name: keys[n].key.write(v) for n, v in attributes.items()}
    steps = sequence_drawing.synthesize(model, text, said, count, seed, decode)
    return np.stack([np.asarray(x) for x in rows.run_immediately(steps)])


def combined(model, judge: Judge, records, options) -> dict:
    """T5: shares of faces with two attributes, one by a sentence, one by its key.

    Each way alone is asked for its own attribute, and both together for both: at best
    as independent controls, whose share is the product, or better.
    """
    found = {}
    for first, second in PAIRS:
        columns = [judge.attributes.index(name) for name in (first, second)]
        sentence, keys = wordings.edit_text(first, True), {second: True}
        ways = {
            "caption": (sentence, {}), "attributes": ("", keys),
            "combined": (sentence, keys),
        }  # fmt: skip
        seen = {  # bool [seeds,count,2]
            way: np.stack([
                judge(drawn(model, *asked, options.count, seed))[:, columns]
                for seed in options.decode_seeds
            ])
            for way, asked in ways.items()
        }  # fmt: skip
        alone = seen["caption"][..., 0].mean(), seen["attributes"][..., 1].mean()
        both = {way: x.all(-1).mean(-1) for way, x in seen.items()}
        row = {"first, caption": alone[0], "second, attributes": alone[1]}
        row |= {"product": alone[0] * alone[1]}
        row |= {f"both, {way}": shares.mean() for way, shares in both.items()}
        row |= {"spread of seeds": np.ptp(both["combined"])}
        found[f"{first}, {second}"] = {name: float(x) for name, x in row.items()}
    return found


def captions(model, judge: Judge, records, options) -> dict:
    """T6: what the model writes, true sentences of other faces, and true ones."""
    rng = np.random.default_rng(options.seed)
    others = rng.permutation(len(records))
    others = np.where(others == np.arange(len(records)), np.roll(others, 1), others)
    own = [wordings.caption(r.labels, rng, expression=r.expression) for r in records]
    sentences = {
        "model": captioning.write(model, records, progress=False),
        "of other faces": [own[i] for i in others],
        "true": own,
    }
    return {name: captioning.figures(x, records)[0] for name, x in sentences.items()}


def diversity(model, judge: Judge, records, options) -> dict:
    """T7: mean distance of pairs of faces after one text, and how often it is true."""
    features = feature_space.open_space(options.judge).of_photos
    ways = {
        "greedy": {"temperature": 0.0}, "top-k 70": {"top_k": 70}, "all": {"top_k": 0}
    }  # fmt: skip
    found = {}
    for name, decode in ways.items():
        distances, hits = [], []
        for pair, seed in itertools.product(PAIRS, options.decode_seeds):
            asked = dict.fromkeys(pair, True)
            faces = drawn(model, "", asked, options.count, seed, **decode)
            columns = [judge.attributes.index(n) for n in pair]
            hits.append(judge(faces)[:, columns].mean())
            x = features(faces)
            distances += [
                np.linalg.norm(x[i] - x[j])
                for i, j in itertools.combinations(range(len(x)), 2)
            ]
        found[name] = {"distance": np.mean(distances), "carried": np.mean(hits)}
    pictures = features(pictures_of(records, model.size))
    apart = [
        np.linalg.norm(pictures[i] - pictures[j])
        for i, j in itertools.combinations(range(min(64, len(pictures))), 2)
    ]
    found["pictures"] = {"distance": np.mean(apart)}
    return {name: {k: float(v) for k, v in row.items()} for name, row in found.items()}


def closed_or_open(model, judge: Judge, records, options) -> dict:
    """T9: accuracy of answers that are chosen and that are written."""
    compared: dict[str, dict[str, float]] = {}
    for closed in (True, False):
        found = answering.ask(
            model, records, (*QUESTIONS, "age"), closed=closed, progress=False
        )
        for asked in found:
            figures = asked.figures()
            way = "chosen" if closed else "written"
            number = isinstance(asked.question.key.kind, Integer)
            figure = figures["mae" if number else "accuracy"]
            row = compared.setdefault(asked.question.name, {})
            row |= {way: figure, f"{way}, none": 1 - figures["coverage"]}
    return compared


def attention(model, judge: Judge, records, options) -> dict:
    """T10: IoU of the tokens looked at most with the person, as many as it covers."""
    h, w = model.grid
    cells = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij"), -1)
    centre = -np.linalg.norm(cells - (np.array([h, w]) - 1) / 2, axis=-1).reshape(-1)
    ids = model.image_ids(pictures_of(records, model.size))
    own = [q for q in model.learnt.questions if q.data_set == CONVENTION]
    truth = np.stack(
        [image.pixels_to_tokens(r.parsing > 0, model.grid).reshape(-1) for r in records]
    )
    usual = truth.mean(0)
    found: dict[str, list[float]] = {}
    for codes, person in zip(ids, truth):
        for name in QUESTIONS:
            looked = answers.attention(model, codes, questions.find(name, own))
            found.setdefault(name, []).append(overlap(looked.reshape(-1), person))
        found.setdefault("centre", []).append(overlap(centre, person))
        found.setdefault("mean of all", []).append(overlap(usual, person))
    return {name: {"iou": float(np.mean(values))} for name, values in found.items()}


def overlap(scores: np.ndarray, wanted: np.ndarray) -> float:
    """IoU of the highest scores with `wanted`, as many as that has."""
    chosen = np.zeros(len(wanted), bool)
    chosen[np.argsort(-scores, kind="stable")[: wanted.sum()]] = True
    return float((chosen & wanted).sum() / max(1, (chosen | wanted).sum()))


CLAIMS = {
    "T5": combined, "T6": captions, "T7": diversity, "T9": closed_or_open,
    "T10": attention,
}  # fmt: skip


def table(found: dict[str, dict[str, float]]) -> str:
    """Markdown: a line for each of the figures by name."""
    columns = list(dict.fromkeys(name for row in found.values() for name in row))
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    for name, row in found.items():
        lines.append([name, *(f"{row[c]:.3f}" if c in row else "" for c in columns)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="directory of a Talk2Face")
    parser.add_argument("--judge", required=True, help="run on drawn faces")
    parser.add_argument("--claims", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--limit", type=int, default=200, help="faces asked about")
    parser.add_argument("--count", type=int, default=32, help="faces drawn a text")
    parser.add_argument("--seed", type=int, default=77, help="of the faces")
    parser.add_argument(
        "--decode-seeds", nargs="+", type=int, default=[0, 1, 2], help="of the drawing"
    )
    parser.add_argument("--out", help="the figures as JSON")
    options = parser.parse_args(arguments)
    model = gptface_jax.load(options.model, system="talk2face")
    judge = Judge(opening.open_network(options.judge, "judge"))
    spec = {"kind": "synthetic", "seed": options.seed, "count": options.limit}
    records, found = open_records({**spec, "size": model.size}, options.limit), {}
    for claim in options.claims:
        found[claim] = CLAIMS[claim](model, judge, records, options)
        print(f"{claim}\n{table(found[claim])}\n", flush=True)
    if options.out:
        about = {"model": model.digest, **vars(options)}
        files.write_text(options.out, json.dumps(about | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
