"""Photos -> ArrayRecord cache of image ids, texts and labels, with a manifest.

gptface tokenize --images my_photos --tokenizer runs/vqgan --out my_tokens

The manifest holds the tokenizer's digest; training refuses a cache that another
tokenizer made.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_arguments(parser)
    parser.add_argument(
        "--tokenizer", required=True, help="VQGAN training run or model directory"
    )
    parser.add_argument("--out", required=True, help="folder of the cache")
    parser.add_argument(
        "--mirror", action="store_true", help="also store every photo mirrored"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps import tokenization

    manifest = tokenization.tokenize(
        _source.spec(options),
        options.tokenizer,
        options.out,
        mirror=options.mirror,
        progress=not options.quiet,
    )
    print(
        f"{manifest['num_records']} records, grid {manifest['grid']}, tokenizer "
        f"{manifest['tokenizer_digest']} -> {options.out}"
    )
