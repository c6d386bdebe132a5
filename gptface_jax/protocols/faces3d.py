"""3D heads of pictures and texts against the truth of rendered faces (SPEC D.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, rendering
from gptface_jax.data.facemodel import FaceModel
from gptface_jax.data.questions import Question
from gptface_jax.data.record import Record
from gptface_jax.data.rendered import head as heads
from gptface_jax.evaluate import faces3d as metrics
from gptface_jax.pipelines import batching, landmark_fit
from gptface_jax.pipelines.face_answers import Answers, ChatModel
from gptface_jax.pipelines.faces3d import Face3DModel
from gptface_jax.systems.facegpt import coefficients
from gptface_jax.systems.facegpt.coefficients import ENTRIES, TOLD

Coeffs = Mapping[str, np.ndarray]
_BATCH = 32
_ASKED = ("expression", "hair")
_WITHIN = 0.8  # probability of the intervals
# What lets expect an expression without its name, in words of no training text.
_SITUATIONS = {
    "happiness": "a person who has just won a prize",
    "surprise": "a person who did not expect to see that at all",
    "anger": "a person whose car was scratched on purpose",
    "sadness": "a person whose best friend has moved away",
    "disgust": "a person who smells rotten food",
    "fear": "a person who hears steps behind them at night",
}


def truth_of(records: Sequence[Record], model: FaceModel) -> dict[str, np.ndarray]:
    """Ground truth of pictures, [N,...] by entry; "landmarks" are shares of the side.

    Raises:
      UserError: a picture whose head is not known, or is one of another face model.
    """
    for record in records:
        if record.face3d is None or record.face3d["model"] not in model.digests:
            raise UserError(
                f"a record of '{record.source}' holds no head of face model "
                f"{model.digest}; give rendered faces of it (--images rendered, of "
                "another than the usual one with --data model= max_vertices= "
                f"num_identity={len(model.identity)})"
            )
    found = {e: np.stack([r.face3d[e] for r in records]) for e in ENTRIES.values()}
    sides = [geometry.decode_picture(r).shape[0] for r in records]
    points = [(r.landmarks + 0.5) / side for r, side in zip(records, sides)]
    return {**found, "landmarks": np.stack(points)}


def of_pictures(
    model: Face3DModel, records: Sequence[Record], progress: bool = True
) -> dict[str, np.ndarray]:
    """The model's coefficients [N,...] of pictures, taken as they are."""
    parts = []
    starts = range(0, len(records), _BATCH)
    for start in tqdm.tqdm(starts, unit="batch", disable=not progress):
        some = [geometry.squared(r, model.size) for r in records[start:][:_BATCH]]
        pixels = np.stack([r.image for r in some])
        ids = model.image_ids(pixels)
        parts.append(batching.run(lambda x: model.expected(x)[0], [ids], _BATCH))
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def of_answers(
    model: ChatModel, records: Sequence[Record], question: Question | None = None,
    progress: bool = True,
) -> Answers:  # fmt: skip
    """Answers about pictures, taken as they are, each with the head that it ends in."""
    parts = []
    starts = range(0, len(records), _BATCH)
    for start in tqdm.tqdm(starts, unit="batch", disable=not progress):
        some = [geometry.squared(r, model.size) for r in records[start:][:_BATCH]]
        ids = model.image_ids(np.stack([r.image for r in some]))
        parts.append(model.answers_about(ids, question))
    return Answers(
        [answer for part in parts for answer in part.answers],
        *(
            {n: np.concatenate([getattr(p, field)[n] for p in parts]) for n in first}
            for field in ("coeffs", "deviations")
            for first in (getattr(parts[0], field),)
        ),
        np.concatenate([p.head_confidence for p in parts]),
        np.concatenate([p.missing for p in parts]),
    )


