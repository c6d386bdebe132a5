"""Sets of pictures: looked at, checked, split, described.

gptface data inspect --images sets/laion_face --out report.html
gptface data check --images sets/laion_face --sample 10000
gptface data stats --images ../photos
gptface data split --images ../photos --out sets/photos --validation 0.05 --by identity
gptface data build face_wflw --source ../WFLW --out tensorflow_datasets
gptface data detections sample2detect_0.pth --out laion_face_detections/0

Each has its own help, such as: gptface data inspect --help
"""

from __future__ import annotations

import argparse
import types

from gptface_jax.cli import _kinds
from gptface_jax.cli.data import build, check, detections, inspect, split, stats

KINDS: dict[str, types.ModuleType] = {
    "inspect": inspect,
    "check": check,
    "split": split,
    "stats": stats,
    "build": build,
    "detections": detections,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _kinds.add_arguments(parser, KINDS)


def run(options: argparse.Namespace) -> None:
    KINDS[options.what].run(options)
