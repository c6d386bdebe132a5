"""RAF-DB, basic: 15,339 faces with one of seven expressions.

Files: http://www.whdeng.cn/raf/model1.html, on request and for research that is not
commercial. Layout as DAN's loader has it (https://github.com/yaoing/DAN, rafdb.py):

    EmoLabel/list_patition_label.txt      file and 1 to 7: "train_00001.jpg 5"
    Image/aligned/train_00001_aligned.jpg 100 x 100 pixels

A folder `basic` around them is found too.
"""

from __future__ import annotations

from typing import Any

import tensorflow_datasets as tfds

from gptface_jax.core.errors import UserError
from gptface_jax.data.datasets import base

# Of 1 to 7, in the words of records.
EXPRESSIONS = (
    "surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"
)  # fmt: skip
_CODES = {str(number): word for number, word in enumerate(EXPRESSIONS, 1)}


class Builder(base.FaceBuilder, skip_registration=True):
    """RAF-DB with the seven basic expressions."""

    name = "face_rafdb"
    RELEASE_NOTES = {"1.0.0": "Aligned pictures of the basic set."}
    SPLITS = ("train", "test")
    PUBLISHED = {"train": 12_271, "test": 3_068}
    HOMEPAGE = "http://www.whdeng.cn/raf/model1.html"
    TERMS = "Research that is not commercial, on request; see the homepage."

    def features(self) -> dict[str, Any]:
        return {"expression": tfds.features.Text()}

    def _path(self, *parts: str) -> tuple[str, ...]:
        return ("basic", *parts) if (self.source / "basic").is_dir() else parts

    def index(self, split: str) -> list[tuple[str, str]]:
        table = self._path("EmoLabel", "list_patition_label.txt")
        found = []
        for number, line in self.numbered(*table):
            if len(line) != 2 or line[1] not in _CODES:
                raise UserError(
                    f"'{table[-1]}' line {number}: {' '.join(line)!r} is no file and 1 "
                    "to 7; get it again"
                )
            if line[0].startswith(f"{split}_"):
                found.append((line[0], _CODES[line[1]]))
        return found

    def example(self, item: tuple[str, str]) -> dict[str, Any]:
        name, expression = item
        aligned = name.removesuffix(".jpg") + "_aligned.jpg"
        return {
            "image": self.jpeg(self.file(*self._path("Image", "aligned", aligned))),
            "source": f"raf_db/{name}",
            "expression": expression,
        }
