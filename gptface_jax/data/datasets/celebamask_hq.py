"""CelebAMask-HQ: 30,000 faces of 1024 px with 19 classes painted by hand.

Files: https://github.com/switchablenorms/CelebAMask-HQ, for research that is not
commercial. Layout and order of painting as of its own scripts
(face_parsing/Data_preprocessing/g_mask.py and g_partition.py there):

    CelebA-HQ-img/0.jpg ... 29999.jpg
    CelebAMask-HQ-mask-anno/0/00000_hair.png ...
        a mask of 512 px a class; picture N is in folder N // 2000
    CelebA-HQ-to-CelebA-mapping.txt    idx, orig_idx, orig_file; gives CelebA's splits
    CelebAMask-HQ-attribute-anno.txt   as list_attr_celeba.txt (optional; without it
        the set has no attributes)
    celeba-caption/0.txt ...           a caption a line (optional), as of
        Multi-Modal-CelebA-HQ (https://github.com/IIGROUP/MM-CelebA-HQ-Dataset)
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, schemes
from gptface_jax.data.datasets import base

# What is painted later covers what was there before.
_ORDER = (
    "skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat "
    "ear_r neck_l neck cloth"
).split()
_CLASSES = schemes.PARSING["celebamask-hq"]
_ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
# First numbers of CelebA's validation and test pictures.
_VALIDATION, _TEST = 162_771, 182_638


class Builder(base.FaceBuilder, skip_registration=True):
    """CelebAMask-HQ with parsing maps, attributes and captions."""

    name = "face_celebamask_hq"
    VERSION = tfds.core.Version("1.0.1")
    RELEASE_NOTES = {
        "1.0.0": "Painted in the order of the release's g_mask.py.",
        "1.0.1": "No attributes where their table is missing; 1.0.0 denied them all.",
    }
    SPLITS = ("train", "validation", "test")
    PUBLISHED = {"train": 24_183, "validation": 2_993, "test": 2_824}
    HOMEPAGE = "https://github.com/switchablenorms/CelebAMask-HQ"
    TERMS = "Research that is not commercial; see the homepage."

    @property
    def _told(self) -> bool:
        return (self.source / _ATTRIBUTES).is_file()

    def features(self) -> dict[str, Any]:
        attributes = {"attributes": base.attributes()} if self._told else {}
        return {
            "parsing": tfds.features.Image(
                shape=(None, None, 1), encoding_format="png"
            ),
            **attributes,
            "captions": tfds.features.Sequence(tfds.features.Text()),
        }

    def index(self, split: str) -> list[int]:
        table = "CelebA-HQ-to-CelebA-mapping.txt"
        found = []
        for row, line in self.numbered(table)[1:]:
            try:
                number, original = int(line[0]), int(line[1])
            except (ValueError, IndexError):
                raise UserError(
                    f"'{table}' line {row}: {' '.join(line)!r} begins with no pair of "
                    "numbers; get it again"
                ) from None
            where = "train" if original < _VALIDATION else "validation"
            where = where if original < _TEST else "test"
            if where == split:
                found.append(number)
        return found

    def _examples(self, split: str):
        rows = {}
        if self._told:
            rows = base.attribute_rows(self.lines(_ATTRIBUTES), _ATTRIBUTES)
        for number in self.index(split):
            name = f"{number}.jpg"
            if self._told and name not in rows:
                raise UserError(f"'{_ATTRIBUTES}' has no line of '{name}'")
            attributes = {"attributes": rows[name]} if self._told else {}
            yield (
                number,
                {
                    "image": self.jpeg(self.file("CelebA-HQ-img", name)),
                    "source": f"celebamask_hq/{name}",
                    "parsing": self.parsing(number),
                    **attributes,
                    "captions": self._captions(number),
                },
            )

    def parsing(self, number: int) -> io.BytesIO:
        """The classes of a picture as a PNG, numbered as `schemes.PARSING` says."""
        folder = self.source / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        classes = None
        for part in _ORDER:
            path = folder / f"{number:05d}_{part}.png"
            if not path.is_file():
                continue  # a part that does not show has no mask
            mask = image_io.decode(path).any(2)
            classes = np.zeros(mask.shape, np.uint8) if classes is None else classes
            if mask.shape != classes.shape:
                raise UserError(f"'{path}' is of another size than the others")
            classes[mask] = _CLASSES.index(part)
        if classes is None:
            raise UserError(f"'{folder}' holds no mask of picture {number}")
        buffer = io.BytesIO()
        Image.fromarray(classes).save(buffer, "PNG")
        return io.BytesIO(buffer.getvalue())

    def _captions(self, number: int) -> list[str]:
        path = self.source / "celeba-caption" / f"{number}.txt"
        if not path.is_file():
            return []
        return [t.strip() for t in base.text_of(path).splitlines() if t.strip()]