def mean_head(model: FaceModel, count: int) -> dict[str, np.ndarray]:
    """Coefficients of the mean head before the camera."""
    sizes = {"id_coeffs": len(model.identity), "exp_coeffs": len(model.expression),
             "albedo_coeffs": len(model.albedo)}  # fmt: skip
    found = {n: np.zeros((count, s), np.float32) for n, s in sizes.items()}
    found["sh_light"] = np.tile(rendering.ambient(), (count, 1, 1))
    found["pose"] = np.tile(np.float32([0, 0, 0, 0, 0, 0.12]), (count, 1))
    return found


def figures(
    found: Coeffs, truth: Coeffs, model: FaceModel, size: int = 64
) -> dict[str, float]:
    """Means over pictures of what `evaluate.faces3d` measures, and correlations."""
    rows: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    count = len(truth["pose"])
    shapes = [
        [model.vertices(c["id_coeffs"][i], c["exp_coeffs"][i]) for c in (found, truth)]
        for i in range(count)
    ]
    for i, (head, wanted) in enumerate(shapes):
        add("vertex_mm", metrics.vertex_error(head[None], wanted[None])[0])
        add("aligned_mm", metrics.aligned_vertex_error(head[None], wanted[None])[0])
        places = rendering.projected(head, found["pose"][i], 1)[0][model.landmarks]
        add("nme", metrics.nme(places[None] + 0.5, truth["landmarks"][i][None])[0])
        turns = [
            rendering.rotation(np.float64(c["pose"][i, :3])) for c in (found, truth)
        ]
        add("pose_degrees", metrics.pose_degrees(turns[0][None], turns[1][None])[0])
        drawn = [
            _drawn(model, c, i, v, size) for c, v in ((found, head), (truth, wanted))
        ]
        both = drawn[0][1] & drawn[1][1]
        psnr = metrics.masked_psnr(drawn[0][0][None], drawn[1][0][None], both[None])
        add("psnr", psnr[0])
        union = (drawn[0][1] | drawn[1][1]).sum()
        add("overlap", both.sum() / max(union, 1))
    light = metrics.light_cosine(found["sh_light"], truth["sh_light"])
    result = {name: float(np.nanmean(values)) for name, values in rows.items()}
    result["light_cosine"] = float(light.mean())
    for name in ("id_coeffs", "exp_coeffs", "albedo_coeffs", "pose"):
        each = metrics.correlation(found[name], truth[name])
        known = each[np.isfinite(each)]
        result[f"{name}_correlation"] = float(known.mean()) if len(known) else 0.0
    return result


def _drawn(model: FaceModel, coeffs: Coeffs, i: int, vertices, size: int):
    """Picture float [S,S,3] of a head and where it is, bool [S,S]."""
    pose = np.float64(coeffs["pose"][i])
    places, nearness = rendering.projected(vertices, pose, size)
    found = rendering.rasterise(places, nearness, model.triangles, size)
    colours = model.colours(coeffs["albedo_coeffs"][i])
    picture = rendering.shade(
        found, vertices, model.triangles, colours, coeffs["sh_light"][i],
        rendering.rotation(pose[:3]),
    )  # fmt: skip
    return picture, found.triangle >= 0


