"""Edit a photo in a few lines; what `gptface_jax.load` returns."""

from __future__ import annotations

import functools
import importlib
import os
import pathlib
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.apps import verbs
from gptface_jax.core import compiled
from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import image_io
from gptface_jax.experiments import gptface_run, opening
from gptface_jax.experiments.gptface_run import check_pair, learnt_frame, learnt_options
from gptface_jax.interop import directory
from gptface_jax.pipelines import captioning, networks, region_proposal, synthesis
from gptface_jax.pipelines import edit as editing
from gptface_jax.pipelines.compositing import BORDERS
from gptface_jax.pipelines.editing_model import EditingModel, decode_options
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.perception import PerceptionModel
from gptface_jax.pipelines.results import Edit, Samples, outputs, save_with_sidecar
from gptface_jax.pipelines.rows import Steps
from gptface_jax.pipelines.stitch import SEAMS
from gptface_jax.pipelines.user_input import key_of
from gptface_jax.pipelines.views import Box

__all__ = [
    "BORDERS", "Box", "Edit", "Face", "Model", "SEAMS", "Samples", "check_pair",
    "decode_options", "learnt_frame", "learnt_options", "load", "open_model", "outputs",
    "save_with_sidecar",
]  # fmt: skip


class Model(verbs.Facade, EditingModel):
    """A trained editor and all that it does with photos; see `EditingModel`."""

    def edit(
        self, image: image_io.Source | Edit, text: str = "",
        mask: image_io.Source | None = None, *,
        strength: Mapping[str, float] | None = None,
        expression: Mapping[str, float] | None = None,
        turn: Mapping[str, float] | None = None, paint: str = editing.PAINTS[0],
        box: Box | None = None,
        region: str | None = None, crop: Box | None = None, seed: int = 0,
        samples: int | None = None, composite: bool = True, feather: int | None = None,
        borders: int = BORDERS, grow: int = 0, area: float | None = None,
        face: int | str | Face | None = None, align: bool = True,
        invert_mask: bool = False, mask_grow: int = 0, mask_shrink: int = 0,
        perception: str | os.PathLike | PerceptionModel | None = None,
        keep_location: bool = False, **decode: Any,
    ) -> Edit:  # fmt: skip
        """The photo with a region changed so that a sentence fits it.

        The face is found, brought upright, edited and carried back. Without a mask, box
        or region the model proposes one, see `propose`; with strengths it takes the
        regions in which the attributes show.

        Args:
          image: path, encoded bytes, PIL image, uint8 array [H,W,3], or an Edit to go
            on from; what the details of an edited photo say of it goes into "chain".
          text: the sentence; "" with strengths alone.
          strength: of attributes, beside the sentence or without one (SPEC E.15):
            {"Smiling": 2, "Eyeglasses": -3}, each from -4, away from it, to 4; 0
            leaves what the model paints anyway, and no region follows from it beside
            others. `pipelines.strength.ATTRIBUTES` are
            known.
          expression: shapes added to the expression of a face, -1 to 1, by ARKit's
            names: {"mouthSmile": 0.8, "jawOpen": 0.2}; `_L` and `_R` are the subject's
            sides. A head is fitted to the face, moved, and the photo bent along.
          turn: degrees by which it turns, up to 20: {"yaw": 10, "pitch": -5}.
          paint: what the model then draws: "revealed", what the photo did not show,
            such as the inside of a mouth; or "moved", all that moves, near to the photo
            as it is bent.
          mask: picture of the photo's size, white = may change.
          box: (x0, y0, x1, y1) in pixels, instead of a mask.
          region: a name of `data.regions.REGIONS`, or several ("mouth+eyes"), instead
            of a mask. "span:0.4" and "random:0.4" hide 40 % of what the model sees by
            chance, in one piece or scattered.
          crop: square (x0, y0, x1, y1) that the model sees, filled by an upright face;
            default the face that is found, brought upright, or for a mask or box that
            lies on none the central square or one around it.
          seed: of the random choices; the same seed gives the same edit.
          samples: candidates; the one that fits the text best is returned. Default
            what 16 forward passes an iteration pay for, see `default_candidates`.
          composite: paste the edit into the photo inside the mask only;
            otherwise the crop is the raw decode (the paper's way).
          feather: soft edge inside the mask, in pixels; default 1/32 of the crop.
          borders: levels of 255 by which colours within the mask are shifted at most to
            meet those around it; 0 where the mask leaves a rim of what is to go.
          grow: tokens by which the mask is enlarged for the model (not for the
            compositing).
          area: share of the crop that a proposed region takes, see `propose`; only
            where the model proposes one.
          face: which one where there are several, from 1 on by their left edge, one of
            `faces`, or "all", one after the other; default the largest.
          align: find the face and bring it upright; otherwise the central square is
            taken for an upright face.
          invert_mask: what the mask, box or region leaves out may change instead.
          mask_grow, mask_shrink: pixels of the photo by which it is then enlarged and
            after that made smaller on all sides, for the compositing too.
          perception: a Faceptor that tells parts, as `load` opened it, its name or
            folder: the region is where it sees it in this photo, to the pixel, and no
            wider; "lips", "skin", "earrings" and "necklace" are regions as well. What
            it does not see lies where it usually does, with a note.
          keep_location: a written result says where the photo was taken, if the photo
            does (EXIF GPS); otherwise that alone of its EXIF is left out.
          **decode: fields of `DecodeConfig`, e.g. step_size=0.02, k=4.

        Raises:
          UserError: a picture, mask, text or option that cannot be used.
        """
        return self._run("edit", locals())

    def inpaint(
        self, image: image_io.Source | Edit, mask: image_io.Source | None = None, *,
        box: Box | None = None, region: str | None = None, crop: Box | None = None,
        seed: int = 0, composite: bool = True, feather: int | None = None,
        borders: int = BORDERS, grow: int = 0, face: int | str | Face | None = None,
        align: bool = True, invert_mask: bool = False, mask_grow: int = 0,
        mask_shrink: int = 0,
        perception: str | os.PathLike | PerceptionModel | None = None,
        keep_location: bool = False, **decode: Any,
    ) -> Edit:  # fmt: skip
        """The photo with a region filled without a text; arguments as for `edit`."""
        return self._run("inpaint", locals())

    def restore(
        self, image: image_io.Source | Edit, damage: image_io.Source | None = None, *,
        kind: str = "both", thin: float = 1.0, paint: str = "damage", seed: int = 0,
        invert_mask: bool = False, mask_grow: int = 0, mask_shrink: int = 0,
        keep_location: bool = False, **decode: Any,
    ) -> Edit:  # fmt: skip
        """The photo with its scratches and cracks painted over.

        Thin ones are closed smoothly (`data.damage.fill`), which keeps more of the
        photo than tokens can; the model draws the wide ones. A photo that is not square
        is restored in several squares, which overlap.

        Args:
          image: see `edit`.
          damage: picture of the photo's size, white = damaged; default what
            `data.damage.scratches` finds.
          kind: "bright", "dark" or "both", where the damage is to be found.
          thin: widths up to so many tokens are closed smoothly; 0 leaves everything to
            the model, as in the paper.
          paint: "damage" changes damaged pixels only; "tokens" all that the model
            drew, which hides what is left of wide scratches.
          invert_mask, mask_grow, mask_shrink: of the damage, see `edit`.
          seed, keep_location, **decode: see `edit`.

        Raises:
          UserError: no damage is found, or an argument that cannot be used.
        """
        return self._run("restore", locals())

    def stitch(
        self, first: image_io.Source | Edit, second: image_io.Source, *,
        seam: str | image_io.Source = "vertical", at: float = 0.5, band: float = 1.0,
        colours: bool = True, text: str = "", seed: int = 0, samples: int = 1,
        keep_location: bool = False, **decode: Any,
    ) -> Edit:  # fmt: skip
        """Two photos joined, what lies along the seam drawn by the model.

        Args:
          first: gives the size, what is kept of its file, and everything on its own
            side of the seam.
          second: resized to the first; it should show a face in the same place.
          seam: "vertical" (first on the left), "horizontal" (first on top), or a
            picture of the first's size, white = of the second.
          at: where a straight seam lies, as a fraction of the side.
          band: width of what is drawn anew, in tokens.
          colours: give the second photo the colours that the first has along the seam;
            if the first is grey or toned, its tone.
          text: a sentence to follow, with guidance; default none.
          seed, samples, keep_location, **decode: see `edit`.

        Raises:
          UserError: photos or options that cannot be used.
        """
        return self._run("stitch", locals())

    def steps(self, verb: str, values: Mapping[str, Any]) -> editing.Steps:
        """The requests of a verb of `verbs.DRAWN`, for whoever answers many at once.

        Args:
          verb: the method's name.
          values: its arguments.

        Raises:
          UserError: as the method does.
        """
        perception = values.get("perception")
        if isinstance(perception, (str, os.PathLike)):
            values = {**values, "perception": perceiver(os.fspath(perception))}
        return verbs.steps(self, verb, values)

    def _run(self, verb: str, given: dict[str, Any]) -> Edit:
        """The Edit of a verb, whose arguments are its `locals()`."""
        del given["self"]
        values = {**given.pop("decode"), **given}
        return editing.run_immediately(self.editor, self.steps(verb, values))

    @verbs.checked
    def reconstruct(self, image: image_io.Source) -> Image.Image:
        """The photo's central square through the VQGAN; [S,S] PIL image."""
        pixels = images.fit(image_io.decode(image), self.size)[None]
        decoded = self.editor.vqgan.decode(self.editor.image_ids(pixels))
        return Image.fromarray(images.from_unit_range(decoded)[0])

    @verbs.checked
    def propose(
        self, image: image_io.Source, text: str, *,
        source: str = region_proposal.NEUTRAL,
        method: str = region_proposal.LIKELIHOOD, area: float | None = None,
        aligned: bool = True, crop: Box | None = None,
        face: int | Face | None = None, align: bool = True,
    ) -> np.ndarray:  # fmt: skip
        """A mask, bool [H,W], of where a sentence wants a photo changed, to correct.

        Args:
          image, text: see `edit`.
          source: what is seen now, where it is known.
          method: see `region_proposal.saliency`.
          area: share of the square to take, above 0 and below 1; default what the
            attributes that the sentence names usually take, else a fifth.
          aligned: the square is filled by an upright face: where such attributes
            usually show counts as well.
          crop, face, align: see `edit`.

        Raises:
          UserError: an argument that cannot be used.
        """
        photo = image_io.decode(image)
        (_, view), notes = self.seen(photo, face, align, crop)
        verbs.warn([*notes, *self.notes_on_text(text)])
        return self.proposed(photo, text, area, view, source, method, aligned).mask

    @verbs.checked
    def sample(
        self, count: int = 1, text: str = "", *, seed: int = 0, **decode: Any
    ) -> Samples:
        """Whole pictures out of nothing, or out of a sentence; [S,S] PIL images.

        Raises:
          UserError: an option that cannot be used.
        """
        verbs.warn(self.notes_on_text(text) if text else [])
        return synthesis.sample(self, count, text, seed, decode)

    @verbs.checked
    def match(
        self, image: image_io.Source, sentences: Sequence[str], *,
        face: int | Face | None = None, align: bool = True,
    ) -> np.ndarray:  # fmt: skip
        """p(q=1), how likely each sentence belongs to the photo; float32 [N].

        Args:
          image, face, align: see `edit`; notes become warnings.
          sentences: N of them.

        Raises:
          UserError: no sentence, or an argument that cannot be used.
        """
        if not sentences:
            raise UserError("there are no sentences to match; give one or more")
        pixels = self._square(image, face, align)
        verbs.warn(n for text in sentences if text for n in self.notes_on_text(text))
        codes = np.repeat(self.editor.image_ids(pixels), len(sentences), axis=0)
        return np.exp(self.editor.score(codes, sentences))

    @verbs.in_steps
    def tag(
        self, image: image_io.Source, count: int = 10, *, seed: int = 0,
        among: Sequence[str] | None = None, face: int | Face | None = None,
        align: bool = True, **decode: Any,
    ) -> Steps[list[captioning.Tag]]:  # fmt: skip
        """The words that fit a photo best, see `captioning.tags` and `match`."""
        config, pixels = self.text_config(decode), self._square(image, face, align)
        key = key_of(seed)
        steps = captioning.tags(self.editor, pixels, count, config, key, among)
        return (yield from steps)

    @verbs.in_steps
    def caption(
        self, image: image_io.Source, words: int = 8, *, samples: int = 8,
        seed: int = 0, face: int | Face | None = None, align: bool = True,
        **decode: Any,
    ) -> Steps[list[tuple[str, float]]]:  # fmt: skip
        """Sentences for a photo and p(q=1) of each; see `captioning.captions`."""
        config, pixels = self.text_config(decode), self._square(image, face, align)
        key = key_of(seed)
        steps = captioning.captions(self.editor, pixels, words, samples, config, key)
        return (yield from steps)

    def _square(self, image: image_io.Source, face, align: bool) -> np.ndarray:
        """The square that the model sees of a photo at its size, uint8 [1,S,S,3]."""
        pixels, notes = self.square(image_io.decode(image), face, align)
        verbs.warn(notes, 6)
        return pixels


