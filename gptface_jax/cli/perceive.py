"""What faces show: landmarks, parts, age, expression, attributes (Faceptor).

gptface perceive --model runs/faces --image photo.jpg --out seen.png
gptface perceive --model runs/faces --image photo.jpg --out seen.json --task age_drawn
gptface perceive --model runs/faces --jobs photos/ --out seen/
gptface perceive --model runs/faces --list

FILE.png shows the photo and a column for each face, its parts in colours, its points,
and what is said of it with confidences; FILE.json holds the same. --parts writes the
classes of the photo's pixels (hair, skin, ...) as a PNG with a palette, whose numbers
the JSON's "classes" name. All of it is a guess
by appearance, as sure as the figures of the model's card, and no fact about a person.
Nothing here tells or compares who somebody is.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from gptface_jax.cli import _jobs, _photo, _written
from gptface_jax.core import files
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="the photo")
    parser.add_argument(
        "--out", help="FILE.png with FILE.json, or FILE.json; a folder with --jobs"
    )
    parser.add_argument(
        "--parts", metavar="FILE.png", help="the class of every pixel of the photo"
    )
    parser.add_argument(
        "--task",
        action="append",
        metavar="NAME",
        help="a task of the model, as --list names them; repeatable, one of a family; "
        "default the first of each",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the tasks that the model knows"
    )
    _photo.add_face(parser, "number by the left edge; default all faces")
    _photo.add_model(parser, "", "Faceptor")
    _jobs.add_arguments(parser, strips=False)


def run(options: argparse.Namespace) -> None:
    if options.list:
        return _list(options)
    arguments = {"tasks": options.task, **_photo.face(options, every=False)}
    arguments = {k: v for k, v in arguments.items() if v is not None}
    if options.jobs and options.parts:
        raise UserError("--parts is of one --image; leave it out with --jobs")
    if options.jobs:
        return _jobs.run(options, "perceive", arguments)
    _jobs.need(options, "image", "out")
    from gptface_jax.pipelines import pictures

    path = pathlib.Path(options.out)
    if path.suffix != ".json":
        pictures.check(path)
    if options.parts and pathlib.Path(options.parts).suffix.lower() != ".png":
        raise UserError(f"--parts is '{options.parts}'; write a .png, which is exact")
    _check_places(options)
    with _photo.notes(), _photo.elapsed_time("looking at the photo"):
        perceive = (model := _photo.load(options)).perceive
        if options.parts:
            _check_parsing(model, options.task)
        seen = perceive(options.image, **arguments)
    from gptface_jax.pipelines.perception_pictures import words

    for face in seen.faces:
        print(words(face).replace("\n", ", "))
    for note in seen.notes:
        print(f"note: {note}")
    written = seen.save(options.out)
    if options.parts:
        parts = seen.parts
        pictures.write(options.parts, lambda name: parts.save(name, "PNG"))
        written.append(pathlib.Path(options.parts))
    print("wrote " + ", ".join(map(str, written)))


def _check_places(options: argparse.Namespace) -> None:
    """Refuses --out and --parts that are one file, the photo or cannot be written."""
    taken = {pathlib.Path(options.image).resolve(): f"'{options.image}' itself"}
    for name in ("out", "parts"):
        if not (place := getattr(options, name)):
            continue
        _written.check_file(f"--{name}", place)
        files.check_place(place)
        path = pathlib.Path(place).resolve()
        if path in taken:
            raise UserError(f"--{name} is {taken[path]}; write to another file")
        taken[path] = f"'{place}' like --{name}"


def _check_parsing(model: Any, tasks: Sequence[str] | None) -> None:
    """Refuses --parts where no task of parsing is asked."""
    asked = model.chosen(tasks)
    if not any(task.startswith("parsing_") for task in asked):
        raise UserError(
            "--parts needs a task of parsing, and asked are "
            f"{', '.join(asked) or 'none'}; ask for one, give a model that has one, or "
            "leave --parts out"
        )


def _list(options: argparse.Namespace) -> None:
    model = _photo.load(options)
    chosen = model.chosen()
    for task in map(model.config.task, model.tasks):
        if task.has_queries:
            said = "  (asked by default)" if task.name in chosen else ""
            print(f"{task.name:20s} {task.queries:3d} answers{said}")
