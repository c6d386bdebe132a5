"""The tabs Move, Restore, Stitch, Describe and Several photos."""

from __future__ import annotations

import dataclasses

import gradio as gr
import numpy as np

from gptface_jax.apps import api
from gptface_jax.apps.web import work
from gptface_jax.apps.web.service import PROGRESS, Service, photo_input, shown_errors
from gptface_jax.core.errors import UserError
from gptface_jax.data import regions
from gptface_jax.pipelines import edit as editing
from gptface_jax.pipelines import head_warp

_PROPOSED = "proposed by the model"
_SENTENCES = 32  # at once
_SHAPES = (
    "mouthSmile", "mouthFrown", "jawOpen", "mouthPucker", "browInnerUp", "browDown",
    "eyeBlink", "eyeWide",
)  # fmt: skip
_FACES = {
    "the largest": {},
    "all": {"face": "all"},
    "none: the middle square": {"align": False},
}


def move(service: Service) -> None:
    """A face gets another expression, or turns."""
    sliders: dict[str, gr.Slider] = {}
    with gr.Row():
        with gr.Column(min_width=320):
            face = gr.Number(0, precision=0, minimum=0, label="face", visible=False)
            photo = photo_input(service, "Photo", face, elem_id="moving")
            with gr.Accordion("Expression", elem_id="shapes"), gr.Row():
                for name in _SHAPES:
                    sliders[name] = _slider(name, head_warp.LIMIT, 0.05)
            with gr.Accordion("Turn, in degrees", elem_id="turn"), gr.Row():
                for name in head_warp.ANGLES:
                    sliders[name] = _slider(name, head_warp.DEGREES, 1)
            text = gr.Textbox(
                label="Sentence, if there is one to follow where the model draws"
            )
            paint = gr.Radio(
                editing.PAINTS, value=editing.PAINTS[0], label="Let the model draw",
                info="revealed: what the photo did not show; moved: all that moves",
            )  # fmt: skip
            seed = gr.Number(service.seed, precision=0, label="Seed")
            run = gr.Button("Move", variant="primary", elem_id="move")
        slider, files = _result()

    def edited(photo, expression, turn, text, paint, seed, face):
        photo = service.photo(photo)
        return service.model.edit(
            photo, text or "", expression=expression, turn=turn, paint=paint, seed=seed,
            **face_options(face, True),
        )  # fmt: skip

    @shown_errors()
    def moved(photo, text, paint, seed, face, *values, progress=PROGRESS):
        service.wait(progress, "move", bool(text), paint)(0, "moving the face")
        by_name = dict(zip(sliders, values))
        turn = {name: by_name.pop(name) for name in head_warp.ANGLES}
        edit = edited(photo, by_name, turn, text, paint, seed, face)
        return _handed_out(service, edit, "moved")

    @shown_errors()
    def move(photo, expression, turn, text, paint, seed, face):
        """Moves the face of a photo: {"mouthSmile": 0.8}, {"yaw": 10}.

        Expressions are ARKit's shapes, -1 to 1, turns yaw, pitch and roll, -20 to 20
        degrees. The photo is bent; the model draws what it did not show ("revealed") or
        all that moves ("moved"), after a sentence if there is one. Face 0 is the
        largest.
        """
        edit = edited(photo, expression, turn, text, paint, seed, face)
        return work.files(edit, service.folder(), "moved")

    given = [text, paint, seed, face]
    run.click(
        moved, [photo, *given, *sliders.values()], [slider, files],
        api_visibility="private", **service.busy,
    )  # fmt: skip
    by_json = [
        gr.JSON({}, label=name, visible=False) for name in ("expression", "turn")
    ]
    gr.Button(visible=False).click(
        move, [photo, *by_json, *given], files, api_name="move", **service.busy
    )


def _slider(name: str, limit: float, step: float) -> gr.Slider:
    return gr.Slider(-limit, limit, 0, step=step, label=name, min_width=160)


