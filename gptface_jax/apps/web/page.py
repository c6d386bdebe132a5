"""The page: its tabs, and the JSON API beside them."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.exceptions import InvalidPathError

from gptface_jax.apps.web import (
    edit_tab,
    face3d_tab,
    faces,
    perception_tab,
    refusals,
    sequence_tabs,
    tabs,
    work,
)
from gptface_jax.apps.web.service import Service, shown_errors
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io

_HEAD = "# GPTFace\n"
_RESPONSIBLE = (
    "Faces are personal: edit your own pictures or those of people who agree, and do "
    "not deceive. Every result says in its metadata that it was edited, and nothing "
    "here identifies people. Uploads are kept for an hour at most."
)
# Method that a model needs -> (name, tab, what it is good for).
_TABS = {
    "edit": ("Edit", edit_tab.build, "Change a face photo with a sentence: mark a "
             "region, say what to see."),
    "inpaint": ("Move", tabs.move, ""),
    "restore": ("Restore", tabs.restore, ""),
    "stitch": ("Stitch", tabs.stitch, ""),
    "tag": ("Describe", tabs.describe, ""),
    "ask": ("Ask", sequence_tabs.ask, "Ask a face photo what can be seen."),
    "synthesize": ("Draw", sequence_tabs.draw, "Draw faces after a sentence."),
    "perceive": ("See", perception_tab.build, "See what a face photo shows."),
    "face3d": ("3D", face3d_tab.build, "Make a 3D head of a photo or a sentence."),
    "steps": ("Several photos", tabs.several, ""),
}  # fmt: skip
CSS = """
.gradio-container { width: 100%; max-width: 1280px; margin: 0 auto }
.gradio-container { overflow: clip !important } /* sticky needs a page that scrolls */
#variants .grid-wrap { min-height: 0 !important }
#variants .grid-wrap { margin-top: 20px }
#variants .thumbnail-item { aspect-ratio: auto }
#variants .thumbnail-item img { aspect-ratio: 1; height: auto }
#variants .caption-label { position: static; max-width: none; border-width: 0 }
#head { position: sticky; top: 0; z-index: 5; background: var(--body-background-fill) }
.below-label .image-container { margin-top: 28px; height: calc(100% - 28px) }
.below-label .icon-button-wrapper { display: none }
@media (max-width: 600px) {
  .gradio-container main { padding: 12px !important }
  #editor [data-testid=block-label] { top: 28px }
  #variants .grid-container { grid-template-columns: repeat(2, 1fr) !important }
}
"""


class Page(gr.Blocks):
    """Blocks that fetch nothing, for a request may name its own uploads only, that take
    no value of another type for a text or a number, and whose errors say something.

    What a request leaves out, at its end or by name, is as the page begins.
    """

    async def preprocess_data(self, block_fn, inputs, *rest: Any, **options: Any):
        refusals.refuse_links(inputs)
        left_out = block_fn.inputs[len(inputs) :]
        inputs = [*inputs, *(getattr(part, "value", None) for part in left_out)]
        with shown_errors():
            inputs = refusals.of_their_types(block_fn.fn, block_fn.inputs, inputs)
        try:
            return await super().preprocess_data(block_fn, inputs, *rest, **options)
        except (ValueError, OSError) as error:
            reason = error.__cause__ or error  # gradio wraps what a component says
            if not isinstance(reason, (FileNotFoundError, InvalidPathError)):
                raise
            raise gr.Error(work.GONE, print_exception=False) from None

    async def process_api(self, *given: Any, **options: Any):
        try:
            return await super().process_api(*given, **options)
        except gr.Error:
            raise
        except Exception as error:  # gradio would answer null
            raise gr.Error("an unexpected failure; the server's log has it") from error

    def get_api_info(self, *rest: Any, **options: Any):
        info = super().get_api_info(*rest, **options)
        for endpoint in info["named_endpoints"].values():
            for parameter in endpoint["parameters"]:
                if not parameter["parameter_has_default"]:  # null is as it begins
                    parameter["parameter_has_default"] = True
        return info


def build(service: Service) -> gr.Blocks:
    """The whole page, for a model and its limits.

    Raises:
      UserError: a model that does nothing that there is a tab for.
    """
    able = [tab for method, tab in _TABS.items() if hasattr(service.model, method)]
    if not able:
        raise UserError(
            f"there is no page for a {type(service.model).__name__}; use its verbs"
        )
    page = Page(title="GPTFace", analytics_enabled=False)
    with page:
        if hasattr(service.model, "edit"):
            _api(service)  # first, for of two events of a name the first one keeps it
        gr.Markdown(_HEAD + " ".join(purpose for *_, purpose in able if purpose))
        for name, build_tab, _ in able:
            with gr.Tab(name):
                build_tab(service)
        gr.Markdown(_RESPONSIBLE)
    return page


def _api(service: Service) -> None:
    """Edits without the page's state; the other verbs are their tabs'."""
    model = service.model

    def number(value, label, least, most, **options):
        return gr.Number(value, label=label, minimum=least, maximum=most, **options)

    with gr.Group(visible=False):
        photo, mask = (gr.File(label=name, type="binary") for name in ("photo", "mask"))
        text, region = gr.Textbox(label="text"), gr.Textbox(label="region")
        weight = number(model.decode.cfg, "weight", 0, 16)
        strength = gr.JSON({}, label="strength")
        guidance = number(work.strength(model), "step_size", 0, 1)
        k = number(model.decode.k, "k", 1, 64, precision=0)
        seed = gr.Number(service.seed, precision=0, label="seed")
        samples = number(0, "samples", 0, 32, precision=0)
        area = number(0, "area", 0, 1)
        faced = gr.Textbox("", label="face")
        face = number(0, "face", 0, 64, precision=0)
        align = gr.Checkbox(True, label="align")
        perceived = gr.Checkbox(False, label="perceived")
        files = gr.File(label="picture, strip, sidecar", file_count="multiple")
        proposed = gr.File(label="mask, white = change")
        edits, proposes, fills = gr.Button(), gr.Button(), gr.Button()

    steered = [weight, strength, k, seed, samples]
    edits.click(
        _edit_endpoint(service),
        [photo, text, mask, region, *steered, faced, align, guidance, perceived],
        files, api_name="edit", **service.busy,
    )  # fmt: skip
    fills.click(
        _inpaint_endpoint(service), [photo, mask, region, k, seed, faced, align],
        files, api_name="inpaint", **service.busy,
    )  # fmt: skip
    proposes.click(
        _propose_endpoint(service), [photo, text, area, face, align], proposed,
        api_name="propose", **service.busy,
    )  # fmt: skip


def _edit_endpoint(service: Service):
    """The function behind /edit. Its docstring is that of the API."""

    @shown_errors()
    def edit(
        photo, text, mask, region, weight, strength, k, seed, samples, face, align,
        step_size, perceived,
    ):  # fmt: skip
        """Changes a region of a photo so that a sentence fits it.

        Give a mask (white or opaque = change) or the name of a region; without both
        the model proposes one. A weight above 1 exaggerates what the sentence changes.
        A strength like {"Smiling": 2, "Eyeglasses": -3} turns attributes up or down,
        from -4 to 4, beside the sentence or without one (text ""), without a mask
        where they show. With a step_size above 0 the matching gradient guides: it moves
        the model's parameters by that share of their norm (a number as strength means
        the same). With 0 samples there are as many
        candidates as 16 passes of the model an iteration pay for. The face is the
        largest, or that of a number, from 1 on by the left edge, or "all". Without
        align none is looked for: the middle square is taken for an upright face.
        perceived: the region is where the server's perception model, if it has one,
        sees it in this photo, and no wider.
        """
        photo = service.photo(photo)
        turned, guidance = work.strengths(strength)
        options = {"k": k, "seed": seed, "strength": turned, "samples": samples or None}
        if (text or "").strip():
            guidance = step_size if guidance is None else guidance
            options |= work.steering(service.model, weight, guidance)
        options |= {"face": faces.number(face), "align": align}
        if perceived and not service.sees_regions:
            raise UserError(
                "this server has no model that sees regions; leave perceived out, or "
                "start it with --perception"
            )
        if perceived:
            options["perception"] = service.perception
        if mask is not None:
            options["mask"] = image_io.decode_mask(mask, photo.size[::-1])
        edit = service.model.edit(photo, text, region=region or None, **options)
        return work.files(edit, service.folder(), "edited")

    return edit


def _inpaint_endpoint(service: Service):
    """The function behind /inpaint. Its docstring is that of the API."""

    @shown_errors()
    def inpaint(photo, mask, region, k, seed, face, align):
        """Fills a region of a photo without a sentence: a mask, or a region's name.

        See edit.
        """
        photo = service.photo(photo)
        options = {"k": k, "seed": seed, "face": faces.number(face), "align": align}
        if mask is not None:
            options["mask"] = image_io.decode_mask(mask, photo.size[::-1])
        edit = service.model.inpaint(photo, region=region or None, **options)
        return work.files(edit, service.folder(), "filled")

    return inpaint


def _propose_endpoint(service: Service):
    """The function behind /propose. Its docstring is that of the API."""

    @shown_errors()
    def propose(photo, text, area, face, align):
        """Where a sentence wants a photo changed: a mask of the photo's size.

        With area 0 as much as the sentence usually takes, with face 0 of the largest;
        see edit.
        """
        options = {"area": area or None, "face": face or None, "align": align}
        mask = service.model.propose(service.photo(photo), text, **options)
        return work.save_mask(mask, service.folder())

    return propose
