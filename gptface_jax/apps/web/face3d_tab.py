"""The tab 3D: the head of a photo or a sentence, turned, lit and moved by sliders."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import gradio as gr
import numpy as np

from gptface_jax.apps.web.service import PROGRESS, Service, photo_input, shown_errors
from gptface_jax.apps.web.tabs import face_options
from gptface_jax.core.errors import UserError
from gptface_jax.data.facemodel import FaceModel
from gptface_jax.pipelines import mesh_files
from gptface_jax.pipelines.faces3d import Head3D
from gptface_jax.pipelines.sequence_model import Learnt

_SIDE = 192  # of the picture, in pixels: a third of a second
_USUAL = (
    "jawOpen", "mouthSmile", "mouthFrown", "mouthPucker", "browInnerUp", "browDown",
    "eyeBlink", "eyeWide", "noseSneer", "cheekPuff",
)  # fmt: skip
# (label, least, most, step) of what is turned, and of the light, which begins with
# 0, 0, 1.
_POSE = (("Yaw", -90, 90, 1), ("Pitch", -60, 60, 1), ("Roll", -60, 60, 1))
_LIGHT = (
    ("Light from the side", -180, 180, 5), ("Light from above", -90, 90, 5),
    ("Brightness", 0.2, 2, 0.05),
)  # fmt: skip
_PRIVATE = {"api_visibility": "private"}


@dataclasses.dataclass(frozen=True)
class Made:
    """A head as it was made, with the values at which its sliders began.

    What is changed goes by how far a slider was moved: untouched ones leave the head's
    own numbers, which sliders show rounded.
    """

    head: Head3D
    groups: dict[str, list[int]]
    start: tuple[float, ...]

    @staticmethod
    def of(head: Head3D) -> Made:
        """A head; its sliders are expressions in the order of `groups`, pose, light."""
        found = groups(head.model)
        weights = head.coeffs["exp_coeffs"]
        moved = [round(float(weights[rows].mean()), 2) for rows in found.values()]
        angles = [round(head.angles[label.lower()]) for label, *_ in _POSE]
        ranges = [(0, 1)] * len(moved) + [(low, high) for _, low, high, _ in _POSE]
        pairs = zip([*moved, *angles], ranges)
        start = tuple(float(np.clip(x, *limits)) for x, limits in pairs)
        return Made(head, found, (*start, 0.0, 0.0, 1.0))

    def at(self, values: Sequence[float]) -> Head3D:
        """The head with its sliders at these values."""
        count, head = len(self.groups), self.head
        moved = np.subtract(values, self.start)
        weights = np.array(head.coeffs["exp_coeffs"])
        for rows, by in zip(self.groups.values(), moved):
            if by:
                weights[rows] = np.clip(weights[rows] + by, 0, 1)
        if moved[:count].any():
            head = head.changed(exp_coeffs=weights)
        yaw, pitch, roll = moved[count : count + 3]
        if moved[count : count + 3].any():
            angles = head.angles
            head = head.posed(
                angles["yaw"] + yaw, angles["pitch"] + pitch, angles["roll"] + roll
            )
        if moved[count + 3 :].any():
            head = head.lit(*values[count + 3 :])
        return head


def groups(model: FaceModel) -> dict[str, list[int]]:
    """Name of a slider -> rows of its expression shapes: both sides go together."""
    names = model.expression_names or [str(i) for i in range(len(model.expression))]
    found: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        whole = name[:-2] if name.endswith(("_L", "_R")) else name
        found.setdefault(whole, []).append(row)
    first = [name for name in _USUAL if name in found]
    rest = [name for name in found if name not in first]
    return {name: found[name] for name in (*first, *rest)}


def build(service: Service) -> None:
    """Puts the tab's widgets into the page that is being made."""
    made = gr.State()
    owner = service.model.face3d.__self__  # not one in front of it
    with gr.Row():
        with gr.Column(min_width=320):
            face = gr.Number(0, precision=0, minimum=0, label="face", visible=False)
            photo = photo_input(service, "Photo", face, elem_id="solid-photo")
            align = gr.Checkbox(
                True, label="Find faces", visible=service.finds_faces,
                info="otherwise the middle square is taken for an upright face",
            )  # fmt: skip
            text = gr.Textbox(
                label="Sentence", placeholder="a happy person with blond hair",
                info="besides the photo, or without one", elem_id="solid-text",
            )  # fmt: skip
            other = gr.Number(
                0, precision=0, minimum=0, label="Another head of the sentence",
                info="0: the expected one; only without a photo",
            )  # fmt: skip
            run = gr.Button("Make the head", variant="primary", elem_id="solid")
            asked = _asked(owner.learnt) if hasattr(owner, "ask_with_head") else ()
            solid = gr.Model3D(
                label="In three dimensions: drag it", height=300, elem_id="glb",
                camera_position=(90, 90, None), interactive=False,
            )  # fmt: skip
            keep = gr.Button("Files of this head", elem_id="solid-keep")
            files = gr.File(
                label="GLB, turntable, JSON", file_count="multiple",
                interactive=False, elem_id="solid-files",
            )  # fmt: skip
        with gr.Column(min_width=320):
            picture = gr.Image(
                label="The head", interactive=False, height=232, elem_id="head",
                buttons=[],
            )  # fmt: skip
            sliders = _sliders(owner.face_model)
    shown = [made, picture, solid, files, *sliders]
    _wire(service, [photo, text, other, face, align], run, shown, keep)
    if asked:
        _wire_questions(service, [photo, face, align], asked, shown)


