"""Arguments of the verbs that change one photo."""

from __future__ import annotations

import argparse
import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import tqdm

from gptface_jax.core import files
from gptface_jax.core.config import assignments
from gptface_jax.core.errors import UserError

GUIDANCE = ("none", "literal", "ascent", "ascent_norm", "ascent_layer", "embedding")


def add_model(
    parser: argparse.ArgumentParser,
    options: str = "DecodeConfig, e.g. kl_max=0.2 or cfg=2",
    of: str = "",
) -> None:
    """--model and what goes with it; --decode takes `options`, "" for none.

    of: the system whose verb it is, where the bundled model does not have it.
    """
    known = "bundled name, model directory or training run"
    parser.add_argument(
        "--model",
        default="demo",
        help=f"{known} of a {of}; the default, demo, is none"
        if of
        else f"{known}; default the bundled GPTFace, demo",
    )
    parser.add_argument(
        "--tokenizer", help="VQGAN training run, where --model is a training run"
    )
    parser.add_argument(
        "--system",
        help="whose verbs come first where the model is several systems on one set of "
        "weights: gptface, talk2face, facegpt or chat",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="precision of the activations; bfloat16 is faster on hardware that has it",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed; equal seeds, equal results"
    )
    if options:
        parser.add_argument(
            "--decode",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"any decoding option of {options}; repeatable",
        )


def add_selection(
    parser: argparse.ArgumentParser,
    required: bool = True,
    what: str = "what may change",
    every: bool = True,
) -> None:
    """--image and what selects a part of it; every: --face may be all."""
    parser.add_argument("--image", required=required, help="the photo")
    where = parser.add_argument_group(f"{what} (one of)")
    where.add_argument(
        "--mask",
        help="mask image of the photo's size, white = change; or the photo with a "
        "transparent hole",
    )
    where.add_argument("--box", metavar="x0,y0,x1,y1", help="bounding box in pixels")
    where.add_argument(
        "--region",
        help="facial region: mouth, eyes, glasses, nose, cheeks, hair, hat, beard, "
        "lower-face, ...; or span:0.4, random:0.4: a random mask over 40%% of the crop",
    )
    add_change(parser, "the mask, box or region")
    among = "or 'all', one after the other; " if every else ""
    add_face(parser, f"number by the left edge, {among}default the largest")
    parser.add_argument(
        "--crop",
        metavar="x0,y0,x1,y1",
        help="square crop that the model sees, filled by an upright face; default: "
        "around the detected face, or around a mask that lies on none",
    )


def add_change(parser: argparse.ArgumentParser, what: str) -> None:
    group = parser.add_argument_group(f"changes of {what}, in this order")
    group.add_argument(
        "--invert-mask", action="store_true", help="invert it: black = change"
    )
    for verb, how in (("grow", "dilate"), ("shrink", "then erode")):
        group.add_argument(
            f"--mask-{verb}",
            type=int,
            default=0,
            metavar="PX",
            help=f"{how} it by this many pixels of the photo",
        )