def load(
    source: str | os.PathLike = "demo",
    *,
    tokenizer: str | os.PathLike | None = None,
    dtype: str | None = None,
    system: str | None = None,
) -> Model:
    """The model, opened; a `sequence_api.Talk2Face` where it is one.

    Programs that are compiled from here on are kept for the next process, see
    `core.compiled`.

    Args:
      source: a bundled name, a model directory, the work folder of a training run, or
        a hub id.
      tokenizer: for a training run, where its VQGAN is: a run, or as source.
      dtype: of the activations, see `Editor`.
      system: "gptface" or "talk2face", where the weights are both: whose methods come
        first. Those of the other that it lacks are there as well.

    Raises:
      UserError: nothing there, damaged files, or networks that do not belong
        together.
    """
    compiled.keep()
    path, facades = opening.facades(source, system)
    _tell_license(path, str(source))

    def opened(facade: str) -> Any:
        module, _, function = facade.partition(":")
        opener = getattr(importlib.import_module(module), function)
        return opener(path, tokenizer, dtype)

    first, *others = facades
    model = opened(first)
    for other in others:
        model.add_beside(functools.cache(functools.partial(opened, other)))
    return model


@functools.cache
def _tell_license(path: pathlib.Path, source: str) -> None:
    """Says once a process under which licence the weights of a folder are.

    `source` is what the user calls it: of a hub id the folder's name is a hash.
    """
    said = None if networks.is_run(path) else directory.read_config(path).get("license")
    if said:
        print(f"{source}: licence of the weights: {said}", file=sys.stderr)


_OPENING = threading.Lock()  # jobs ask for it by several threads


def perceiver(source: str) -> PerceptionModel:
    """The Faceptor of a name or folder, opened once a process.

    Raises:
      UserError: it is none.
    """
    with _OPENING:
        return _perceiver(source)


@functools.lru_cache(maxsize=4)
def _perceiver(source: str) -> PerceptionModel:
    return load(source, system="faceptor")


def open_model(path: pathlib.Path, tokenizer: Any, dtype: str | None) -> Model:
    """A GPTFace with its tokenizer from a folder; arguments as of `load`."""
    return gptface_run.open_model(Model, path, tokenizer, dtype)
