"""Photos through VQGANs and back: a grid picture, and figures as JSON.

gptface reconstruct --images my_photos --tokenizer runs/vqgan --out grid.png
gptface reconstruct --images my_photos --tokenizer runs/plain --tokenizer runs/gan \\
    --judge runs/judge --out comparison.png --json figures.json

With --own-size every photo keeps its size, and --out is a folder of pictures; what
is larger than a tile is encoded and decoded in overlapping tiles.

gptface reconstruct --images large --tokenizer runs/vqgan --own-size --out again

PSNR, SSIM and the use of the codes; with a judge also whether it sees the same
attributes in photo and reconstruction, and distances in its feature space.
--efficientnet adds the distance and the Frechet distance in the features of
EfficientNet-lite0 (extra `features`). Features that a VQGAN was trained with cannot
judge it, and a note says where that is so. --landmarks tells how far the points of the
face mesh move. Compare values of pictures of one size, which --resolution sets for all.

gptface reconstruct --images my_photos --tokenizer demo --perception my_faceptor

--perception: a Faceptor reads the pictures before and after. Mean F1 of the parts that
it sees after against those before (parsing_agreement), and how far its points move, in
distances of the outer eye corners (landmark_shift). It cannot miss what it never sees.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _help, _source
from gptface_jax.core import files
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_arguments(parser)
    parser.add_argument(
        "--tokenizer",
        required=True,
        action="append",
        help="VQGAN training run, model directory or bundled name; several compare",
    )
    parser.add_argument("--judge", help="judge training run or model directory")
    parser.add_argument(
        "--attributes",
        nargs="+",
        action=_help.Names,
        metavar="NAME",
        help="which of the judge's attributes are reported; default all",
    )
    parser.add_argument(
        "--lpips",
        metavar="WEIGHTS",
        help="also LPIPS: files of VGG-16 and of its heads, joined by a comma",
    )
    parser.add_argument(
        "--efficientnet",
        action="store_true",
        help="also distances in the features of EfficientNet-lite0",
    )
    parser.add_argument(
        "--landmarks",
        action="store_true",
        help="also the landmark error of the face mesh, in inter-ocular distances",
    )
    parser.add_argument(
        "--perception",
        metavar="NAME_OR_DIR",
        help="also whether a Faceptor sees the same parts and points in both",
    )
    parser.add_argument(
        "--resolution", type=int, help="of the photos; default: each tokenizer's own"
    )
    parser.add_argument("--out", help="picture of originals above reconstructions")
    parser.add_argument(
        "--own-size",
        action="store_true",
        help="reconstruct at full resolution, in tiles",
    )
    parser.add_argument(
        "--tile",
        type=int,
        default=64,
        help="tile size of --own-size in tokens; default 64",
    )
    parser.add_argument(
        "--overlap", type=int, default=8, help="overlap of tiles in tokens; default 8"
    )
    parser.add_argument("--json", metavar="FILE", help="the figures, not rounded")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps.api import perceiver
    from gptface_jax.experiments import opening
    from gptface_jax.protocols import reconstruction

    def largest() -> int:
        opened = (opening.open_network(path, "vqgan") for path in options.tokenizer)
        return max(network.config.resolution for network in opened)

    figures = (
        _at_own_size(options)
        if options.own_size
        else reconstruction.reconstruct(
            _source.spec(options, options.resolution or largest),
            options.tokenizer,
            options.out,
            judge=options.judge,
            attributes=tuple(options.attributes or ()),
            lpips=options.lpips,
            efficientnet=options.efficientnet,
            landmarks=reconstruction.mesh_landmarks if options.landmarks else None,
            perception=perceiver(options.perception) if options.perception else None,
            resolution=options.resolution,
            progress=not options.quiet,
        )
    )
    if options.json:
        files.write_text(options.json, files.json_text(_plain(figures), 2))
    rounded = {
        name: {k: round(v, 4) for k, v in values.items()}
        for name, values in figures.items()
    }
    print(files.json_text(_plain(rounded)), end="")


def _at_own_size(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    from gptface_jax.protocols import reconstruction

    others = "judge", "lpips", "efficientnet", "landmarks", "perception", "resolution"
    asked = [f"--{name}" for name in others if getattr(options, name)]
    if len(options.tokenizer) > 1 or asked or not options.out:
        raise UserError(
            "--own-size takes one --tokenizer and a folder as --out, and none of "
            + ", ".join(f"--{name}" for name in others)
        )
    figures = reconstruction.reconstruct_at_own_size(
        _source.spec(options),
        options.tokenizer[0],
        options.out,
        tile=options.tile,
        overlap=options.overlap,
        progress=not options.quiet,
    )
    return {options.tokenizer[0]: figures}


def _plain(figures: dict[str, dict[str, float]]) -> dict:
    """The figures alone where there is one tokenizer, else under their names."""
    return figures if len(figures) > 1 else next(iter(figures.values()))
