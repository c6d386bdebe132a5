"""CelebA: 202,599 faces of celebrities with 40 attributes, and captions where given.

Files: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html ("Align&Cropped Images"), for
research that is not commercial. Layout as torchvision's loader has it
(https://github.com/pytorch/vision/blob/main/torchvision/datasets/celeba.py):

    img_align_celeba/000001.jpg ...  178 x 218 pixels
    list_attr_celeba.txt             number, names, then file and 40 times 1 or -1
    list_eval_partition.txt          file and 0 (train), 1 (validation), 2 (test)
    list_landmarks_align_celeba.txt  number, names, then file and 5 points (optional)
    captions.json                    captions by file (optional), as CelebA-Dialog's
        (https://github.com/ziqihuangg/CelebA-Dialog): {"000001.jpg":
        {"overall_caption": text}}; a text or a list of texts is taken too

identity_CelebA.txt is not read: nothing here knows who somebody is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gptface_jax.core.errors import UserError
from gptface_jax.data.datasets import base

_CODES = {"train": "0", "validation": "1", "test": "2"}


class Builder(base.FaceBuilder, skip_registration=True):
    """CelebA with attributes, five landmarks and captions."""

    name = "face_celeba"
    RELEASE_NOTES = {"1.0.0": "As torchvision reads it, with captions."}
    SPLITS = ("train", "validation", "test")
    PUBLISHED = {"train": 162_770, "validation": 19_867, "test": 19_962}
    HOMEPAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    TERMS = "Research that is not commercial; see the homepage."

    def features(self) -> dict[str, Any]:
        return {
            "attributes": base.attributes(),
            "landmarks": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "captions": tfds.features.Sequence(tfds.features.Text()),
        }

    def index(self, split: str) -> list[str]:
        table = "list_eval_partition.txt"
        found = []
        for number, line in self.numbered(table):
            if len(line) != 2 or line[1] not in _CODES.values():
                raise UserError(
                    f"'{table}' line {number}: {' '.join(line)!r} is no file and 0, 1 "
                    "or 2; get it again"
                )
            if line[1] == _CODES[split]:
                found.append(line[0])
        return found

    def _examples(self, split: str):
        rows = base.attribute_rows(
            self.lines("list_attr_celeba.txt"), "list_attr_celeba.txt"
        )
        points, captions = self._landmarks(), self._captions()
        for name in self.index(split):
            if name not in rows:
                raise UserError(f"'list_attr_celeba.txt' has no line of '{name}'")
            yield (
                name,
                {
                    "image": self.jpeg(self.file("img_align_celeba", name)),
                    "source": f"celeba/{name}",
                    "attributes": rows[name],
                    "landmarks": points.get(name, np.zeros((0, 2), np.float32)),
                    "captions": captions.get(name, []),
                },
            )

    def _landmarks(self) -> dict[str, np.ndarray]:
        table = "list_landmarks_align_celeba.txt"
        if not (self.source / table).is_file():
            return {}
        found = {}
        for number, (name, *values) in self.numbered(table)[2:]:
            where = f"'{table}' line {number}"
            if len(values) != 10:
                raise UserError(
                    f"{where} has {len(values)} numbers, not 10; get it again"
                )
            found[name] = base.numbers(values, where).reshape(5, 2)
        return found

    def _captions(self) -> dict[str, list[str]]:
        if not (self.source / "captions.json").is_file():
            return {}
        try:
            table = json.loads(self.file("captions.json").read_bytes())
            return {name: _texts(entry) for name, entry in table.items()}
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise UserError(f"'captions.json' is no table of captions ({error})") from (
                None
            )


def _texts(entry: Any) -> list[str]:
    if isinstance(entry, Mapping):
        entry = entry["overall_caption"]
    texts = [entry] if isinstance(entry, str) else list(entry)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{entry!r} is no text")
    return texts