def restore(service: Service) -> None:
    """Scratches of old photos are painted over."""
    with gr.Row():
        with gr.Column(min_width=320):
            photo = photo_input(service, "Photo", elem_id="old")
            damage = photo_input(service, "Damage, if it is marked: white in its size")
            kind = gr.Radio(
                ["bright", "dark", "both"], value="both", label="Scratches to look for"
            )
            paint = gr.Radio(
                ["damage", "tokens"], value="damage", label="Paint over",
                info="tokens: all that the model drew, for wide scratches",
            )  # fmt: skip
            seed = gr.Number(service.seed, precision=0, label="Seed")
            run = gr.Button("Restore", variant="primary", elem_id="restore")
        slider, files = _result()

    @shown_errors()
    def restore(photo, damage, kind, paint, seed, progress=PROGRESS):
        photo = service.photo(photo)
        service.wait(progress, "restore")(0, "restoring")
        edit = service.model.restore(photo, damage, kind=kind, paint=paint, seed=seed)
        return _handed_out(service, edit, "restored")

    run.click(
        restore, [photo, damage, kind, paint, seed], [slider, files],
        api_name="restore", **service.busy,
    )  # fmt: skip


def stitch(service: Service) -> None:
    """Two photos are joined."""
    with gr.Row():
        with gr.Column(min_width=320):
            first = photo_input(
                service, "First: on the left, or on top", elem_id="first"
            )
            second = photo_input(service, "Second", elem_id="second")
            seam = gr.Radio(api.SEAMS, value="vertical", label="Seam")
            at = gr.Slider(0.1, 0.9, 0.5, step=0.05, label="Place of the seam")
            band = gr.Slider(1, 4, 1, step=0.5, label="Tokens along it drawn anew")
            text = gr.Textbox(label="Sentence, if there is one to follow")
            seed = gr.Number(service.seed, precision=0, label="Seed")
            run = gr.Button("Stitch", variant="primary", elem_id="stitch")
        slider, files = _result("Joined, and drawn along the seam")

    @shown_errors()
    def stitch(first, second, seam, at, band, text, seed, progress=PROGRESS):
        pair = (
            service.photo(first, "first photo"),
            service.photo(second, "second photo"),
        )
        service.wait(progress, "stitch", bool(text))(0, "stitching")
        edit = service.model.stitch(
            *pair, seam=seam, at=at, band=band, text=text, seed=seed
        )
        return _handed_out(service, edit, "stitched")

    run.click(
        stitch, [first, second, seam, at, band, text, seed], [slider, files],
        api_name="stitch", **service.busy,
    )  # fmt: skip


def describe(service: Service) -> None:
    """Words, sentences, and how well given sentences fit."""
    with gr.Row():
        with gr.Column(min_width=320):
            face = gr.Number(
                0, precision=0, minimum=0, label="face", visible=False
            )  # 0: the largest
            photo = photo_input(service, "Photo", face, elem_id="described")
            align = gr.Checkbox(
                True, label="Find faces", visible=service.finds_faces,
                info="otherwise the middle square is taken for an upright face",
            )  # fmt: skip
            count = gr.Slider(1, 20, 10, step=1, label="Words")
            seed = gr.Number(service.seed, precision=0, label="Seed")
            tags = gr.Button("Words that fit", variant="primary", elem_id="tag")
            captions = gr.Button("Sentences of eight words")
            sentences = gr.Textbox(
                label="Your sentences, one a line", lines=3, elem_id="sentences"
            )
            match = gr.Button("How well they fit", elem_id="match")
        table = _word_table()

    @shown_errors()
    def tag(photo, count, seed, face, align, progress=PROGRESS):
        photo = service.photo(photo)
        service.wait(progress, "tag")(0, "looking for words")
        found = service.model.tag(
            photo, int(count), seed=seed, **face_options(face, align)
        )
        names = [field.name for field in dataclasses.fields(found[0])]
        return {"headers": names, "data": [_row(dataclasses.astuple(t)) for t in found]}

    @shown_errors()
    def caption(photo, seed, face, align, progress=PROGRESS):
        photo = service.photo(photo)
        service.wait(progress, "caption")(0, "writing sentences")
        return _matches(
            service.model.caption(photo, seed=seed, **face_options(face, align))
        )

    @shown_errors()
    def fits(photo, sentences, face, align):
        photo, lines = service.photo(photo), (sentences or "").splitlines()
        lines = [line for line in lines if line.strip()]
        if not lines:
            raise UserError("there is no sentence; write one a line")
        if len(lines) > _SENTENCES:
            raise UserError(f"{len(lines)} sentences; give at most {_SENTENCES}")
        found = service.model.match(photo, lines, **face_options(face, align))
        return _matches(zip(lines, found))

    private = {"api_visibility": "private", **service.busy}
    chosen = [face, align]
    tags.click(
        tag, [photo, count, seed, *chosen], table, api_name="tag", **service.busy
    )
    captions.click(caption, [photo, seed, *chosen], table, **private)
    match.click(fits, [photo, sentences, *chosen], table, **private)


