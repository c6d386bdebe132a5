"""The page: its tabs, and the JSON API beside them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gptface_jax.apps.web import edit_tab, tabs, work
from gptface_jax.apps.web.desk import Desk, told
from gptface_jax.core import arguments
from gptface_jax.data import image as images

_HEAD = (
    "# GPTFace\nChange a face photo with a sentence: mark a region, say what to see."
)
_RESPONSIBLE = (
    "Faces are personal: edit your own pictures or those of people who agree, and do "
    "not deceive. Every result says in its metadata that it was edited, and nothing "
    "here identifies people. Uploads are kept for an hour at most."
)
_TABS = {
    "Edit": edit_tab.build,
    "Restore": tabs.restore,
    "Stitch": tabs.stitch,
    "Describe": tabs.describe,
    "Several photos": tabs.several,
}
_TYPES = {gr.Textbox: str, (gr.Number, gr.Slider): float, gr.Checkbox: bool}
CSS = """
.gradio-container { width: 100%; max-width: 1280px; margin: 0 auto }
#variants .grid-wrap { min-height: 0 !important }
@media (max-width: 600px) {
  .gradio-container main { padding: 12px !important }
  #variants .grid-container { grid-template-columns: repeat(2, 1fr) !important }
}
"""


class Page(gr.Blocks):
    """Blocks that fetch nothing, for a request may name its own uploads only, and that
    take no value of another type for a text or a number."""

    async def preprocess_data(self, block_fn, inputs, *rest: Any, **options: Any):
        refuse_links(inputs)
        with told():
            inputs = [
                *map(of_its_type, block_fn.inputs, inputs),
                *inputs[len(block_fn.inputs) :],
            ]
        return await super().preprocess_data(block_fn, inputs, *rest, **options)


def of_its_type(block: gr.Block, value: Any) -> Any:
    """A text or number of a request; null and NaN are what the block begins with.

    Raises:
      UserError: something else, which gradio would turn into a text or fail at.
    """
    for kinds, hint in _TYPES.items():
        if isinstance(block, kinds):
            hint = int if getattr(block, "precision", None) == 0 else hint
            value = arguments.typed(block.label, value, hint | None)
            return block.value if value is None else value
    return value


def refuse_links(value: Any) -> None:
    """Raises where files of a request lie on another server, which gradio would ask."""
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and "://" in path:
            raise gr.Error("a link is no upload; send the file", print_exception=False)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            refuse_links(part)


def build(desk: Desk) -> gr.Blocks:
    """The whole page, for a model and its limits."""
    page = Page(title="GPTFace", analytics_enabled=False)
    with page:
        _api(desk)  # first, for of two events of a name the first one keeps it
        gr.Markdown(_HEAD)
        for name, build_tab in _TABS.items():
            with gr.Tab(name):
                build_tab(desk)
        gr.Markdown(_RESPONSIBLE)
    return page


def _api(desk: Desk) -> None:
    """Edit and propose without the page's state; the other verbs are their tabs'."""

    def number(value, label, least, most, **options):
        return gr.Number(value, label=label, minimum=least, maximum=most, **options)

    with gr.Group(visible=False):
        photo, mask = (gr.File(label=name, type="binary") for name in ("photo", "mask"))
        text, region = gr.Textbox(label="text"), gr.Textbox(label="region")
        weight = number(desk.model.decode.cfg, "weight", 0, 16)
        strength = number(work.strength(desk.model), "strength", 0, 1)
        k = number(desk.model.decode.k, "k", 1, 64, precision=0)
        seed = gr.Number(desk.seed, precision=0, label="seed")
        samples = number(0, "samples", 0, 32, precision=0)
        area = number(None, "area", 0, 1)
        files = gr.File(label="picture, strip, sidecar", file_count="multiple")
        proposed = gr.File(label="mask, white = change")
        edits, proposes = gr.Button(), gr.Button()

    @told()
    def edit(photo, text, mask, region, weight, strength, k, seed, samples):
        """Changes a region of a photo so that a sentence fits it.

        Give a mask (white or opaque = change) or the name of a region; without both
        the model proposes one. A weight above 1 exaggerates what the sentence changes.
        With a strength above 0 the matching gradient guides: it moves the model's
        parameters by that share of their norm. With 0 samples there are as many
        candidates as 16 passes of the model an iteration pay for.
        """
        photo = desk.photo(photo)
        options = work.steering(desk.model, weight, strength)
        options |= {"k": k, "seed": seed, "samples": samples or None}
        if mask is not None:
            options["mask"] = images.decode_mask(mask, photo.size[::-1])
        edit = desk.model.edit(photo, text, region=region or None, **options)
        return work.files(edit, desk.folder(), "edited")

    @told()
    def propose(photo, text, area):
        """Where a sentence wants a photo changed: a mask of the photo's size."""
        mask = desk.model.propose(desk.photo(photo), text, area=area or None)
        return work.save_mask(mask, desk.folder())

    edits.click(
        edit, [photo, text, mask, region, weight, strength, k, seed, samples], files,
        api_name="edit", **desk.busy,
    )  # fmt: skip
    proposes.click(
        propose, [photo, text, area], proposed, api_name="propose", **desk.busy
    )
