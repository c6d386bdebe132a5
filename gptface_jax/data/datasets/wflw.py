"""WFLW: 10,000 faces with 98 points, in crowds, turned, blurred, half hidden.

Files: https://wywu.github.io/projects/LAB/WFLW.html, for research. Layout as of
HRNet's loader (https://github.com/HRNet/HRNet-Facial-Landmark-Detection,
lib/datasets/wflw.py) and of the README in the annotations:

    WFLW_images/0--Parade/...jpg ...
    WFLW_annotations/list_98pt_rect_attr_train_test/
        list_98pt_rect_attr_train.txt, list_98pt_rect_attr_test.txt
            a line a face: 196 coordinates x0 y0 x1 y1 ..., a box (x0, y0, x1, y1), six
            times 0 or 1 (pose, expression, illumination, make-up, occlusion, blur), the
            file

Several faces may be in one picture; each is an example with the whole picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gptface_jax.core.errors import UserError
from gptface_jax.data.datasets import base

_LISTS = ("WFLW_annotations", "list_98pt_rect_attr_train_test")
_FLAGS = ("pose", "expression", "illumination", "make_up", "occlusion", "blur")
_COLUMNS = 196 + 4 + len(_FLAGS) + 1


class Builder(base.FaceBuilder, skip_registration=True):
    """WFLW with 98 landmarks, boxes and what makes a face hard."""

    name = "face_wflw"
    RELEASE_NOTES = {"1.0.0": "As HRNet reads it."}
    SPLITS = ("train", "test")
    PUBLISHED = {"train": 7_500, "test": 2_500}
    HOMEPAGE = "https://wywu.github.io/projects/LAB/WFLW.html"
    TERMS = "Research; see the homepage."

    def features(self) -> dict[str, Any]:
        return {
            "landmarks": tfds.features.Tensor(shape=(98, 2), dtype=np.float32),
            "boxes": tfds.features.Tensor(shape=(1, 4), dtype=np.float32),
            "flags": {name: np.bool_ for name in _FLAGS},
        }

    def index(self, split: str) -> list[list[str]]:
        table = f"list_98pt_rect_attr_{split}.txt"
        lines = self.numbered(*_LISTS, table)
        for number, line in lines:
            if len(line) != _COLUMNS:
                raise UserError(
                    f"'{table}' line {number} has {len(line)} columns, not {_COLUMNS}; "
                    "get it again"
                )
        return [line for _, line in lines]

    def example(self, item: list[str]) -> dict[str, Any]:
        name, where = item[-1], f"the line of '{item[-1]}'"
        values = base.numbers(item[:-1], where)
        return {
            "image": self.jpeg(self.file("WFLW_images", *name.split("/"))),
            "source": f"wflw/{name}",
            "landmarks": values[:196].reshape(98, 2),
            "boxes": values[196:200].reshape(1, 4),
            "flags": dict(zip(_FLAGS, values[200:] == 1)),
        }
