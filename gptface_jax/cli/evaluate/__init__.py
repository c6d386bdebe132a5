"""Figures of a trained model.

gptface evaluate likelihood --run runs/gptface64 --tokens tokens/lfw_test
gptface evaluate masked --run runs/masks/span runs/masks/random
gptface evaluate matching --model demo --images synthetic --limit 512 --seed 77
gptface evaluate judge --judge runs/judge --images synthetic --limit 1000 --seed 77
gptface evaluate edits --model demo --judge runs/judge --images synthetic \\
    --limit 256 --seed 77 --guidance ascent_norm none --decode-seeds 0 1 2
gptface evaluate edits --model runs/weak_text/rho_0.3 --tokenizer demo \\
    --judge runs/judge --images synthetic --methods configs/experiments/guidance.py
gptface evaluate strength --model demo --judge runs/judge --images synthetic \\
    --limit 16 --seed 77 --attributes Smiling Male --sheet strips.png
gptface evaluate proposals --model demo --limit 64
gptface evaluate probe --model demo --images my_photos
gptface evaluate tagging --model demo --images synthetic --limit 100
gptface evaluate answers --model my_talk2face --images synthetic --limit 256
gptface evaluate captions --model my_talk2face --images synthetic --limit 256
gptface evaluate synthesis --model my_talk2face --judge runs/judge \\
    --convention synthetic
gptface evaluate perception --model my_faceptor --images synthetic --limit 256
gptface evaluate folds fold0.jsonl fold1.jsonl --against other0.jsonl other1.jsonl
gptface evaluate faces3d --model my_facegpt --images rendered --limit 128 --seed 9
gptface evaluate ratings DIR
gptface evaluate calibration --model demo --images synthetic --limit 256 --seed 77
gptface evaluate groups --model demo --limit 64 --seed 77

Each has its own help, such as: gptface evaluate probe --help
"""

from __future__ import annotations

import argparse
import types

from gptface_jax.cli import _kinds, _written
from gptface_jax.cli.evaluate import (
    answers,
    calibration,
    captions,
    edits,
    faces3d,
    folds,
    groups,
    judge,
    likelihood,
    masked,
    matching,
    perception,
    probe,
    proposals,
    ratings,
    strength,
    synthesis,
    tagging,
)

KINDS: dict[str, types.ModuleType] = {
    "likelihood": likelihood,
    "masked": masked,
    "matching": matching,
    "judge": judge,
    "edits": edits,
    "strength": strength,
    "proposals": proposals,
    "probe": probe,
    "tagging": tagging,
    "answers": answers,
    "captions": captions,
    "synthesis": synthesis,
    "perception": perception,
    "folds": folds,
    "faces3d": faces3d,
    "ratings": ratings,
    "calibration": calibration,
    "groups": groups,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _kinds.add_arguments(parser, KINDS)


def run(options: argparse.Namespace) -> None:
    _written.check_file("--out", options.out)
    KINDS[options.what].run(options)