def change(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `add_change` that were given."""
    names = ("invert_mask", "mask_grow", "mask_shrink")
    given = {name: getattr(options, name) for name in names}
    return {name: value for name, value in given.items() if value}


def add_kept(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep-location",
        action="store_true",
        help="keep the GPS location in the EXIF metadata; camera and date are kept "
        "anyway",
    )


def kept(options: argparse.Namespace) -> dict[str, Any]:
    """The argument of `add_kept`, if it was given."""
    return {"keep_location": True} if options.keep_location else {}


def add_face(
    parser: argparse.ArgumentParser,
    which: str = "number by the left edge; default the largest",
) -> None:
    group = parser.add_argument_group("which face")
    group.add_argument(
        "--face",
        metavar="N",
        help=f"{which}; `gptface faces` shows the numbers",
    )
    group.add_argument(
        "--no-align",
        action="store_true",
        help="no face detection or alignment: the central square is the face",
    )


def face(options: argparse.Namespace, every: bool = True) -> dict[str, Any]:
    """The arguments of `add_face` that were given; every: "all" may be said."""
    number: int | str | None = options.face
    if number is not None and not (every and number == "all"):
        try:
            number = int(number)
        except ValueError:
            number = 0
        if number < 1:
            also = " or all" if every else ""
            raise UserError(
                f"--face is '{options.face}'; give a number from 1 on{also}"
            )
    align = {"align": False} if options.no_align else {}
    return ({} if number is None else {"face": number}) | align


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser, required=False)
    parser.add_argument(
        "--perception",
        metavar="NAME_OR_DIR",
        help="with --region: a Faceptor that sees where the region lies in this photo, "
        "and no wider (--mask-grow widens it); otherwise by the face mesh. It knows "
        "lips, skin, earrings and necklace as well",
    )
    parser.add_argument("--out", required=True, help="FILE.png for the result")
    add_kept(parser)
    add_model(parser)
    parser.add_argument(
        "--no-composite",
        action="store_true",
        help="write the model's raw output, not blended into the photo",
    )
    parser.add_argument(
        "--feather", type=int, help="width of the soft edge inside the mask, in pixels"
    )
    parser.add_argument(
        "--borders",
        type=int,
        help="maximum colour shift, in levels of 255, that hides the mask's border; "
        "default 30; 0 where the mask leaves a rim of an object to be removed",
    )
    parser.add_argument(
        "--grow",
        type=int,
        default=0,
        help="dilate the mask by this many tokens, for the model only",
    )
    parser.add_argument(
        "--k",
        type=int,
        help="tokens committed per decoding iteration; default the model's (8)",
    )
    parser.add_argument(
        "--select",
        choices=("boundary", "global", "halton"),
        help="commit tokens at the mask's boundary first (the model's default), or by "
        "confidence alone",
    )


def add_guidance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", help="text prompt: what the result should show")
    parser.add_argument(
        "--guidance",
        choices=GUIDANCE,
        help="how the gradient of the matching score guides decoding; default the "
        "model's, none in the bundled one",
    )
    parser.add_argument(
        "--step-size",
        type=float,
        help="step size of the guidance; default the model's (0.01)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        help="number of candidates, of which the best match is kept; default what 16 "
        "forward passes an iteration pay for: 16, with cfg (as the bundled model) 8, "
        "with the gradient 3, with both 2",
    )
    parser.add_argument(
        "--area",
        type=float,
        help="area of a proposed region as a share of the crop; default: that of the "
        "attribute in the text, else 0.2",
    )


def box(text: str | None, flag: str) -> tuple[int, ...] | None:
    """ "x0,y0,x1,y1" -> four integers."""
    if text is None:
        return None
    try:
        values = tuple(int(v) for v in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4:
        raise UserError(f"{flag} is '{text}'; give x0,y0,x1,y1, four whole numbers")
    return values


def decode_options(options: argparse.Namespace) -> dict[str, Any]:
    """The NAME=VALUE of --decode."""
    return assignments("--decode", options.decode)


def selection(options: argparse.Namespace, every: bool = True) -> dict[str, Any]:
    """The arguments of `add_selection` but the image; every: see there."""
    return {
        "mask": options.mask,
        "box": box(options.box, "--box"),
        "region": options.region,
        "crop": box(options.crop, "--crop"),
        **face(options, every),
        **change(options),
    }


def arguments(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments that `Model.edit` and `Model.inpaint` have in common."""
    changes = {
        "k": options.k, "select": options.select, "borders": options.borders
    }  # fmt: skip
    return {
        **selection(options),
        **kept(options),
        "perception": options.perception,
        "seed": options.seed,
        "composite": not options.no_composite,
        "feather": options.feather,
        "grow": options.grow,
        **{k: v for k, v in changes.items() if v is not None},
        **decode_options(options),
    }


def load(options: argparse.Namespace):
    """The model of --model and --tokenizer."""
    import gptface_jax

    return gptface_jax.load(
        options.model,
        tokenizer=options.tokenizer,
        dtype=options.dtype,
        system=options.system,
    )


def add_rank_by(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--rank-by",
        metavar="MODEL",
        help=f"{what}: a GPTFace, e.g. demo, or a CLIP, clip:FOLDER_OR_HUB_ID "
        "(extra `clip`)",
    )


def write_json(options: argparse.Namespace, model, arguments: dict, found) -> None:
    """Writes what was found of a photo, and by what, to --json."""
    record = {"image": options.image, "model": model.digest, "options": arguments}
    record["found"] = list(found)
    files.write_text(options.json, files.json_text(record, 2))


@contextlib.contextmanager
def elapsed_time(what: str) -> Iterator[None]:
    """Shows the elapsed seconds on a terminal while the block runs."""
    note = f"{what} (the first time it is compiled, up to a minute)"
    done = threading.Event()
    with tqdm.tqdm(desc=note, bar_format="{desc} {elapsed}", disable=None) as bar:

        def tick() -> None:
            while not done.wait(0.5):
                bar.refresh()

        ticking = threading.Thread(target=tick, daemon=True)
        ticking.start()
        try:
            yield
        finally:
            done.set()
            ticking.join()


@contextlib.contextmanager
def notes() -> Iterator[None]:
    """Prints the warnings of the block as notes, at its end."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", UserWarning)
        yield
    for note in found:
        print(f"note: {note.message}")


def check_out(options: argparse.Namespace, *read: str | None) -> None:
    """Refuses to write over what is read, or anything that is no edit."""
    from gptface_jax.apps import api

    out = os.path.realpath(options.out)
    for given in read:
        if given and os.path.realpath(given) == out:
            raise UserError(f"--out is '{given}' itself; write to another file")
    api.outputs(options.out)


def finish(edit, out: str) -> None:
    """Saves and says what happened."""
    import numpy as np

    paths = edit.save(out)
    for note in (*edit.details["notes"], *edit.losses(out)):
        print(f"note: {note}")
    match = np.exp(edit.final_log_prob)
    fits = f", p(text matches) {match:.3f}" if edit.text else ""
    tokens, rounds = edit.details["tokens"], edit.details["iterations"]
    done = f"{tokens} tokens in {rounds} iterations"
    if not tokens:
        moved = "paint" in edit.details
        done = f"{'bent' if moved else 'filled from around'}, without the model"
    print(done + fits)
    print("wrote " + ", ".join(str(p) for p in paths))
