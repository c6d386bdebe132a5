"""Find the faces of a photo.

gptface faces --image photo.jpg --out faces.png
gptface faces --measure --images ../photos --limit 2000 --out frame.json

FILE.png is the photo with boxes, numbers from the left, and points; FILE.json holds
them: box, score, six points, 68 landmarks and the mesh of 468 points in pixels. It is
about where a face is, never about whose it is.

--measure writes the mean place of eyes, nose and mouth corners over many pictures of
one face each: the "frame" of the config of a model that is trained on them.
"""

from __future__ import annotations

import argparse
import json
import pathlib

from gptface_jax.cli import _photo, _source, _written
from gptface_jax.core import files
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="the photo")
    parser.add_argument("--out", required=True, help="FILE.png, or FILE.json")
    parser.add_argument(
        "--any-roll",
        action="store_true",
        help="also detect faces rotated by 90 or 180 degrees",
    )
    parser.add_argument(
        "--measure", action="store_true", help="mean landmark positions over --images"
    )
    _source.add_arguments(parser, required=False)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    _written.check_file("--out", options.out)
    if options.measure:
        return _measure(options)
    if options.image is None or options.images is not None:
        raise UserError("give one photo as --image, or --measure with --images")
    from gptface_jax.data import image_io
    from gptface_jax.pipelines import faces, pictures

    path = pathlib.Path(options.out)
    if path.suffix != ".json":
        pictures.check(path)
    if path.resolve() == pathlib.Path(options.image).resolve():
        raise UserError(f"--out is '{options.image}' itself; write to another file")
    beside = path.with_suffix(".json")
    for taken in (beside, path):
        if taken.exists() and not _holds_faces(beside):
            raise UserError(
                f"'{taken}' exists and holds no faces found before; write to another "
                "name"
            )
    with _photo.elapsed_time("looking for faces"):
        photo = image_io.decode(options.image)
        found = faces.find(photo, any_roll=options.any_roll)
    for number, face in enumerate(found, 1):
        x0, y0, x1, y1 = (round(v) for v in face.box)
        print(
            f"{number}: {x0},{y0},{x1},{y1}, score {face.score:.2f}, turned by "
            f"{face.roll:.0f} degrees"
        )
    if not found:
        print("no face was found")
    size = list(photo.shape[1::-1])
    content = {"size": size, "faces": [face.described() for face in found]}
    pictures.write(
        beside, lambda name: pathlib.Path(name).write_text(json.dumps(content) + "\n")
    )
    written = [beside]
    if path.suffix != ".json":
        pictures.save(pictures.faces(photo, found), path)
        written.insert(0, path)
    print("wrote " + ", ".join(map(str, written)))


def _holds_faces(path: pathlib.Path) -> bool:
    """Whether a JSON is of faces that this verb found in a photo."""
    try:
        return isinstance(json.loads(path.read_text("utf-8"))["faces"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _measure(options: argparse.Namespace) -> None:
    if options.images is None or options.image is not None:
        raise UserError("--measure takes many pictures: give them as --images")
    from gptface_jax.data import sources
    from gptface_jax.pipelines import upright

    found = upright.measure_frame(
        sources.open_source(_source.spec(options)), progress=not options.quiet
    )
    files.write_text(options.out, files.json_text(found, 2))
    print(
        f"a face in {found['faces']} of {found['pictures']} pictures -> {options.out}"
    )
