"""Regions of a face as a perception model sees them in this very photo."""

from __future__ import annotations

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import regions
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.perception import PerceptionModel
from gptface_jax.pipelines.views import View


def seen(
    model: PerceptionModel, region: str, photo: np.ndarray, face: Face | None,
    view: View,
) -> tuple[dict[str, np.ndarray], list[str]]:  # fmt: skip
    """Masks bool [H,W] of the named regions that are seen, and notes on the others.

    Args:
      model: looks at the upright face as its own training pictures showed faces.
      region: a name of `regions.CLASSES` or `regions.REGIONS`, or several, joined by
        "+".
      photo: uint8 [H,W,3].
      face: whose region it is; None: the square is taken for an upright face.
      view: the square that the editor sees.

    Raises:
      UserError: a model that tells no parts, or a name that is not seen here and that
        the mesh of a face does not know either.
    """
    if face is not None and model.frame is not None:
        view = model.view_of(face, photo)
    parsing, classes = model.parsing(photo, view)
    found, notes = {}, []
    for name in region.split("+"):
        mask = regions.parsed_region(name, parsing, classes)
        if mask is not None:
            found[name] = _carried_back(mask, view, photo.shape[:2])
        elif name in regions.REGIONS:
            notes.append(
                f"the perception model sees no {name} here: the usual region is taken"
            )
        elif name in regions.CLASSES:
            raise UserError(
                f"the perception model sees no {name} here, and the face mesh knows no "
                "such region; give a mask, a box or another region"
            )
    return found, notes


def _carried_back(mask: np.ndarray, view: View, size: tuple[int, int]) -> np.ndarray:
    """A mask of a square, at the model's size, in a photo (H, W); bool [H,W]."""
    grey = np.repeat(np.uint8(255 * mask)[..., None], 3, 2)
    smooth = images.resize(grey, (view.side,) * 2)[..., 0] > 127
    return view.mask_back(smooth, size)
