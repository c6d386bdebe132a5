"""LAION-FACE: image-text pairs of LAION-400M that show faces, with detections.

Files: https://github.com/FacePerceiver/LAION-Face says how to get them (metadata CC BY
4.0; the pictures belong to who put them on the web). Layout: the tars that img2dataset
writes there,

    00000.tar ... of 0000123.jpg, .txt, .json (url, caption, SAMPLE_ID)
    detections/   by `gptface data detections` (optional)

This keeps pairs as they are, for those who want them in TFDS. `gptface prepare --config
configs/data/laion_face.py` cleans them and finds duplicates, and is what training uses.
What cannot be read is left out, and counted in a warning by its reason. The 50 million
pairs that are published are no size to check: links die, so that fewer are right, more
would need pairs from elsewhere, and how many a tar holds is known when all of it has
been read.
"""

from __future__ import annotations

import collections
import io
import warnings
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gptface_jax.core.errors import Missing
from gptface_jax.data.datasets import base
from gptface_jax.data.prepare import readers, sample, settings, stages, texts
from gptface_jax.data.prepare.sample import Sample


class Builder(base.FaceBuilder, skip_registration=True):
    """LAION-FACE as img2dataset fetched it."""

    name = "face_laion"
    RELEASE_NOTES = {"1.0.0": "Pairs that can be read."}
    HOMEPAGE = "https://github.com/FacePerceiver/LAION-Face"
    TERMS = "Metadata CC BY 4.0; pictures belong to their owners."

    def features(self) -> dict[str, Any]:
        return {
            "caption": tfds.features.Text(),
            "url": tfds.features.Text(),
            "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
        }

    def index(self, split: str) -> list[readers.Unit]:
        return readers.units(self._config())[0]

    def _config(self) -> settings.Config:
        spec = {"kind": "webdataset", "path": str(self.source), "name": "laion_face"}
        if (self.source / "detections").is_dir():
            spec["detections"] = str(self.source / "detections")
        if not any(self.source.rglob("*.tar")):
            raise Missing(f"'{self.source}' holds no tar; see the layout in --help")
        return settings.read({"sources": (spec,), "filters": {"min_side": 1}})

    def _examples(self, split: str):
        config = self._config()
        reader = readers.Reader(config)
        clean = stages.Stages(config, texts.texts(config.texts))
        left_out = collections.Counter()
        for number, unit in enumerate(self.index(split)):
            for item in reader(unit):
                item = clean.worded(item) if isinstance(item, Sample) else item
                checked = clean.decoded(item) if isinstance(item, Sample) else item
                if isinstance(checked, sample.Rejected):
                    left_out[checked.reason] += 1
                    continue
                boxes = np.zeros((0, 4), np.float32)
                if item.faces is not None:
                    boxes = item.faces.boxes
                yield (
                    f"{number}/{item.key}",
                    {
                        "image": io.BytesIO(_jpeg(item, checked, config)),
                        "source": item.record.source,
                        "caption": item.record.text,
                        "url": item.url,
                        "boxes": boxes,
                    },
                )
        if left_out:
            said = ", ".join(f"{count} {why}" for why, count in left_out.most_common())
            warnings.warn(f"of '{self.source}' were left out: {said}", stacklevel=2)


def _jpeg(item: Sample, decoded: Sample, config: settings.Config) -> bytes:
    """The file itself where it is a JPEG, else one of its pixels."""
    data = item.record.image
    if data[:2] == b"\xff\xd8":
        return data
    return stages.encoded(decoded.record.image, config.crop)
