"""3D heads of a FaceGPT against the truth of rendered faces, or on photographs

gptface evaluate faces3d --model runs/facegpt --images rendered --limit 128 --seed 9

Means over pictures: distance of vertices on the model's own topology and after rigid
alignment (mm), of the 68 points by that of the eyes (nme), angle of the pose, PSNR
where both heads are, overlap of the two, cosine of where the light comes from, and
correlations of coefficients. Beside the model stand a head fitted to the true landmarks
and the mean head. Of the pictures' texts alone: share of coefficients in intervals of
80 %, share of the variance that is explained, and expressions that are named, or told
by a situation. --out holds the correlation of each expression shape, too.

Of photographs, whose heads nobody knows: where the 68 points lie (those of the records,
else the face mesh's), and how far the drawn head is from the photo, in levels of
0..255; --sheet shows each photo and the heads over it:

gptface evaluate faces3d --model runs/facegpt --images photos/ --sheet heads.png

Of a model that answers (configs/facegpt/chat.py) also the heads that sentences about
the pictures end in ("after answers"), the share of answers whose head was missing and
had to be appended, and of answers that are right.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser, 128)
    _shared.add_model_of(parser, "FaceGPT")
    parser.add_argument(
        "--sheet",
        metavar="FILE",
        help="picture of photographs and heads over them",
    )
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.pipelines import pictures
    from gptface_jax.pipelines.face_answers import ChatModel
    from gptface_jax.protocols import faces3d
    from gptface_jax.protocols.records import open_records

    model = _shared.model(options, "face3d")
    spec = _source.spec(options, model.size)
    records = open_records(spec, _source.limit(options, 128))
    progress, said = not options.quiet, None
    about = {"model": model.digest, "images": spec, "count": len(records)}
    if all(record.face3d is None for record in records):
        if options.sheet:
            pictures.check(options.sheet)
        _photographs(options, model, records, about)
        return
    if options.sheet:
        raise UserError("--sheet is of photographs; of rendered faces leave it out")
    if isinstance(model, ChatModel):
        said = faces3d.of_answers(model, records, progress=progress)
    found, shapes = faces3d.evaluate(model, records, progress, said)
    _print(found)
    texts = faces3d.of_texts(model, records)
    for name, value in texts.items():
        print(f"text: {name:20s}{value:14.3f}")
    answers = faces3d.answering(model, records, said, progress) if said else {}
    for name, value in answers.items():
        print(f"answers: {name:17s}{value:14.3f}")
    rest = {"answers": answers} if answers else {}
    rest = {"texts": texts, "expression_correlations": shapes, **rest}
    _shared.write({**about, "pictures": found, **rest}, options.out)


def _print(found: Mapping[str, Mapping[str, float]]) -> None:
    from gptface_jax.protocols import faces3d

    for name, *values in faces3d.table(found):
        print(f"{name:26s}" + "".join(f"{value:>14s}" for value in values))


def _photographs(options: argparse.Namespace, model, records, about) -> None:
    from gptface_jax.pipelines import pictures
    from gptface_jax.protocols import photographed_heads

    found = photographed_heads.compare(model, records, not options.quiet)
    _print(found.figures)
    if found.without_face:
        print(f"{found.without_face} of {len(records)} photographs show no face")
    if options.sheet:
        columns = len(found.figures) + 1
        names = ["photo", *found.figures]
        shown = [picture for row in found.overlays for picture in row]
        captions = names + [""] * (len(shown) - columns)
        pictures.save(pictures.sheet(shown, columns, captions), options.sheet, {})
        print(f"wrote {options.sheet}")
    about = {**about, "without_face": found.without_face}
    _shared.write({**about, "photographs": found.figures}, options.out)
