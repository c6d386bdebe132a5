"""The 3D head of a photo, or one after a sentence (FaceGPT).

gptface face3d --model runs/facegpt --image photo.jpg --out face.glb
gptface face3d --model runs/facegpt --text "a happy person" --out face.obj
gptface face3d --model runs/facegpt --text "an angry person" --seed 3 --out other.glb
gptface face3d --model runs/facegpt --text "an angry man" --like face.json --out b.glb

Beside the mesh with its colours, which 3D programs open, lie a turntable
(face.turntable.png), of a photo the head laid over it (face.overlay.png), and the
coefficients with expression weights by ARKit's names, angles and light (face.json).

--model is one that was trained by configs/facegpt. A text says nothing of pose and
light. Without --seed the expected head is made; every seed is another one. --like keeps
the shape and colours of an earlier head, or what --keep says of it.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="the photo")
    parser.add_argument("--text", default="", help="what the head looks like")
    parser.add_argument(
        "--out", required=True, help="FILE.glb (metres) or FILE.obj (millimetres)"
    )
    parser.add_argument(
        "--like", metavar="FILE.json", help="with --text: a head, parts of which stay"
    )
    parser.add_argument(
        "--keep",
        nargs="+",
        metavar="PART",
        help="with --like: identity, expression, albedo, light, pose; default identity "
        "and albedo",
    )
    _photo.add_face(parser)
    _photo.add_model(parser, "SampleConfig, e.g. temperature=0.7", "FaceGPT")
    parser.set_defaults(seed=None)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.pipelines import mesh_files

    mesh_files.check(options.out)
    mesh_files.check_apart(options.out, options.image, options.like)
    if not (options.image or options.text):
        raise UserError("--image and --text are missing; give one or both")
    if options.keep and not options.like:
        raise UserError("--keep says what stays of --like, which is missing")
    kept = {"like": options.like, "keep": options.keep}
    arguments = {
        "text": options.text,
        "seed": options.seed,
        **{name: value for name, value in kept.items() if value},
        **_photo.face(options, every=False),
        **_photo.decode_options(options),
    }
    with _photo.notes(), _photo.elapsed_time("making the head"):
        head = _photo.load(options).face3d(options.image, **arguments)
    paths = head.save(options.out)
    strongest = [f"{n} {v:.2f}" for n, v in list(head.expressions.items())[:4]]
    print("expression: " + ", ".join(strongest))
    if options.image:
        angles = (f"{name} {value:.0f}" for name, value in head.angles.items())
        print("degrees: " + ", ".join(angles))
    print("wrote " + ", ".join(str(p) for p in paths))
