"""The tab Edit: a photo, a mask, a sentence, and what came of them."""

from __future__ import annotations

import dataclasses

import gradio as gr

from gptface_jax.apps.web import work
from gptface_jax.apps.web.edit_events import EditEvents
from gptface_jax.apps.web.service import Service
from gptface_jax.data import regions
from gptface_jax.pipelines import strength

_PRIVATE = {"api_visibility": "private"}


@dataclasses.dataclass(frozen=True)
class _MaskTools:
    """Widgets that make a mask without painting."""

    region: gr.Dropdown
    seen: gr.Checkbox
    area: gr.Slider
    propose: gr.Button
    given: gr.File
    invert: gr.Button
    grow: gr.Button
    shrink: gr.Button
    width: gr.Number
    keep: gr.Button
    kept: gr.File


@dataclasses.dataclass(frozen=True)
class _PhotoColumn:
    """Widgets that show the photo, its faces and its mask."""

    upload: gr.File
    found: gr.Image
    editor: gr.ImageEditor
    tools: _MaskTools


@dataclasses.dataclass(frozen=True)
class _RequestColumn:
    """Widgets that say what is wanted, and show the variants of it."""

    text: gr.Textbox
    count: gr.Slider
    seed: gr.Number
    attributes: tuple[gr.Slider, ...]
    align: gr.Checkbox
    weight: gr.Slider
    strength: gr.Slider
    k: gr.Slider
    samples: gr.Slider
    run: gr.Button
    gallery: gr.Gallery


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """Widgets that show the chosen variant."""

    row: gr.Row
    slider: gr.ImageSlider
    onward: gr.Button
    undo: gr.Button
    outputs: gr.File
    steps: gr.Image
    chart: gr.LinePlot


def build(service: Service) -> None:
    """Puts the tab's widgets into the page that is being made."""
    # See `edit_events` for what these hold.
    photos, edits, base = gr.State(()), gr.State(()), gr.State()
    with gr.Row():
        with gr.Column(min_width=320):
            photo = _photo_column(service)
        with gr.Column(min_width=320):
            request = _request_column(service)
    outcome = _outcome()
    events = EditEvents(service)
    _wire_photo(events, photo, request, outcome, photos, edits, base)
    _wire_mask(events, photo, request, photos, base)
    _wire_edit(events, photo, request, outcome, photos, edits, base)


