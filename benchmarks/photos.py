"""Photographs for the measurements of what is done to them."""

from __future__ import annotations

import argparse

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, sources
from gptface_jax.pipelines import pictures


def picture(path: str) -> str:
    """The path, if its ending is a picture's: type of an argument."""
    try:
        pictures.check(path)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


def parser(about: str, limit: int = 200) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--images", required=True, help="Parquet folder of photographs")
    found.add_argument("--split", default="test")
    found.add_argument("--limit", type=int, default=limit)
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--model", default="demo64")
    found.add_argument("--tokenizer", help="VQGAN run, where --model is a run")
    found.add_argument("--sheet", type=picture, help="picture of the first examples")
    return found


def read(options: argparse.Namespace, **more) -> list[np.ndarray]:
    """uint8 [H,W,3] each."""
    source = sources.open_source(
        {"kind": "parquet", "path": options.images, "split": options.split, **more}
    )
    return [
        image_io.decode(source[i].image) for i in range(min(options.limit, len(source)))
    ]


def psnr(picture: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    """dB over the pixels bool [H,W]."""
    error = np.mean((picture[where].astype(float) - truth[where]) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-3)))
