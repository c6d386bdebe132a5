"""Photographs packed like the web -> training shards of 128 px; docs/results/data.md.

    python benchmarks/web_photos.py pack --images ../shared/data/lfw_attributes \\
        ../shared/data/faces ../shared/data/masks --out web
    gptface prepare --config configs/data/photographs.py --out sets/photographs
"""

from ml_collections import ConfigDict

from configs.base import check
from configs.data import laion_face


def get_config(arg: str = "") -> ConfigDict:
    check(arg, "tiny")
    config = laion_face.get_config(arg)
    if not arg:
        # Apart, so that a text that does not belong comes from the same data set.
        config.sources = tuple(
            {"kind": "webdataset", "path": f"web/{name}", "name": name}
            for name in ("lfw_attributes", "faces", "masks")
        )
        config.crop.size = 128
        # Most are 128 px crops around a face already.
        config.crop.context = 3.0
        config.filters.min_face = 24.0
        config.split.validation = 0.05
    return config
