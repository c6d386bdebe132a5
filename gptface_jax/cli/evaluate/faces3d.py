"""3D heads of a FaceGPT against the truth of rendered faces

gptface evaluate faces3d --model runs/facegpt --images rendered --limit 128 --seed 9

Means over pictures: distance of vertices on the model's own topology and after rigid
alignment (mm), of the 68 points by that of the eyes (nme), angle of the pose, PSNR
where both heads are, overlap of the two, cosine of where the light comes from, and
correlations of coefficients. Beside the model stand a head fitted to the true landmarks
and the mean head. Of the pictures' texts alone: share of coefficients in intervals of
80 %, share of the variance that is explained, and expressions that are named.

Of a model that answers (configs/facegpt/chat.py) also the heads that sentences about
the pictures end in ("after answers"), the share of answers whose head was missing and
had to be appended, and of answers that are right.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser, 128)
    _shared.add_model_of(parser, "FaceGPT")
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.pipelines.face_answers import ChatModel
    from gptface_jax.protocols import faces3d
    from gptface_jax.protocols.records import open_records

    spec, model = _source.spec(options), _shared.model(options, "face3d")
    records = open_records(spec, _source.limit(options, 128))
    progress, said = not options.quiet, None
    if isinstance(model, ChatModel):
        said = faces3d.of_answers(model, records, progress=progress)
    found = faces3d.evaluate(model, records, progress, said)
    for name, *values in faces3d.table(found):
        print(f"{name:26s}" + "".join(f"{value:>14s}" for value in values))
    texts = faces3d.of_texts(model, records)
    for name, value in texts.items():
        print(f"text: {name:20s}{value:14.3f}")
    answers = faces3d.answering(model, records, said, progress) if said else {}
    for name, value in answers.items():
        print(f"answers: {name:17s}{value:14.3f}")
    about = {"model": model.digest, "images": spec, "count": len(records)}
    rest = {"answers": answers} if answers else {}
    _shared.write({**about, "pictures": found, "texts": texts, **rest}, options.out)
