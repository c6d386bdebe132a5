"""A trained editor with its decoding options, its frame for faces and its notes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np

from gptface_jax.core.config import from_options
from gptface_jax.core.errors import UserError
from gptface_jax.data import attribute_questions, image_io
from gptface_jax.data import image as images
from gptface_jax.pipelines import (
    framing,
    perceived_regions,
    provenance,
    region_proposal,
    strength,
)
from gptface_jax.pipelines.editor import Editor
from gptface_jax.pipelines.face_view import SeesFaces
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.perception import PerceptionModel
from gptface_jax.pipelines.user_input import key_of, unknown_words
from gptface_jax.pipelines.views import Box, View
from gptface_jax.systems.gptface.options import DecodeConfig

_UNSTEERED = {"guidance": "none", "cfg": 1.0, "cfg_end": None}
_FORWARDS = 16  # an iteration, of all candidates of an edit
_CANDIDATES = 32  # at most: each is matched as well


@dataclasses.dataclass(frozen=True)
class Selection:
    """The part of a photo that may change, as a user gives it.

    Attributes:
      mask, box, region, crop, face, align: see `apps.api.Model.edit`.
      perception: sees where the region lies.
      invert_mask, mask_grow, mask_shrink: as there, of the mask, box or region.
    """

    mask: image_io.Source | None = None
    box: Box | None = None
    region: str | None = None
    crop: Box | None = None
    face: int | str | Face | None = None
    align: bool = True
    invert_mask: bool = False
    mask_grow: int = 0
    mask_shrink: int = 0
    perception: PerceptionModel | None = None

    def check_perception(self) -> None:
        """Raises where there is nothing that perception could tell."""
        if self.perception is not None and (not self.region or ":" in self.region):
            raise UserError(
                "perception sees where a region lies; give one, such as region='hair', "
                "or leave perception out"
            )

    @property
    def change(self) -> framing.Change:
        """Changes that are made to the mask."""
        return framing.Change(self.invert_mask, self.mask_grow, self.mask_shrink)

    @property
    def is_open(self) -> bool:
        """Whether it is left to the model where it changes the photo."""
        return self.mask is None and self.box is None and self.region is None


def decode_options(values: Mapping[str, Any]) -> DecodeConfig:
    """Fields of `DecodeConfig`, the others at their defaults.

    Raises:
      UserError: an unknown option, or a value that makes no sense.
    """
    return from_options(DecodeConfig, values, "decode.")


class EditingModel(SeesFaces):
    """A VQGAN and a GPTFace that belong together.

    Args:
      editor: both, joined.
      digest: of their weights.
      decode: the options by which an edit decodes where nothing else is said.
      card: the model card.
      frame: where the training pictures show eyes, nose and mouth corners, [5,2] as
        shares of the side (`faces.Face.five`): faces are found and brought there. None:
        the model sees the middle square of a photo as it is, and named regions are
        those of a face that is found in it.
      attributes: those that its card tells of, each of `strength.ATTRIBUTES`.
    """

    OPTIONS = DecodeConfig

    def __init__(
        self,
        editor: Editor,
        digest: str,
        decode: DecodeConfig,
        card: str = "",
        frame: Sequence[Sequence[float]] | np.ndarray | None = None,
        attributes: Sequence[str] | None = None,
    ):
        self.editor, self.digest = editor, digest
        self.decode, self.card = decode, card
        self.frame = framing.checked_frame(frame)
        self.attributes = tuple(attributes or attribute_questions.ATTRIBUTES)
        strength.directions(dict.fromkeys(self.attributes, 0))  # or it says which

    def on(self, devices: Sequence[jax.Device]) -> Self:
        """A model of the same networks on these devices."""
        moved = copy.copy(self)  # with what lies beside it
        moved.editor = self.editor.on(devices)
        return moved

    def __repr__(self) -> str:
        return f"<gptface_jax.Model {self.digest}, {self.size} px>"

    @property
    def dtype(self) -> str | None:
        """Dtype of the activations; None for the networks' own."""
        return self.editor.dtype

    @property
    def size(self) -> int:
        """See `SeesFaces`."""
        return self.editor.size

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of their tokens."""
        return self.editor.grid

    def decode_config(self, changes: Mapping[str, Any]) -> DecodeConfig:
        """The model's decoder options with changes.

        Raises:
          UserError: an unknown option, or a value that makes no sense.
        """
        found = {**dataclasses.asdict(self.decode), **changes}
        if (found.get("guidance"), found.get("side")) != ("none", "image"):
            found["refresh"] = changes.get("refresh", 1)  # the model's own is of others
        return decode_options(found)

    def unsteered_config(self, changes: Mapping[str, Any]) -> DecodeConfig:
        """The model's decoder options with changes, for verbs without a text.

        Raises:
          UserError: as there, or an option that steers by a text.
        """
        for name, value in _UNSTEERED.items():
            if changes.get(name, value) != value:
                raise UserError(
                    f"{name} '{changes[name]}' needs a text to follow; use edit, or "
                    "inpaint without it"
                )
        return self.decode_config({**changes, **_UNSTEERED})

    def text_config(self, changes: Mapping[str, Any]) -> DecodeConfig:
        """The model's decoder options with changes, for drawing words of a picture."""
        return self.decode_config({**_UNSTEERED, "k": 1, "side": "text", **changes})

    def default_candidates(self, config: DecodeConfig) -> int:
        """Number of candidates by default: what 16 forward passes an iteration pay for.

        So an edit costs about as much whatever guides it, and whatever is given up on
        the way (`prune_at`).
        """
        most = _FORWARDS / config.forwards(self.editor.match_token) + 0.5
        counts = range(1, _CANDIDATES + 1)
        return max((n for n in counts if config.passes(n) <= most), default=1)

    def details(
        self, edited: bool, text: str, seed: int, config: DecodeConfig
    ) -> dict[str, Any]:
        """Details that every sidecar holds; of a watermark's key only a digest."""
        options = dataclasses.asdict(config)
        key = options.pop("watermark_key")
        if config.watermark:
            options["watermark_key_digest"] = provenance.key_digest(key)
        return provenance.details(edited, self.digest, self.dtype, text, seed, options)

    def notes_on_text(self, text: str) -> list[str]:
        """Notes on how the model reads a text: what it cuts and does not understand.

        Raises:
          UserError: it knows nothing of it.
        """
        tokenizer, slots = self.editor.text_tokenizer, self.editor.max_text_tokens
        ids = tokenizer.encode([text], slots + 1)[0]
        notes = unknown_words(tokenizer, text)
        if (ids != tokenizer.pad_id).sum() > slots:
            notes.insert(0, f"the text was cut to its first {slots} tokens")
        return notes

    def select(
        self, photo: np.ndarray, selection: Selection, seed: int = 0
    ) -> tuple[framing.Framed, list[str]]:
        """(what may change of a photo by a Selection of one face or none, notes).

        Args:
          photo: uint8 [H,W,3].
          selection: of one face at most.
          seed: of regions that are chosen by chance.
        """
        selection.check_perception()
        face, region, size = selection.face, selection.region, photo.shape[:2]
        where = face, selection.align, selection.crop
        hidden, notes, faces, parts = None, [], [], {}
        if region and ":" in region:
            hidden = framing.hidden_tokens(region, self.grid, key_of(seed))
        if region or face is not None:
            seen, notes = self.seen(photo, *where)
            as_it_came = (
                self.frame is None and selection.crop is None and selection.align
            )
            if region and hidden is None and as_it_came:
                # The square stays what the training pictures were, but the mouth is
                # where the mouth is.
                seen = self.face_in(seen[1], photo), seen[1]
            faces = [seen] if seen[0] else []
            if selection.perception is not None:
                parts, also = perceived_regions.seen(
                    selection.perception, region, photo, *seen
                )
                notes = [*notes, *also]
        else:
            found = self.found_faces(photo, *where) or ()
            largest = sorted(found, key=lambda f: -f.area)
            faces = [(f, self.view_of(f, photo)) for f in largest]
        framed = framing.frame(
            size, selection.mask, selection.box, region, selection.crop, self.size,
            hidden, faces, selection.change, parts,
        )  # fmt: skip
        if parts:
            by = {"perception": selection.perception.digest, "perceived": [*parts]}
            framed = dataclasses.replace(framed, said={**framed.said, **by})
        if face is not None and not region and not framed.view.face:
            notes.append("the mask does not lie on that face, and is seen without it")
        return framed, notes

    def proposed(
        self,
        photo: np.ndarray,
        text: str,
        area: float | None,
        view: View,
        source: str = region_proposal.NEUTRAL,
        method: str = region_proposal.LIKELIHOOD,
        aligned: bool = True,
    ) -> framing.Framed:
        """The `Framed` that a text asks to change; see `region_proposal.propose`."""
        if area is not None and not 0 < area < 1:
            raise UserError(f"area is {area}; use a share between 0 and 1")
        small = images.resize(view.picture(photo), (self.size,) * 2)
        tokens = region_proposal.propose(
            self.editor, small, text, source, method, area, aligned
        )
        size = photo.shape[:2]
        mask = view.mask_back(images.tokens_to_pixels(tokens, (view.side,) * 2), size)
        said = {"proposed": area or "by the sentence", "pixels": int(mask.sum())}
        return framing.Framed(mask, view, said, tokens)
