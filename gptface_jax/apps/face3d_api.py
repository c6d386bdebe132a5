"""3D heads in a few lines; `load` of a FaceGPT gives it."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from gptface_jax.apps import verbs
from gptface_jax.core.config import from_options
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io
from gptface_jax.experiments import facegpt_run
from gptface_jax.pipelines import faces3d
from gptface_jax.pipelines.face_answers import ChatModel, HeadAnswer
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.faces3d import Face3DModel, Head3D
from gptface_jax.systems.facegpt.predict import SampleConfig


class FaceGPT(verbs.Facade, Face3DModel):
    """A trained model of 3D faces; see `Face3DModel`."""

    @verbs.checked
    def face3d(
        self, image: image_io.Source | None = None, *, text: str = "",
        seed: int | None = None, face: int | Face | None = None, align: bool = True,
        like: Head3D | str | os.PathLike | None = None,
        keep: Sequence[str] = faces3d.KEPT, **decode: Any,
    ) -> Head3D:  # fmt: skip
        """The 3D head of a photo, or one after a text.

        Args:
          image: path, encoded bytes, PIL image or uint8 array [H,W,3].
          text: what the head looks like, or of a photo besides.
          seed: of a head drawn after a text alone; None for the expected one.
          face: which one where there are several, from 1 on by their left edge, or one
            of `faces`; default the largest.
          align: find the face and bring it upright; otherwise the central square is
            taken for an upright face.
          like: with a text alone, a head some of whose parts are kept: one that was
            made here, or its FILE.json.
          keep: which: "identity", "expression", "albedo", "light", "pose".
          **decode: fields of `SampleConfig`, e.g. temperature=0.7; with a seed.

        Returns:
          A head that renders itself from any side and saves as GLB or OBJ.

        Raises:
          UserError: neither photo nor text, something that cannot be used, or that
            would do nothing.
        """
        config = from_options(SampleConfig, decode, "decode.")
        if image is None:
            if not text:
                raise UserError("give a photo, a text or both")
            if face is not None or not align:
                which = "align=False" if face is None else f"face {face}"
                raise UserError(
                    f"{which} is of a photo, and there is none; leave it out"
                )
            if like is not None and not isinstance(like, Head3D):
                like = faces3d.opened(like, self.face_model)
            return self.of_text(text, seed, config, like, keep)
        if like is not None or tuple(keep) != faces3d.KEPT:
            which = "keep" if like is None else "like"
            raise UserError(f"{which} goes with a text alone; leave out one of the two")
        if seed is not None:
            raise UserError(
                f"seed {seed} goes with a text alone: of a photo there is one head"
            )
        if decode:
            raise UserError(
                f"{', '.join(decode)} goes with a text alone and a seed: of a photo "
                "there is one head; leave it out"
            )
        head = self.of_photo(image_io.decode(image), text, face, align)
        verbs.warn(head.details["notes"])
        return head


class Chat(FaceGPT, ChatModel):
    """A FaceGPT that answers, too; see `ChatModel`."""

    @verbs.checked
    def ask_with_head(
        self, image: image_io.Source, question: str = "", *,
        face: int | Face | None = None, align: bool = True,
    ) -> HeadAnswer:  # fmt: skip
        """The answer to a question about a photo, and the 3D head that it ends in.

        Args:
          image, face, align: see `face3d`.
          question: "expression", "hair", "is she smiling?", or a key of one's own that
            ends in a colon; without one the answer is a sentence about the face.

        Raises:
          UserError: a question that the model was not trained to answer (the nearest
            are named), or a picture that cannot be used.
        """
        found = self.answer_about(image_io.decode(image), question, face, align)
        verbs.warn(found.head.details["notes"])
        return found


def open_chat(path: pathlib.Path, tokenizer: Any, dtype: str | None) -> Chat:
    """A FaceGPT that answers, with its tokenizer from a folder; see `open_model`."""
    return facegpt_run.open_chat(Chat, path, tokenizer, dtype)


def open_model(path: pathlib.Path, tokenizer: Any, dtype: str | None) -> FaceGPT:
    """A FaceGPT with its tokenizer from a folder; arguments as of `load`."""
    return facegpt_run.open_model(FaceGPT, path, tokenizer, dtype)
