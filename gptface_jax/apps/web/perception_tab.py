"""The tab See: what a perception model says of the faces of a photo."""

from __future__ import annotations

import pathlib

import gradio as gr
import numpy as np

from gptface_jax.apps.perception_api import Seen
from gptface_jax.apps.web.service import PROGRESS, Service, photo_input, shown_errors
from gptface_jax.apps.web.tabs import face_options
from gptface_jax.data import image as images
from gptface_jax.pipelines import perception_pictures
from gptface_jax.pipelines.perception import FaceSeen

_SIDE = 512  # of the face that is shown, in pixels
_LEAST = 0.05  # probability from which an expression is listed
_HEADERS = ["face", "what", "answer", "confidence"]
_WIDTHS = [14, 30, 34, 36]  # percent; without the first a hundred
Row = list[str | int | float]


def build(service: Service) -> None:
    """Landmarks and parts over the face; age, expression, attributes as a table."""
    with gr.Row():
        with gr.Column(min_width=320):
            face = gr.Number(0, precision=0, minimum=0, label="face", visible=False)
            photo = photo_input(service, "Photo", face, elem_id="seen-photo")
            align = gr.Checkbox(
                True, label="Find faces", visible=service.finds_faces,
                info="otherwise the middle square is taken for an upright face",
            )  # fmt: skip
            run = gr.Button("Look", variant="primary", elem_id="look")
        with gr.Column(min_width=320):
            parts = gr.AnnotatedImage(
                label="Landmarks and parts: point at a name to see one alone",
                elem_id="parts", buttons=["fullscreen"],
            )  # fmt: skip
            table = gr.Dataframe(
                headers=_HEADERS[1:], interactive=False, wrap=True,
                label="Guesses by appearance, often wrong: no facts about a person",
                elem_id="said",
            )  # fmt: skip
            files = gr.File(
                label="Picture, all that was said as JSON", file_count="multiple",
                interactive=False, elem_id="seen-files",
            )  # fmt: skip

    @shown_errors()
    def look(photo, face, align, progress=PROGRESS):
        """Predictions for the faces of a photo: guesses by appearance, not facts.

        With face 0 of all faces; a number, from 1 on by the left edge, chooses one.
        Without align none is looked for: the middle square is taken for one.
        """
        photo = service.photo(photo)
        service.wait(progress, "perceive", bool(face))(0, "looking at the photo")
        seen = service.model.perceive(photo, **face_options(face, align))
        for note in seen.notes:
            gr.Info(note)
        paths = seen.save(pathlib.Path(service.folder(), "seen.png"))
        parts = gr.AnnotatedImage(annotated(seen), color_map=_palette(seen))
        rows = _table(seen)
        widths = _WIDTHS[-len(rows["headers"]) :]
        table = gr.Dataframe(rows, column_widths=[f"{width}%" for width in widths])
        return parts, table, [str(path) for path in paths]

    run.click(
        look, [photo, face, align], [parts, table, files], api_name="perceive",
        **service.busy,
    )  # fmt: skip


def _table(seen: Seen) -> dict[str, list]:
    """The rows of all faces; of a single one without its number."""
    first = 0 if len(seen.faces) > 1 else 1
    rows = [row[first:] for one in seen.faces for row in said(one)]
    return {"headers": _HEADERS[first:], "data": rows}


def said(seen: FaceSeen) -> list[Row]:
    """Rows (face, what, answer, confidence) of all that is said of a face."""
    rows: list[Row] = []
    if seen.age is not None:
        years = f"{seen.age:.0f} \u00b1 {seen.age_spread or 0:.0f} years"
        rows.append([seen.number, "age", years, ""])
    for name, p in sorted(seen.expressions.items(), key=lambda pair: -pair[1]):
        if p >= _LEAST or name == seen.expression:
            rows.append([seen.number, "expression", name, round(p, 2)])
    for name, p in sorted(seen.attributes.items(), key=lambda pair: -pair[1]):
        answer = "yes" if name in seen.present else "no"
        what = name.replace("_", " ").lower()
        rows.append([seen.number, what, answer, round(max(p, 1 - p), 2)])
    if seen.parsing is not None:
        shown = np.unique(seen.parsing)
        names = ", ".join(seen.classes[i] for i in shown if i)
        sure = round(float(seen.parsing_confidence or 0), 2)
        rows.append([seen.number, "parts", names, sure])
    if seen.landmarks is not None:
        rows.append([seen.number, "landmarks", f"{len(seen.landmarks)} points", ""])
    return rows


def annotated(seen: Seen) -> tuple[np.ndarray, list[tuple[np.ndarray, str]]]:
    """The first face with its landmarks, and (mask, name) of every part of it."""
    face = seen.faces[0]
    square = images.resize(face.view.picture(seen.photo), (_SIDE, _SIDE))
    shown = perception_pictures.pointed(square, face)
    if face.parsing is None:
        return shown, []
    large = perception_pictures.enlarged(face.parsing, _SIDE)
    bare = (shown == square).all(-1)  # landmarks are not painted over
    # Class 0, the background, is what is left.
    return shown, [
        ((large == i) & bare, face.classes[i]) for i in np.unique(large) if i
    ]


def _palette(seen: Seen) -> dict[str, str]:
    """Name of a part -> its colour in the picture that is for download."""
    names = seen.faces[0].classes
    tints = perception_pictures.colours(max(1, len(names)))
    return {name: "#{:02x}{:02x}{:02x}".format(*t) for name, t in zip(names, tints)}
