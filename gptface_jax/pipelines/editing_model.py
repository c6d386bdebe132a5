"""A trained editor with its decoding options, its frame for faces and its notes."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np

from gptface_jax.core.config import from_options
from gptface_jax.core.errors import UserError
from gptface_jax.core.version import __version__
from gptface_jax.data import image as images
from gptface_jax.data import image_io
from gptface_jax.pipelines import faces as face_finding
from gptface_jax.pipelines import framing, provenance, region_proposal, squares
from gptface_jax.pipelines.editor import Editor
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.views import Box, View
from gptface_jax.systems.gptface.options import DecodeConfig

_UNSTEERED = {"guidance": "none", "cfg": 1.0, "cfg_end": None}
_FORWARDS = 16  # an iteration, of all candidates of an edit


@dataclasses.dataclass(frozen=True)
class Selection:
    """The part of a photo that may change, as a user gives it.

    Attributes:
      mask, box, region, crop, face, align: see `apps.api.Model.edit`.
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


def key_of(seed: int) -> jax.Array:
    """The random key of a seed.

    Raises:
      UserError: a seed that does not fit into 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}; use 0 to {2**32 - 1}")
    return jax.random.key(seed)


class EditingModel:
    """A VQGAN and a GPTFace that belong together.

    Args:
      editor: both, joined.
      digest: of their weights.
      decode: the options by which an edit decodes where nothing else is said.
      card: the model card.
      frame: where the training pictures show eyes, nose and mouth corners, [5,2] as
        shares of the side (`faces.Face.five`): faces are found and brought there. None:
        the model takes the middle square of a photo for an upright face.
    """

    def __init__(
        self,
        editor: Editor,
        digest: str,
        decode: DecodeConfig,
        card: str = "",
        frame: Sequence[Sequence[float]] | np.ndarray | None = None,
    ):
        self.editor, self.digest = editor, digest
        self.decode, self.card = decode, card
        self.frame = framing.checked_frame(frame)

    def on(self, devices: Sequence[jax.Device]) -> Self:
        """A model of the same networks on these devices."""
        editor = self.editor.on(devices)
        return type(self)(editor, self.digest, self.decode, self.card, self.frame)

    def __repr__(self) -> str:
        return f"<gptface_jax.Model {self.digest}, {self.size} px>"

    @property
    def size(self) -> int:
        """Side in pixels of the squares that the model sees."""
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
        return decode_options({**dataclasses.asdict(self.decode), **changes})

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
        """Number of candidates by default: 16, or 3 where the gradient guides.

        So an edit costs about as much whatever guides it.
        """
        return max(1, round(_FORWARDS / config.forwards(self.editor.match_token)))

    def details(
        self, edited: bool, text: str, seed: int, config: DecodeConfig
    ) -> dict[str, Any]:
        """Details that every sidecar holds; of a watermark's key only a digest."""
        options = dataclasses.asdict(config)
        key = options.pop("watermark_key")
        if config.watermark:
            options["watermark_key_digest"] = provenance.key_digest(key)
        return {
            "edited": edited,
            "software": f"gptface_jax {__version__}",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model": self.digest,
            **({"dtype": self.editor.dtype} if self.editor.dtype else {}),
            "text": text,
            "seed": seed,
            "decode": options,
        }

    def notes_on_text(self, text: str) -> list[str]:
        """Notes on how the model reads a text: what it cuts and does not understand.

        Raises:
          UserError: it knows nothing of it.
        """
        tokenizer, slots = self.editor.text_tokenizer, self.editor.max_text_tokens
        ids = tokenizer.encode([text], slots + 1)[0]
        ids = ids[ids != tokenizer.pad_id]
        words = tokenizer.understood(text)
        if not words or (ids == tokenizer.unk_id).all():
            raise UserError(
                f"no word of the text '{text[:60]}' is known to this model; use plain "
                "English, e.g. 'a smiling woman with glasses'"
            )
        notes = []
        if len(ids) > slots:
            notes.append(f"the text was cut to its first {slots} tokens")
        unknown = [word for word, known in words.items() if not known]
        if unknown:
            named = ", ".join(word[:30] for word in unknown[:5])
            notes.append(
                f"the model understands {len(words) - len(unknown)} of the "
                f"{len(words)} words of '{text[:60]}', not: {named}"
                f"{', ...' if unknown[5:] else ''}; plain English works best"
            )
        return notes

    def found_faces(
        self, photo: np.ndarray, face: Any, align: bool, crop: Box | None
    ) -> list[Face] | None:
        """The faces of a photo; None where none is to be looked for."""
        if not align or crop is not None or self.frame is None:
            if face is not None:
                why = "crop" if crop is not None else "align=False (--no-align)"
                if align and crop is None:
                    why = "a model without a frame"
                which = "a face" if isinstance(face, Face) else f"face {face}"
                raise UserError(f"{which} does not go with {why}; give one of them")
            return None
        return [face] if isinstance(face, Face) else face_finding.find(photo)

    def seen(
        self,
        photo: np.ndarray,
        face: int | Face | None = None,
        align: bool = True,
        crop: Box | None = None,
    ) -> tuple[tuple[Face | None, View], list[str]]:
        """The face to work on with the square that the model sees of it, and notes."""
        found, size = self.found_faces(photo, face, align, crop), photo.shape[:2]
        notes: list[str] = []
        if found is not None:
            number = None if isinstance(face, Face) else face
            best, notes = framing.chosen_face(found, number, size)
            if best is not None:
                return (best, self._view(best, photo)), notes
        return (None, View.crop(squares.checked_crop(crop, size))), notes

    def square(
        self, photo: np.ndarray, face: int | Face | None, align: bool
    ) -> tuple[np.ndarray, list[str]]:
        """The square that the model sees, uint8 [1,S,S,3] at its size; notes."""
        (_, view), notes = self.seen(photo, face, align)
        return images.resize(view.picture(photo), (self.size,) * 2)[None], notes

    def framed(
        self,
        photo: np.ndarray,
        mask: image_io.Source | None = None,
        box: Box | None = None,
        region: str | None = None,
        crop: Box | None = None,
        *,
        seed: int = 0,
        face: int | Face | None = None,
        align: bool = True,
    ) -> tuple[framing.Framed, list[str]]:
        """The `Framed` that `edit` would change of a photo uint8 [H,W,3], and notes."""
        selection = Selection(mask, box, region, crop, face, align)
        return self.select(photo, selection, seed)

    def select(
        self, photo: np.ndarray, selection: Selection, seed: int = 0
    ) -> tuple[framing.Framed, list[str]]:
        """(what may change of a photo by a Selection of one face or none, notes).

        Args:
          photo: uint8 [H,W,3].
          selection: of one face at most.
          seed: of regions that are chosen by chance.
        """
        face, region, size = selection.face, selection.region, photo.shape[:2]
        where = face, selection.align, selection.crop
        hidden, notes, faces = None, [], []
        if region and ":" in region:
            hidden = framing.hidden_tokens(region, self.grid, key_of(seed))
        if region or face is not None:
            seen, notes = self.seen(photo, *where)
            faces = [seen] if seen[0] else []
        else:
            found = self.found_faces(photo, *where) or ()
            largest = sorted(found, key=lambda f: -f.area)
            faces = [(f, self._view(f, photo)) for f in largest]
        framed = framing.frame(
            size, selection.mask, selection.box, region, selection.crop, self.size,
            hidden, faces, selection.change,
        )  # fmt: skip
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

    def _view(self, face: Face, photo: np.ndarray) -> View:
        return View.upright(face.five, self.frame, photo.shape[:2])
