"""What the protocols ask of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from gptface_jax.pipelines.editor import Editor


class Model(Protocol):
    """The part of what `gptface_jax.load` returns that protocols use.

    Attributes:
      digest: of the weights.
      editor: the networks, joined.
    """

    digest: str
    editor: Editor

    def tag(
        self, image: Any, count: int, *, seed: int, among: Sequence[str], **decode: Any
    ) -> list[Any]:
        """Words that fit a picture, the best first."""
