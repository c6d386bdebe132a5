"""Edit a region of a photo with a sentence.

gptface edit --image photo.jpg --region mouth --text "a smiling woman" --out new.png

The face is found wherever it is, brought upright, edited, and carried back; of several
the largest, or --face 2, or --face all (`gptface faces` shows their numbers). Without
--mask, --box or --region the model proposes a region by itself; --propose writes that
as a mask to correct in a paint program and to give as --mask. Edits follow one another
by --then hair "a woman with black hair" --then hat "a woman wearing a hat".

--strength "Smiling=1,Eyeglasses=-1" turns attributes up or down, from -4 to 4, beside
--text or without one; without a mask where they show.

--expression "mouthSmile=0.8,jawOpen=0.1" and --turn "yaw=10" move the face itself: a
3D head is fitted to it and the photo bent along, at its own resolution; the model draws
what was not to be seen before.

Beside FILE.png, at the photo's own resolution, come FILE.strip.png (before, mask,
after) and FILE.json (seed, text, mask, model, match score per iteration).

gptface edit --jobs photos/ --region mouth --text "a smiling woman" --out edited/
gptface edit --jobs jobs.jsonl --out edited/

Many photos in compiled batches, on all devices: a folder with one edit for all, or a
file with a line for each. A job that fails stops no other; run it again to go on.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _jobs, _photo
from gptface_jax.core.errors import UserError

# What names a place in the first photo alone, or how to find one.
_OWN = (
    "area",
    "strength",
    "expression",
    "turn",
    "paint",
    "mask",
    "box",
    "crop",
    "invert_mask",
    "mask_grow",
    "mask_shrink",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _photo.add_arguments(parser)
    _photo.add_guidance(parser)
    parser.add_argument(
        "--strength",
        metavar="NAME=W,...",
        help="signed strength of attributes, -4 to 4, e.g. Smiling=1,Eyeglasses=-1; "
        "names as of CelebA",
    )
    parser.add_argument(
        "--expression",
        metavar="NAME=W,...",
        help="shapes added to the face's expression, -1 to 1, by ARKit's names, e.g. "
        "mouthSmile=0.8,browInnerUp=0.5 (mouthSmile_L: the subject's left side)",
    )
    parser.add_argument(
        "--turn",
        metavar="ANGLE=DEGREES,...",
        help="turn the head by up to 20 degrees: yaw to the picture's right, pitch "
        "downwards, roll",
    )
    parser.add_argument(
        "--paint",
        choices=("revealed", "moved"),
        help="of a face that moves, let the model draw what the photo did not show "
        "(default) or all that moves",
    )
    parser.add_argument(
        "--then",
        nargs=2,
        action="append",
        default=[],
        metavar=("REGION", "TEXT"),
        help="a further edit of the result; repeatable",
    )
    parser.add_argument(
        "--propose",
        action="store_true",
        help="edit nothing: --out gets the proposed mask, white = change, and "
        "FILE.strip.png shows it on the photo",
    )
    _jobs.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    arguments = {
        "text": options.text,
        **_moves(options),
        "samples": options.samples,
        "area": options.area,
        "guidance": options.guidance,
        "step_size": options.step_size,
        **_photo.arguments(options),
    }
    if options.propose:
        return _propose(options)
    if options.jobs:
        if options.then:
            raise UserError("--then goes on from one photo; leave it out with --jobs")
        return _jobs.run(options, "edit", arguments)
    _jobs.need(options, "image")
    if options.text is None and not any(_moves(options).values()):
        raise UserError(
            "--text is missing; give it, attributes by --strength, or --expression and "
            "--turn"
        )
    _photo.check_out(options, options.image, options.mask)
    given = {k: v for k, v in arguments.items() if v is not None}
    with _photo.elapsed_time("editing"):
        model = _photo.load(options)
        edit = model.edit(options.image, **given)
    for number, (region, text) in enumerate(options.then):
        given = {k: v for k, v in given.items() if k not in _OWN}
        with _photo.elapsed_time(f"edit {number + 2} of {len(options.then) + 1}"):
            edit = model.edit(edit, **{**given, "region": region, "text": text})
    _photo.finish(edit, options.out)


def _moves(options: argparse.Namespace) -> dict[str, dict[str, float] | str | None]:
    """What is turned up and down or moved, as `Model.edit` takes it."""
    from gptface_jax.pipelines import strength

    examples = {
        "strength": "Smiling=1,Eyeglasses=-1",
        "expression": "mouthSmile=0.8,jawOpen=0.2",
        "turn": "yaw=10,pitch=-5",
    }
    found = {}
    for name, example in examples.items():
        text = getattr(options, name)
        found[name] = (
            strength.from_text(text, name, example) if text is not None else None
        )
    return {**found, "paint": options.paint}


def _propose(options: argparse.Namespace) -> None:
    given = {"--then": options.then, "--jobs": options.jobs, "--mask": options.mask}
    for name, value in _moves(options).items():
        given[f"--{name}"] = value
    given |= {"--box": options.box, "--region": options.region}
    given["--perception"] = options.perception
    given |= {f"--{k.replace('_', '-')}": v for k, v in _photo.change(options).items()}
    for flag, value in given.items():
        if value:
            raise UserError(f"{flag} does not go with --propose, which finds a region")
    _jobs.need(options, "image", "text")
    _photo.check_out(options, options.image)

    from gptface_jax.apps import api
    from gptface_jax.data import image_io
    from gptface_jax.pipelines import pictures

    crop = _photo.box(options.crop, "--crop")
    with _photo.notes(), _photo.elapsed_time("looking for the region"):
        photo = image_io.decode(options.image)
        mask = _photo.load(options).propose(
            photo,
            options.text,
            area=options.area,
            crop=crop,
            **_photo.face(options, every=False),
        )
    path, strip, _ = api.outputs(options.out)
    pictures.save(pictures.of_mask(mask), path)
    shown = [photo, pictures.shade(photo, mask)]
    captions = ["photo", f"may change: {options.text}"]
    pictures.save(pictures.sheet(shown, 2, captions, cell=256), strip)
    print(f"wrote {path}, {strip}; correct the mask and go on with --mask {path}")
