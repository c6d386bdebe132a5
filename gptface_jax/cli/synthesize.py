"""Draw faces after a sentence, attributes, or both (Talk2Face).

gptface synthesize --model my_model --text "a smiling woman" -n 8 --out faces.png
gptface synthesize --model my_model --attributes "Smiling=true; Eyeglasses=false" \\
  -n 8 --out faces.png
gptface synthesize --model my_model --image photo.jpg --text "wearing a hat" \\
  -n 4 --out with_a_hat.png
gptface synthesize --model my_model --jobs wanted.jsonl --out faces/

--model is one that was trained by configs/talk2face and exported, or its run with
--tokenizer. `gptface ask --model my_model --list` shows the attributes it knows. A
GPTFace draws faces by `gptface sample`. With --image the face of a photo is drawn anew
as the text says, by models that were trained to (data.tasks.edits); `gptface edit`
leaves the rest of the photo alone.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _jobs, _photo
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", default="", help="text prompt")
    parser.add_argument(
        "--attributes",
        default="",
        metavar="'NAME=VALUE; ...'",
        help="attributes, e.g. 'Smiling=true; age=30; expression=anger'",
    )
    parser.add_argument("--image", help="a photo whose face is to be drawn anew")
    _photo.add_face(parser, "of --image, number by the left edge; default the largest")
    parser.add_argument(
        "-n", "--count", type=int, default=8, help="number of faces, on one sheet"
    )
    parser.add_argument(
        "--candidates",
        type=int,
        default=1,
        metavar="N",
        help="draw N for each face and keep the best, by the probability of text and "
        "attributes after the picture",
    )
    _photo.add_rank_by(
        parser, "keep those that match best by this instead; it reads attributes as a "
        "sentence",
    )  # fmt: skip
    parser.add_argument(
        "--out", required=True, help="FILE.png for the sheet; a folder with --jobs"
    )
    _photo.add_model(parser, "GenerateConfig, e.g. temperature=0.8", "Talk2Face")
    _jobs.add_arguments(parser, strips=False)


def run(options: argparse.Namespace) -> None:
    arguments = {
        "text": options.text,
        "attributes": options.attributes,
        "count": options.count,
        "seed": options.seed,
        "candidates": options.candidates,
        **_photo.decode_options(options),
    }
    face = _photo.face(options, every=False)
    if face and not (options.image or options.jobs):
        raise UserError(
            "--face and --no-align say where the face of --image is; give it, or leave "
            "them out"
        )
    arguments |= face
    if options.image:
        arguments["image"] = options.image
    if options.rank_by:
        if options.candidates < 2:
            raise UserError("--rank-by goes with --candidates of 2 or more")
        arguments["rank_by"] = options.rank_by
    if options.jobs:
        return _jobs.run(options, "synthesize", arguments)
    if not (options.text or options.attributes):
        raise UserError("--text and --attributes are missing; give one or both")
    _photo.check_out(options)
    with _photo.notes(), _photo.elapsed_time("drawing"):
        drawn = _photo.load(options).synthesize(**arguments)
    with _photo.notes():
        paths = drawn.save(options.out)
    print("wrote " + ", ".join(map(str, paths)))
