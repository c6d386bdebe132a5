"""LAION-FACE's detections into arrays that are read without loading them

  gptface data detections sample2detect_0.pth --out laion_face_detections/0

Once for each of the files that LAION-FACE's download_detection.sh gets. Nothing in the
file is run. `configs/data/laion_face.py` reads the folder above.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="sample2detect_N.pth")
    parser.add_argument("--out", required=True, help="folder of the arrays")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.data.prepare import detections

    count = detections.convert(options.file, options.out)
    print(f"{count} samples -> {options.out}")
