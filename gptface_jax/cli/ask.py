"""Ask a face photo a question, and get the answer with its confidence (Talk2Face).

gptface ask --model my_model --image photo.jpg --question age
gptface ask --model my_model --image photo.jpg --question "wearing a hat" \\
  --attention map.png
gptface ask --model my_model --image photo.jpg --all --json answers.json
gptface ask --model my_model --jobs photos/ --question expression --out answers/
gptface ask --model my_model --list
gptface ask --model my_chat --image photo.jpg --question expression --head face.glb
gptface ask --model my_chat --image photo.jpg --head face.glb

All answers there are to a question are scored and the likeliest is given, by the sum
or the mean of its tokens (--score), with or without what the model says of a grey
picture (--prior); --open lets the model write one, which may mean nothing. The answers
are guesses by appearance, by the convention of the data set that is named: no facts
about a person.

With --head the answer is written and ends in a 3D head, which models of
configs/facegpt/chat.py have learnt; without a question it is a sentence about the face.
Beside the head lie pictures of it and a JSON file with the answer and the coefficients,
as of `gptface face3d`. It says whether the model left the head out, so that it had to
be appended.
"""

from __future__ import annotations

import argparse
import dataclasses

from gptface_jax.cli import _answers, _jobs, _photo
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="the photo")
    parser.add_argument(
        "--question",
        action="append",
        metavar="WORDS",
        help="an attribute that the model knows, e.g. age, expression, 'wearing a "
        "hat', 'lfw gender'; or a key of your own that ends in a colon; repeatable",
    )
    parser.add_argument(
        "--all", action="store_true", help="everything the model was trained to say"
    )
    parser.add_argument(
        "--list", action="store_true", help="print the questions and answers it knows"
    )
    _answers.add_arguments(parser)
    parser.add_argument(
        "--attention",
        metavar="FILE.png",
        help="picture of where the model looked before it answered",
    )
    parser.add_argument(
        "--head",
        metavar="FILE.glb",
        help="the 3D head that the answer ends in: FILE.glb (metres) or FILE.obj "
        "(millimetres)",
    )
    parser.add_argument("--json", metavar="FILE", help="the same answers as JSON")
    parser.add_argument("--out", help="folder for the results.jsonl of --jobs")
    _photo.add_face(parser)
    _photo.add_model(parser, "", "Talk2Face")
    _jobs.add_arguments(parser, pictures=False)


def run(options: argparse.Namespace) -> None:
    asked = options.question or []
    if options.list:
        return _list(options)
    if options.head:
        return _with_head(options, asked)
    if bool(asked) == options.all:
        raise UserError(
            "give either --question, or --all for everything the model knows (--list "
            "shows what that is)"
        )
    where = _photo.face(options, every=False)
    arguments = {**_answers.options(options), **where}
    if options.jobs:
        if len(asked) > 1 or options.attention or options.json:
            raise UserError(
                "--jobs take one --question or --all, and neither --attention nor "
                "--json: they write results.jsonl to --out"
            )
        verb = "answers" if options.all else "ask"
        return _jobs.run(options, verb, arguments | dict(zip(("question",), asked)))
    _jobs.need(options, "image")
    if options.attention:
        _check_attention(options, asked)
    with _photo.notes(), _photo.elapsed_time("reading the photo"):
        model = _photo.load(options)
        talker = model.ask.__self__  # or it says which models have it
        found = talker.answers(options.image, asked, **arguments)
        if options.attention:
            picture = model.attention(options.image, asked[0], **where)
    if options.attention:
        from gptface_jax.pipelines import pictures

        pictures.save(picture, options.attention)
    if options.json:
        _photo.write_json(options, model, arguments, map(dataclasses.asdict, found))
    for answer in found:
        print(answer)
    silent = sum(answer.value is None for answer in found)
    if silent:
        print(f"{silent} of {len(found)} are no answers")
    if options.attention:
        print(f"wrote {options.attention}")


def _with_head(options: argparse.Namespace, asked: list[str]) -> None:
    """Answers one question, or describes the face, and writes the head."""
    from gptface_jax.pipelines import mesh_files

    names = ("all", "open", "prior", "attention", "jobs")
    given = ["--" + name for name in names if getattr(options, name)]
    given += ["--score"] if options.score != "sum" else []
    if given or len(asked) > 1:
        said = ", ".join(given) or "several questions"
        raise UserError(f"--head goes with one --question or none, not with {said}")
    mesh_files.check(options.head)
    mesh_files.check_apart(options.head, options.image, options.json)
    _jobs.need(options, "image")
    arguments = _photo.face(options, every=False)
    with _photo.notes(), _photo.elapsed_time("reading the photo"):
        model = _photo.load(options)
        found = model.ask_with_head(options.image, *asked, **arguments)
    paths = found.save(options.head)
    if options.json:
        _photo.write_json(options, model, arguments, [found.head.described()])
    print(found)
    print("wrote " + ", ".join(str(p) for p in paths))


def _check_attention(options: argparse.Namespace, asked: list[str]) -> None:
    from gptface_jax.pipelines import pictures

    if len(asked) != 1:
        raise UserError("--attention shows one question; give a single --question")
    pictures.check(options.attention)


def _list(options: argparse.Namespace) -> None:
    from gptface_jax.pipelines import answers

    model = _photo.load(options)
    for question in model.learnt.questions:
        known = answers.candidates_of(question)
        shown = ", ".join(known[:8]) + (", ..." if known[8:] else "")
        print(f"{question.name:40s} {shown or 'any text'}")