def several(service: Service) -> None:
    """The same edit of many photos."""
    with gr.Row():
        with gr.Column(min_width=320):
            photos = gr.File(
                label="Photos", file_count="multiple", height=160, elem_id="photos"
            )
            text = gr.Textbox(label="Sentence", elem_id="text-of-all")
            region = gr.Dropdown(
                [_PROPOSED, *sorted(regions.REGIONS)], value="hair", label="Region",
                info=service.whose,
            )  # fmt: skip
            seen = gr.Checkbox(
                False, label="Region as seen in each photo",
                visible=service.sees_regions,
            )  # fmt: skip
            which = gr.Radio(
                list(_FACES), value="the largest", label="Faces of a photo",
                visible=service.finds_faces,
            )  # fmt: skip
            seed = gr.Number(service.seed, precision=0, label="Seed")
            run = gr.Button("Edit them all", variant="primary", elem_id="all")
        with gr.Column(min_width=320):
            packed = gr.File(label="Pictures, strips, sidecars", elem_id="zip")
            report = gr.Dataframe(
                headers=["photo", "result"], interactive=False, wrap=True,
                column_widths=["35%", "65%"], elem_id="report",
            )  # fmt: skip

    @shown_errors()
    def edit_all(photos, text, region, seed, which, seen, progress=PROGRESS):
        if not photos:
            raise UserError("there is no photo yet; upload some")
        where, by = None if region == _PROPOSED else region, None
        if seen and where:
            by = service.perception

        def edit(data):
            photo, faces = service.photo(data), _FACES[which]
            return service.model.edit(
                photo, text, region=where, seed=seed, perception=by, **faces
            )

        return work.edit_all(
            photos, edit, service.folder(), service.wait(progress, "all")
        )

    run.click(
        edit_all, [photos, text, region, seed, which, seen], [packed, report],
        api_visibility="private", **service.busy,
    )  # fmt: skip


def _word_table() -> gr.Dataframe:
    return gr.Dataframe(
        headers=["word", "score"],
        label="What fits; the model knows no names and is often wrong",
        interactive=False, wrap=True, elem_id="table",
    )  # fmt: skip


def face_options(face: float, align: bool) -> dict[str, object]:
    """Options for the face of a number, 0 for the largest, if faces are looked for."""
    return {"face": face if face and align else None, "align": align}


def _result(label="Before and after"):
    with gr.Column(min_width=320):
        slider = gr.ImageSlider(
            label=label, max_height=420, interactive=False, buttons=["fullscreen"]
        )
        files = gr.File(
            label="Picture, strip, sidecar", file_count="multiple", interactive=False
        )
    return slider, files


def _handed_out(service, edit, name):
    paths = work.files(edit, service.folder(), name)
    return (np.asarray(edit.before), paths[0]), paths


def _row(values):
    return [v if isinstance(v, str) else round(float(v), 3) for v in values]


def _matches(pairs):
    return {"headers": ["sentence", "match"], "data": [_row(p) for p in pairs]}
