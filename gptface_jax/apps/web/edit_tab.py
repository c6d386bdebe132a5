"""The tab Edit: a photo, a mask, a sentence, and what came of them."""

from __future__ import annotations

import gradio as gr
import numpy as np
import pandas as pd

from gptface_jax.apps.web import faces, work
from gptface_jax.apps.web.desk import PROGRESS, Desk, told
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, regions
from gptface_jax.pipelines import framing

_ASIDE = 6  # percent of the width, of the slider from what changed


def build(desk: Desk) -> None:
    """Puts the tab's parts into the page that is being made."""
    # The photo first, its edits that were taken on after it, each `faces.Opened`; and
    # the last variants.
    photos, edits = gr.State(()), gr.State(())
    base = gr.State()  # the mask beneath what is painted
    with gr.Row():
        with gr.Column(min_width=320):
            upload = gr.File(
                label="Photo", type="binary", file_types=["image"], height=140,
                elem_id="photo",
            )  # fmt: skip
            found = gr.Image(
                label="Faces: click the one to change", height=268, visible=False,
                interactive=False, buttons=[], elem_id="faces",
                elem_classes="below-label",
            )  # fmt: skip
            editor = gr.ImageEditor(
                label="Red may change, blue stays", type="numpy", image_mode="RGBA",
                sources=(), transforms=(), layers=False, format="png", height=460,
                brush=gr.Brush(
                    default_size=24, color_mode="fixed",
                    colors=[(c, work.OPACITY) for c in (work.RED, work.BLUE)],
                ),
                eraser=gr.Eraser(default_size=24), buttons=[], visible=False,
                elem_id="editor",
            )  # fmt: skip
            with gr.Accordion("Mask: a region, a proposal, a file", open=False):
                region = gr.Dropdown(
                    sorted(regions.REGIONS), value=None, label="Region",
                    info=desk.whose,
                    elem_id="region",
                )  # fmt: skip
                area = gr.Slider(
                    0,
                    0.6,
                    0,
                    step=0.05,
                    label="Share of the square to propose",
                    info="0: what the sentence usually takes",
                )
                propose = gr.Button("Propose from the sentence", size="sm")
                given = gr.File(
                    label="Mask file: white or opaque = change", type="binary",
                    file_types=["image"], height=140, elem_id="mask",
                )  # fmt: skip
                with gr.Row():
                    invert, grow, shrink = (
                        gr.Button(name, size="sm", min_width=70)
                        for name in ("Invert", "Grow", "Shrink")
                    )
                width = gr.Number(
                    8, precision=0, minimum=1, maximum=1000,
                    label="Pixels of the photo to grow or shrink by",
                )  # fmt: skip
                keep = gr.Button("Download the mask", size="sm", elem_id="keep")
                kept = gr.File(label="Mask", visible=False, elem_id="kept")
        with gr.Column(min_width=320):
            text = gr.Textbox(
                label="Sentence", placeholder="a woman wearing a hat", max_lines=2,
                elem_id="text",
            )  # fmt: skip
            with gr.Row():
                count = gr.Slider(1, 8, 4, step=1, label="Variants", min_width=120)
                seed = gr.Number(desk.seed, precision=0, label="Seed", min_width=90)
            with gr.Accordion("Options", open=False):
                align = gr.Checkbox(
                    True, label="Find faces", visible=desk.finds_faces, elem_id="align",
                    info="and bring them upright for the model; otherwise the middle "
                    "square is taken for an upright face",
                )  # fmt: skip
                decode = desk.model.decode
                weight = gr.Slider(
                    1, 8, decode.cfg, step=0.5, label="Weight of the sentence",
                    info="against what the model would draw without it; 1: as it is, "
                    "at half the work",
                )  # fmt: skip
                strength = gr.Slider(
                    0, 0.05, work.strength(desk.model), step=0.0025,
                    label="Guidance strength",
                    info="how far the matching gradient moves the model's parameters; "
                    "five times the work of a candidate. Each new value is compiled "
                    "first",
                )  # fmt: skip
                k = gr.Slider(
                    1, 32, min(decode.k, 32), step=1, label="k",
                    info="tokens an iteration; fewer take longer and fit better",
                )  # fmt: skip
                samples = gr.Slider(
                    1, 32, desk.model.usual_samples(decode), step=1,
                    label="Candidates of a variant", info="the best match is kept",
                )  # fmt: skip
            run = gr.Button("Edit", variant="primary", elem_id="edit")
            gallery = gr.Gallery(
                label="Variants, as the model sees them", columns=4, height="auto",
                allow_preview=False, object_fit="contain", buttons=[],
                elem_id="variants",
            )  # fmt: skip
    with gr.Row(visible=False) as outcome:
        with gr.Column(min_width=320):
            slider = gr.ImageSlider(
                label="Before and after", max_height=460, buttons=["fullscreen"],
                interactive=False, elem_id="slider",
            )  # fmt: skip
            with gr.Row():
                onward = gr.Button("Use this result as the next photo", size="sm")
                undo = gr.Button("Undo", size="sm", elem_id="undo")
            outputs = gr.File(
                label="Picture, strip, sidecar", file_count="multiple",
                interactive=False, elem_id="files",
            )  # fmt: skip
        with gr.Column(min_width=320):
            steps = gr.Image(
                label="Tokens as they were committed", type="filepath", height=300,
                interactive=False, buttons=[], elem_id="steps",
            )  # fmt: skip
            chart = gr.LinePlot(
                x="iteration", y="log p(q=1)", color="variant",
                label="How well the sentence matches, by iteration", elem_id="chart",
            )  # fmt: skip
    chosen = gr.State(0)
    results = [slider, steps, outputs, chosen, outcome]

    def shown(edits, index):
        edit, name = edits[index], f"edited-{index + 1}"
        where = desk.folder()
        paths = work.files(edit, where, name)
        moved = work.animation(edit, where, f"{name}.steps")
        pair = np.asarray(edit.before), paths[0]
        # What changed lies to the right of the slider, all of it after the edit.
        start = 100 * float(edit.mask.any(0).argmax()) / edit.mask.shape[1]
        compared = gr.ImageSlider(pair, slider_position=max(0, start - _ASIDE))
        return compared, moved, paths, index, gr.Row(visible=True)

    def canvas(photos, mask=None, region=None):
        drawn = faces.canvas(photos[-1], mask)
        return gr.ImageEditor(drawn, visible=True), mask, region

    def stage(photos, mask=None, region=None):
        """All that shows the photo that is edited next."""
        seen = photos[-1]
        outlined = faces.outlined(seen) if seen.several else None
        picture = gr.Image(outlined, visible=seen.several)
        return photos, picture, *canvas(photos, mask, region)

    def current(photos):
        return photos[-1].pixels if photos else work.pixels(desk.photo(None))

    @told()
    def load(data, align, progress=PROGRESS):
        photo = desk.opened(desk.photo(data), align, progress)
        return *stage((photo,)), (), None, gr.Row(visible=False)

    def clear():
        hidden = gr.Image(None, visible=False), gr.ImageEditor(None, visible=False)
        return (), *hidden, None, None, (), None, gr.Row(visible=False)

    @told()
    def look(photos, value, base, align, progress=PROGRESS):
        """Faces are found, or no longer looked for; what is marked stays."""
        if not photos:
            return gr.skip()
        photo = desk.opened(photos[-1].photo, align, progress)
        return stage((*photos[:-1], photo), *marks_of(photos, value, base))

    def marks_of(photos, value, base, region=None):
        """A region of the chosen face with its name; else what is marked already."""
        size = current(photos).shape[:2]
        if region is not None:
            try:
                return faces.region(desk.model, photos[-1], region), region
            except UserError as error:  # there is no face, or it ends before that
                gr.Warning(str(error))
        mask = work.marked(value, base, size)
        return (mask if mask.any() else None), None

    @told()
    def choose_face(photos, value, base, region, event: gr.SelectData):
        """A region goes to the chosen face; other marks stay where they are."""
        photos = (*photos[:-1], photos[-1].at(event.index))
        return stage(photos, *marks_of(photos, value, base, region))

    @told()
    def load_mask(photos, data):
        if data is None:
            return gr.skip()
        return canvas(photos, image_io.decode_mask(data, current(photos).shape[:2]))

    @told()
    def load_region(photos, value, base, name):
        return canvas(photos, *marks_of(photos, value, base, name))

    @told()
    def load_proposal(photos, text, area, progress=PROGRESS):
        pixels = current(photos)
        aim = faces.aim(photos[-1])
        desk.wait(progress, "propose")(0, "looking for the region")
        mask = desk.model.propose(pixels, text, area=area or None, **aim)
        return canvas(photos, mask)

    def changed(photos, value, base, **how):
        mask = work.painted(value, base, current(photos).shape[:2])
        return canvas(photos, framing.Change(**how).of(mask))

    @told()
    def inverted(photos, value, base):
        return changed(photos, value, base, invert=True)

    @told()
    def grown(photos, value, base, width):
        return changed(photos, value, base, grow=width)

    @told()
    def shrunk(photos, value, base, width):
        return changed(photos, value, base, shrink=width)

    @told()
    def save_mask(photos, value, base):
        mask = work.painted(value, base, current(photos).shape[:2])
        return gr.File(work.save_mask(mask, desk.folder()), visible=True)

    @told()
    def edit(
        photos, value, base, text, count, seed, weight, strength, k, samples,
        progress=PROGRESS,
    ):  # fmt: skip
        mask = work.painted(value, base, current(photos).shape[:2])
        say = desk.wait(progress, "edit", weight, strength, k, samples)
        options = work.steering(desk.model, weight, strength)
        options |= {"k": int(k), "samples": int(samples)}
        options |= faces.aim_at(desk.model, photos[-1], mask)
        photo = photos[-1].photo
        edits = work.variants(
            desk.model, photo, text, mask, int(count), int(seed), say, **options
        )
        for note in edits[0].details["notes"]:
            gr.Info(note)
        where = desk.folder()
        pictures = [
            (work.close_up(found, where, f"variant-{i + 1}"), work.caption(found))
            for i, found in enumerate(edits)
        ]
        best = int(np.argmax([found.final_log_prob for found in edits]))
        picked = gr.Gallery(pictures, selected_index=best)
        return edits, picked, pd.DataFrame(work.curves(edits)), *shown(edits, best)

    def as_costly(weight, strength):
        """Candidates that cost as much when steered in another way."""
        config = desk.model.decode_config(work.steering(desk.model, weight, strength))
        return desk.model.usual_samples(config)

    def choose(edits, event: gr.SelectData):
        return shown(edits, event.index)

    def take(photos, edits, index, align):
        before = photos[-1].face
        photo = faces.opened(desk.model, edits[index], align, before)
        return stage((*photos, photo))

    @told()
    def step_back(photos, align):
        if len(photos) < 2:
            raise UserError("there is nothing to undo; this is the photo itself")
        *earlier, photo = photos[:-1]
        if desk.finds_faces and align == (
            photo.faces is None
        ):  # another wish since then
            photo = faces.opened(desk.model, photo.photo, align)
        return stage((*earlier, photo))

    private = {"api_visibility": "private"}
    canvas_of, marks = [editor, base, region], [photos, editor, base]
    photo_of = [photos, found, *canvas_of]
    afresh = [*photo_of, edits, gallery, outcome]
    upload.upload(
        load, [upload, align], afresh, show_progress_on=upload, **private
    )  # the canvas may be hidden
    upload.clear(clear, None, afresh, **private)
    align.input(look, [*marks, align], photo_of, **private)
    found.select(choose_face, [*marks, region], photo_of, **private)
    given.upload(load_mask, [photos, given], canvas_of, **private)
    region.input(load_region, [*marks, region], canvas_of, **private)
    propose.click(
        load_proposal, [photos, text, area], canvas_of, **private, **desk.busy
    )
    invert.click(inverted, marks, canvas_of, **private)
    grow.click(grown, [*marks, width], canvas_of, **private)
    shrink.click(shrunk, [*marks, width], canvas_of, **private)
    keep.click(save_mask, marks, kept, **private)
    gr.on(
        [run.click, text.submit],
        edit,
        [*marks, text, count, seed, weight, strength, k, samples],
        [edits, gallery, chart, *results],
        show_progress_on=gallery,
        **private,
        **desk.busy,
    )
    for way in (weight, strength):
        way.release(as_costly, [weight, strength], samples, **private)
    gallery.select(choose, edits, results, **private)
    onward.click(take, [photos, edits, chosen, align], photo_of, **private)
    undo.click(step_back, [photos, align], photo_of, **private)
