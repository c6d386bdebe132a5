"""What the events of the tab Edit do: functions of its widgets' values.

A photo is a `faces.Opened`; `photos` holds the first one and, after it, the edits of it
that were taken on. `base` is the mask beneath what is painted, `value` what the editor
of the mask holds, `edits` the last variants.
"""

from __future__ import annotations

import dataclasses

import gradio as gr
import numpy as np
import pandas as pd

from gptface_jax.apps.web import faces, work
from gptface_jax.apps.web.service import PROGRESS, Service, shown_errors
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io
from gptface_jax.pipelines import framing

_ASIDE = 6  # percent of the width, of the slider from what changed


@dataclasses.dataclass(frozen=True)
class EditEvents:
    """Functions for the events of the tab, each giving new values for its widgets.

    Attributes:
      service: the model that answers.
    """

    service: Service

    # Values of several widgets at once.

    def canvas(self, photos, mask=None, region=None):
        """The editor of the mask, the mask beneath it and the name of its region."""
        drawn = faces.canvas(photos[-1], mask)
        return gr.ImageEditor(drawn, visible=True), mask, region

    def stage(self, photos, mask=None, region=None):
        """Photos, faces and `canvas`: all that shows the photo that is edited next."""
        seen = photos[-1]
        outlined = faces.outlined(seen) if seen.several else None
        picture = gr.Image(outlined, visible=seen.several)
        return photos, picture, *self.canvas(photos, mask, region)

    def results(self, edits, index):
        """Slider, animation, files, index and row of one of the variants."""
        edit, name = edits[index], f"edited-{index + 1}"
        where = self.service.folder()
        paths = work.files(edit, where, name)
        moved = work.animation(edit, where, f"{name}.steps")
        pair = np.asarray(edit.before), paths[0]
        # What changed lies to the right of the slider, all of it after the edit.
        start = 100 * float(edit.mask.any(0).argmax()) / edit.mask.shape[1]
        compared = gr.ImageSlider(pair, slider_position=max(0, start - _ASIDE))
        return compared, moved, paths, index, gr.Row(visible=True)

    def pixels(self, photos) -> np.ndarray:
        """Pixels of the photo that is edited next.

        Raises:
          UserError: none was uploaded.
        """
        if photos:
            return photos[-1].pixels
        return work.pixels(self.service.photo(None))

    # The photo and its faces.

    @shown_errors()
    def load(self, data, align, progress=PROGRESS):
        """An upload: it is the only photo, and nothing of another one stays."""
        photo = self.service.opened(self.service.photo(data), align, progress)
        return *self.stage((photo,)), (), None, gr.Row(visible=False)

    def clear(self):
        hidden = gr.Image(None, visible=False), gr.ImageEditor(None, visible=False)
        return (), *hidden, None, None, (), None, gr.Row(visible=False)

    @shown_errors()
    def look(self, photos, value, base, align, progress=PROGRESS):
        """Faces are found, or no longer looked for; what is marked stays."""
        if not photos:
            return gr.skip()
        photo = self.service.opened(photos[-1].photo, align, progress)
        return self.stage((*photos[:-1], photo), *self.marks_of(photos, value, base))

    @shown_errors()
    def choose_face(self, photos, value, base, region, seen, event: gr.SelectData):
        """A region goes to the chosen face; other marks stay where they are."""
        photos = (*photos[:-1], photos[-1].at(event.index))
        return self.stage(photos, *self.marks_of(photos, value, base, region, seen))

    # The mask.

    def marks_of(self, photos, value, base, region=None, seen=False):
        """(mask, region): of the chosen face by its name; else what is marked already.

        The mask is None where nothing is marked. `seen`: as the photo itself shows it.
        """
        size, by = self.pixels(photos).shape[:2], None
        if seen:
            by = self.service.perception
        if region is not None:
            try:
                mask, notes = faces.region(self.service.model, photos[-1], region, by)
                for note in notes:
                    gr.Info(note)
                return mask, region
            except UserError as error:  # there is no face, or it ends before that
                gr.Warning(str(error))
        mask = work.marked(value, base, size)
        return (mask if mask.any() else None), None

    @shown_errors()
    def load_mask(self, photos, data):
        if data is None:
            return gr.skip()
        size = self.pixels(photos).shape[:2]
        return self.canvas(photos, image_io.decode_mask(data, size))

    @shown_errors()
    def load_region(self, photos, value, base, name, seen):
        if name is None:  # how it is found was changed before one was chosen
            return gr.skip()
        return self.canvas(photos, *self.marks_of(photos, value, base, name, seen))

    @shown_errors()
    def load_proposal(self, photos, text, area, progress=PROGRESS):
        pixels = self.pixels(photos)
        aim = faces.aim(photos[-1])
        self.service.wait(progress, "propose")(0, "looking for the region")
        mask = self.service.model.propose(pixels, text, area=area or None, **aim)
        return self.canvas(photos, mask)

    def changed(self, photos, value, base, **how):
        """`canvas` with the mask changed, see `framing.Change`."""
        mask = work.painted(value, base, self.pixels(photos).shape[:2])
        return self.canvas(photos, framing.Change(**how).of(mask))

    @shown_errors()
    def inverted(self, photos, value, base):
        return self.changed(photos, value, base, invert=True)

    @shown_errors()
    def grown(self, photos, value, base, width):
        return self.changed(photos, value, base, grow=width)

    @shown_errors()
    def shrunk(self, photos, value, base, width):
        return self.changed(photos, value, base, shrink=width)

    @shown_errors()
    def save_mask(self, photos, value, base):
        mask = work.painted(value, base, self.pixels(photos).shape[:2])
        return gr.File(work.save_mask(mask, self.service.folder()), visible=True)

    # The edit and its variants.

    @shown_errors()
    def edit(
        self, photos, value, base, text, count, seed, weight, strength, k, samples,
        progress=PROGRESS, *attributes,
    ):  # fmt: skip
        """The variants of an edit, the best of them chosen.

        `attributes` are the strengths of the model's, in their order.
        """
        service, photo = self.service, photos[-1] if photos else None
        text = (text or "").strip()
        turned = {a: w for a, w in zip(service.model.attributes, attributes) if w}
        mask = work.marked(value, base, self.pixels(photos).shape[:2])
        if not turned and not mask.any():
            mask = work.painted(value, base, mask.shape)  # says what to do
        say = service.wait(
            progress, "edit", weight, strength, k, samples, bool(text), len(turned)
        )
        options = {"k": int(k), "strength": turned or None}
        if text:
            options |= work.steering(service.model, weight, strength)
            options["samples"] = int(samples)
        if mask.any():
            options |= faces.aim_at(service.model, photo, mask)
        else:
            mask, options = None, options | faces.aim(photo)
        edits = work.variants(
            service.model, photo.photo, text, mask, int(count), int(seed), say,
            **options,
        )  # fmt: skip
        for note in edits[0].details["notes"]:
            gr.Info(note)
        where = service.folder()
        pictures = [
            (work.close_up(found, where, f"variant-{i + 1}"), work.caption(found))
            for i, found in enumerate(edits)
        ]
        # Without a sentence none is the best.
        matches = [found.final_log_prob if found.text else 0.0 for found in edits]
        best = int(np.argmax(matches))
        picked = gr.Gallery(pictures, selected_index=best)
        curves = pd.DataFrame(work.curves(edits))
        curves = gr.LinePlot(curves, visible=not curves.empty)  # empty without a text
        return edits, picked, curves, *self.results(edits, best)

    def as_costly(self, weight, strength):
        """Number of candidates that cost as much when steered in another way."""
        model = self.service.model
        config = model.decode_config(work.steering(model, weight, strength))
        return model.default_candidates(config)

    def choose(self, edits, event: gr.SelectData):
        return self.results(edits, event.index)

    def take(self, photos, edits, index, align):
        """The chosen variant is edited next."""
        before = photos[-1].face
        photo = faces.opened(self.service.model, edits[index], align, before)
        return self.stage((*photos, photo))

    @shown_errors()
    def step_back(self, photos, align):
        """The photo before the last one that was taken on."""
        if len(photos) < 2:
            raise UserError("there is nothing to undo; this is the photo itself")
        *earlier, photo = photos[:-1]
        # Whether faces are wanted may have changed since that photo was opened.
        if self.service.finds_faces and align == (photo.faces is None):
            photo = faces.opened(self.service.model, photo.photo, align)
        return self.stage((*earlier, photo))
