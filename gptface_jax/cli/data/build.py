"""a known data set's files -> TFDS, without TensorFlow

  gptface data build face_celeba --layout
  gptface data build face_celeba --source ../CelebA --out tensorflow_datasets

--layout says where to get the files, by which terms, and how they must lie. Afterwards
the set is a source of every verb: --images face_celeba --data data_dir=OUT.
"""

from __future__ import annotations

import argparse

from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from gptface_jax.data import datasets

    parser.add_argument("name", choices=sorted(datasets.NAMES), help="the set")
    parser.add_argument(
        "--source", help="folder with the set's files, as --layout says"
    )
    parser.add_argument("--out", help="folder of the built set, the data_dir of TFDS")
    parser.add_argument(
        "--layout", action="store_true", help="say how the files must lie, and stop"
    )
    parser.add_argument(
        "--partial", action="store_true", help="build what is there of it"
    )


def run(options: argparse.Namespace) -> None:
    from gptface_jax.data import datasets

    if options.layout:
        print(datasets.about(options.name))
        return
    if not (options.source and options.out):
        raise UserError("give --source and --out, or --layout to see what it takes")
    counts = datasets.build(options.name, options.source, options.out, options.partial)
    said = ", ".join(f"{split}: {count}" for split, count in counts.items())
    print(f"{said} -> --images {options.name} --data data_dir={options.out}")