def _photo_column(service: Service) -> _PhotoColumn:
    upload = gr.File(
        label="Photo", type="binary", file_types=["image"], height=140,
        elem_id="photo",
    )  # fmt: skip
    found = gr.Image(
        label="Faces: click the one to change", height=268, visible=False,
        interactive=False, buttons=[], elem_id="faces", elem_classes="below-label",
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
        tools = _mask_tools(service)
    return _PhotoColumn(upload, found, editor, tools)


def _mask_tools(service: Service) -> _MaskTools:
    seen_only = regions.CLASSES if service.sees_regions else ()
    region = gr.Dropdown(
        sorted({*regions.REGIONS, *seen_only}), value=None, label="Region",
        info=service.whose, elem_id="region",
    )  # fmt: skip
    seen = gr.Checkbox(
        service.sees_regions, label="As seen in this photo", elem_id="seen",
        visible=service.sees_regions,
        info="otherwise by the mesh of the face, which is wider",
    )  # fmt: skip
    area = gr.Slider(
        0, 0.6, 0, step=0.05, label="Share of the square to propose",
        info="0: what the sentence usually takes",
    )  # fmt: skip
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
    return _MaskTools(
        region, seen, area, propose, given, invert, grow, shrink, width, keep, kept
    )


def _request_column(service: Service) -> _RequestColumn:
    text = gr.Textbox(
        label="Sentence", placeholder="a woman wearing a hat", max_lines=2,
        elem_id="text", info="may be left out where attributes are turned up or down",
    )  # fmt: skip
    with gr.Accordion("Attributes: less or more", open=False, elem_id="attributes"):
        attributes = _attributes(service)
    with gr.Row():
        count = gr.Slider(1, 8, 4, step=1, label="Variants", min_width=120)
        seed = gr.Number(service.seed, precision=0, label="Seed", min_width=90)
    with gr.Accordion("Options", open=False):
        align, weight, guidance, k, samples = _options(service)
    run = gr.Button("Edit", variant="primary", elem_id="edit")
    gallery = gr.Gallery(
        label="Variants, as the model sees them", columns=4, height="auto",
        allow_preview=False, object_fit="contain", buttons=[],
        elem_id="variants",
    )  # fmt: skip
    return _RequestColumn(
        text, count, seed, attributes, align, weight, guidance, k, samples, run, gallery
    )


def _attributes(service: Service) -> tuple[gr.Slider, ...]:
    """A slider for each attribute that the model's card tells of."""
    gr.Markdown(
        "0 leaves what the model paints anyway; beyond 2 pictures suffer. Where "
        "nothing is marked, what may change is where these attributes show."
    )
    with gr.Row():
        return tuple(
            gr.Slider(
                -strength.LIMIT, strength.LIMIT, 0, step=0.25, min_width=220,
                label=name.replace("_", " ").capitalize(),
            )
            for name in service.model.attributes
        )  # fmt: skip


def _options(service: Service) -> tuple[gr.Checkbox, *tuple[gr.Slider, ...]]:
    """(align, weight, strength of the guidance, k, samples)."""
    model, decode = service.model, service.model.decode
    align = gr.Checkbox(
        True, label="Find faces", visible=service.finds_faces, elem_id="align",
        info="and bring them upright for the model; otherwise the middle square is "
        "taken for an upright face",
    )  # fmt: skip
    weight = gr.Slider(
        1, 8, decode.cfg, step=0.5, label="Weight of the sentence",
        info="against what the model would draw without it; 1: as it is, at half the "
        "work",
    )  # fmt: skip
    guidance = gr.Slider(
        0, 0.05, work.strength(model), step=0.0025, label="Guidance strength",
        info="how far the matching gradient moves the model's parameters; five times "
        "the work of a candidate. Each new value is compiled first",
    )  # fmt: skip
    k = gr.Slider(
        1, 32, min(decode.k, 32), step=1, label="k",
        info="tokens an iteration; fewer take longer and fit better",
    )  # fmt: skip
    samples = gr.Slider(
        1, 32, model.default_candidates(decode), step=1,
        label="Candidates of a variant", info="the best match is kept",
    )  # fmt: skip
    return align, weight, guidance, k, samples


def _outcome() -> _Outcome:
    with gr.Row(visible=False) as row:
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
    return _Outcome(row, slider, onward, undo, outputs, steps, chart)


def _wire_photo(events, photo, request, outcome, photos, edits, base) -> None:
    """Uploads and faces."""
    region, align = photo.tools.region, request.align
    named = [region, photo.tools.seen]
    marks = [photos, photo.editor, base]
    stage = [photos, photo.found, photo.editor, base, region]
    afresh = [*stage, edits, request.gallery, outcome.row]
    photo.upload.upload(
        events.load, [photo.upload, align], afresh, show_progress_on=photo.upload,
        **_PRIVATE,
    )  # fmt: skip
    # Progress is shown on the upload, for the canvas may be hidden.
    photo.upload.clear(events.clear, None, afresh, **_PRIVATE)
    align.input(events.look, [*marks, align], stage, **_PRIVATE)
    photo.found.select(events.choose_face, [*marks, *named], stage, **_PRIVATE)


def _wire_mask(events, photo, request, photos, base) -> None:
    """Masks that are made without painting."""
    tools = photo.tools
    marks = [photos, photo.editor, base]
    canvas = [photo.editor, base, tools.region]
    tools.given.upload(events.load_mask, [photos, tools.given], canvas, **_PRIVATE)
    named = [tools.region, tools.seen]
    for part in named:
        part.input(events.load_region, [*marks, *named], canvas, **_PRIVATE)
    tools.propose.click(
        events.load_proposal, [photos, request.text, tools.area], canvas, **_PRIVATE,
        **events.service.busy,
    )  # fmt: skip
    tools.invert.click(events.inverted, marks, canvas, **_PRIVATE)
    tools.grow.click(events.grown, [*marks, tools.width], canvas, **_PRIVATE)
    tools.shrink.click(events.shrunk, [*marks, tools.width], canvas, **_PRIVATE)
    tools.keep.click(events.save_mask, marks, tools.kept, **_PRIVATE)


def _wire_edit(events, photo, request, outcome, photos, edits, base) -> None:
    """Edits, and the choice among their variants."""
    chosen = gr.State(0)
    stage = [photos, photo.found, photo.editor, base, photo.tools.region]
    results = [outcome.slider, outcome.steps, outcome.outputs, chosen, outcome.row]
    steered = [request.weight, request.strength, request.k, request.samples]
    steered += request.attributes
    gr.on(
        [request.run.click, request.text.submit],
        events.edit,
        [photos, photo.editor, base, request.text, request.count, request.seed]
        + steered,
        [edits, request.gallery, outcome.chart, *results],
        show_progress_on=request.gallery,
        **_PRIVATE,
        **events.service.busy,
    )
    for way in (request.weight, request.strength):
        ways = [request.weight, request.strength]
        way.release(events.as_costly, ways, request.samples, **_PRIVATE)
    request.gallery.select(events.choose, edits, results, **_PRIVATE)
    outcome.onward.click(
        events.take, [photos, edits, chosen, request.align], stage, **_PRIVATE
    )
    outcome.undo.click(events.step_back, [photos, request.align], stage, **_PRIVATE)