def evaluate(
    model: Face3DModel, records: Sequence[Record], progress: bool = True,
    sentences: Answers | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:  # fmt: skip
    """Figures of the model, of a fit to the true landmarks, and of the mean head.

    With sentences about these pictures also of the heads that they end in.

    Returns:
      `figures`, and `by_expression`, of each way.
    """
    truth = truth_of(records, model.face_model)
    ways = {
        "model": of_pictures(model, records, progress),
        **({"after answers": sentences.coeffs} if sentences else {}),
        "landmark fit": landmark_fit.fit(model.face_model, truth["landmarks"]),
        "mean head": mean_head(model.face_model, len(records)),
    }
    heads = model.face_model
    return (
        {name: figures(found, truth, heads) for name, found in ways.items()},
        {name: by_expression(found, truth, heads) for name, found in ways.items()},
    )


def by_expression(found: Coeffs, truth: Coeffs, model: FaceModel) -> dict[str, float]:
    """Correlation of each expression shape's weights over pictures, by its name.

    NaN where the weights are the same for all.
    """
    each = metrics.correlation(found["exp_coeffs"], truth["exp_coeffs"])
    names = model.expression_names or [str(i) for i in range(len(each))]
    return dict(zip(names, each.tolist()))


def of_texts(model: Face3DModel, records: Sequence[Record]) -> dict[str, float]:
    """Figures of faces from texts alone: coverage of intervals, named expressions.

    An expression counts as hit where the weights that are expected after "a WORD
    person" are nearest, by their cosine, to those that the word stands for.
    """
    truth = truth_of(records, model.face_model)
    units = coefficients.in_units({e: truth[e] for e in ENTRIES.values()})
    result: dict[str, float] = {}
    texts = [r.texts[-1] if r.texts else r.text for r in records]
    means, deviations = batching.run(
        lambda x: model.expected(None, x), [model.text_ids(texts)], _BATCH
    )
    found = coefficients.in_units(means)
    for group in TOLD if deviations else ():
        mean, wanted = np.asarray(found[group]), np.asarray(units[group])
        inside = metrics.coverage(mean, deviations[group], wanted, _WITHIN)
        result[f"{group}_coverage"] = float(inside.mean())
        error, prior = ((x**2).mean() for x in (mean - wanted, wanted - wanted.mean(0)))
        result[f"{group}_explained"] = float(1 - error / prior)
    return {**result, **named_expressions(model)}


def named_expressions(model: Face3DModel) -> dict[str, float]:
    """Share of expressions whose head is nearest to what is meant.

    Named by their word, and told by a situation in which a person looks so. Of those
    that the face model can show; {} where there is no choice.
    """
    from gptface_jax.data.phrases import EXPRESSIONS

    shown = [w for w in heads.RECIPES if heads.can_show(model.face_model, w)]
    words = [word for word in shown if word != "neutral"]
    if len(words) < 2:
        return {}
    wanted = np.stack([heads.shapes(model.face_model, w, 1.0) for w in words])
    wanted = wanted - wanted.mean(0)
    result = {}
    for name, texts in {
        "named_expressions": [f"a person looking {EXPRESSIONS[w]}" for w in words],
        "told_by_situation": [_SITUATIONS[word] for word in words],
    }.items():
        means, _ = model.expected(None, model.text_ids(texts))
        got = means["exp_coeffs"] - means["exp_coeffs"].mean(0)
        lengths = np.linalg.norm(got, axis=1)[:, None] * np.linalg.norm(wanted, axis=1)
        cosine = got @ wanted.T / np.maximum(lengths, 1e-9)
        result[name] = float((cosine.argmax(1) == np.arange(len(words))).mean())
    return {**result, "by_chance": 1 / len(words)}


def answering(
    model: ChatModel, records: Sequence[Record], sentences: Answers,
    progress: bool = True,
) -> dict[str, float]:  # fmt: skip
    """Shares of answers whose head had to be appended, and of right ones.

    Of the sentences, and of answers to what records say of expression and hair.
    """
    result = {"sentences_missing": float(sentences.missing.mean())}
    for question in model.learnt.questions:
        if question.key.name not in _ASKED:
            continue
        said = [(i, question.key.text_of(r)) for i, r in enumerate(records)]
        known = {i: question.read(text) for i, text in said if text is not None}
        if not known:
            continue
        found = of_answers(model, [records[i] for i in known], question, progress)
        right = [a.value == v for a, v in zip(found.answers, known.values())]
        result[f"{question.key.name}_missing"] = float(found.missing.mean())
        result[f"{question.key.name}_right"] = float(np.mean(right))
    return result


def table(found: Mapping[str, Mapping[str, float]]) -> list[list[Any]]:
    """Rows of the figures: names, and a column for each way."""
    ways = list(found)
    names = list(found[ways[0]])
    return [["", *ways]] + [
        [name, *(f"{found[way][name]:.3f}" for way in ways)] for name in names
    ]