def _asked(learnt: Learnt) -> tuple[gr.Dropdown, gr.Button, gr.Textbox]:
    """Question, its button and the answer, of a model that answers."""
    question = gr.Dropdown(
        ["", *(question.name for question in learnt.questions)], value="",
        label="Question about the photo", allow_custom_value=True,
        elem_id="solid-question",
        info="or in your own words; without one the answer is a sentence",
    )  # fmt: skip
    run = gr.Button("Ask: an answer and its head", elem_id="solid-ask")
    answer = gr.Textbox(
        label="Answer: a guess by appearance, no fact about a person", lines=2,
        interactive=False, elem_id="solid-answer",
    )  # fmt: skip
    return question, run, answer


def _sliders(model: FaceModel) -> list[gr.Slider]:
    """Sliders of expression, pose and light, in the order of `Made.start`."""
    names = [*groups(model)]
    usual = sum(name in _USUAL for name in names) or len(names)
    found = []
    with gr.Accordion("Pose and light", elem_id="pose"), gr.Row():
        turned = [_slider(*row, 0) for row in _POSE]
        lit = [_slider(*row, start) for row, start in zip(_LIGHT, (0, 0, 1))]
    for title, chosen, opened in (
        ("Expression", names[:usual], True),
        ("More of the expression", names[usual:], False),
    ):
        if chosen:
            with gr.Accordion(title, open=opened, elem_id=title.split()[0].lower()):
                with gr.Row():
                    found += [_slider(name, 0, 1, 0.01, 0) for name in chosen]
    return [*found, *turned, *lit]


def _slider(label, least, most, step, start) -> gr.Slider:
    return gr.Slider(least, most, start, step=step, label=label, min_width=220)


def _wire(service, given, run, shown, keep) -> None:
    """Connects buttons and sliders to their functions."""
    made, picture, solid, files, *sliders = shown

    @shown_errors()
    def make(photo, text, other, face, align, progress=PROGRESS):
        service.wait(progress, "face3d", photo is None)(0, "making the head")
        return _begun(service, _head(service, photo, text, other, face, align))

    @shown_errors()
    def move(found, *values):
        return _made(found).at(values).render(_SIDE)[0]

    @shown_errors()
    def write(found, *values):
        head = _made(found).at(values)
        paths = head.save(pathlib.Path(service.folder(), "head.glb"))
        return str(paths[0]), [str(path) for path in paths]

    @shown_errors()
    def face3d(photo, text, other, face, align):
        """The 3D head of a photo, of a sentence, or of both.

        Files: GLB, turntable, of a photo the head laid over it, JSON. With other above
        0 and no photo another head of the same sentence; face 0 is the largest face.
        """
        head = _head(service, photo, text, other, face, align)
        return [str(p) for p in head.save(pathlib.Path(service.folder(), "head.glb"))]

    run.click(make, given, shown, **_PRIVATE, **service.busy)
    gr.on(
        [slider.input for slider in sliders], move, [made, *sliders], picture,
        trigger_mode="always_last", show_progress="hidden", concurrency_limit=2,
        concurrency_id="rendering", **_PRIVATE,
    )  # fmt: skip
    keep.click(write, [made, *sliders], [solid, files], **_PRIVATE)
    gr.Button(visible=False).click(
        face3d, given, files, api_name="face3d", **service.busy
    )


def _wire_questions(service, given, asked, shown) -> None:
    """Connects a question with its answer, and with the head that it ends in."""
    question, run, answer = asked
    model = service.model.face3d.__self__

    def answered(photo, question, face, align):
        photo, words = service.photo(photo), (question or "").strip()
        found = model.ask_with_head(photo, words, **face_options(face, align))
        for note in found.head.details["notes"]:
            gr.Info(note)
        return found

    @shown_errors()
    def ask(photo, question, face, align, progress=PROGRESS):
        service.wait(progress, "ask_with_head")(0, "looking at the photo")
        found = answered(photo, question, face, align)
        return str(found), *_begun(service, found.head)

    @shown_errors()
    def ask_with_head(photo, question, face, align):
        """The answer to a question about a photo, and the 3D head that it ends in.

        Without a question the answer is a sentence. Files: as of face3d; their JSON
        tells the answer and how sure it is.
        """
        found = answered(photo, question, face, align)
        paths = found.save(pathlib.Path(service.folder(), "head.glb"))
        return str(found), [str(path) for path in paths]

    photo, *which = given
    run.click(
        ask, [photo, question, *which], [answer, *shown], **_PRIVATE, **service.busy
    )
    gr.Button(visible=False).click(
        ask_with_head, [photo, question, *which], [answer, shown[3]],
        api_name="ask_with_head", **service.busy,
    )  # fmt: skip


def _begun(service: Service, head: Head3D) -> tuple:
    """A head as the page shows it first: itself, picture, mesh, no files, sliders."""
    found = Made.of(head)
    path = pathlib.Path(service.folder(), "head.glb")
    return found, head.render(_SIDE)[0], _mesh(head, path), None, *found.start


def _made(found: Made | None) -> Made:
    if found is None:
        raise UserError("there is no head yet; make one of a photo or a sentence")
    return found


def _head(service: Service, photo, text, other, face, align) -> Head3D:
    """The head of a request; notes are shown."""
    text = (text or "").strip()
    if photo is None:
        if not text:
            raise UserError("there is neither a photo nor a sentence; give one or both")
        return service.model.face3d(text=text, seed=int(other or 0) or None)
    head = service.model.face3d(
        service.photo(photo), text=text, **face_options(face, align)
    )
    for note in head.details["notes"]:
        gr.Info(note)
    return head


def _mesh(head: Head3D, path: pathlib.Path) -> str:
    """Writes the mesh alone; its path."""
    mesh_files.write(path, head.vertices, head.model.triangles, head.colours)
    return str(path)
