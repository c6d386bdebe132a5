"""Photos -> ArrayRecord cache of image ids, texts and labels, with a manifest.

  gptface tokenize --images my_photos --tokenizer runs/vqgan --out my_tokens

Works on all devices, and on all hosts that run the same command and share the folder
of --out. If it is broken off, the same command goes on with the shards that are
missing. The manifest comes last and holds the tokenizer's digest; training refuses a
cache that another tokenizer made.

With --upright the faces of the photos are brought upright first, into OUT-upright, and
a model trained on the cache finds faces and brings them into the same frame.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _hosts, _source, _upright


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_arguments(parser)
    parser.add_argument(
        "--tokenizer",
        required=True,
        help="VQGAN training run, model directory or bundled name",
    )
    parser.add_argument("--out", required=True, help="folder of the cache")
    _upright.add_arguments(parser)
    parser.add_argument(
        "--mirror", action="store_true", help="also store every photo mirrored"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="precision of the activations; bfloat16 is faster on hardware that has "
        "it, and changes codes that are nearly ties; default: the tokenizer's own",
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="photos a device encodes at once"
    )
    parser.add_argument(
        "--threads", type=int, help="that read photos; default: one a CPU core"
    )
    parser.add_argument(
        "--shard-size",
        type=int,
        default=8192,
        help="records in a file; several files a host keep all hosts busy",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    _hosts.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    _hosts.join(options)
    import jax

    from gptface_jax.experiments import opening
    from gptface_jax.experiments import tokenize as tokenization

    size = opening.open_network(options.tokenizer, "vqgan").config.resolution
    manifest = tokenization.tokenize(
        _source.spec(options, size),
        options.tokenizer,
        options.out,
        mirror=options.mirror,
        dtype=options.dtype,
        batch_size=options.batch_size,
        threads=options.threads,
        shard_size=options.shard_size,
        upright=_upright.upright(options, size),
        progress=not options.quiet,
    )
    if jax.process_index() == 0:  # which writes the manifest of all
        print(
            f"{manifest['num_records']} records, grid {manifest['grid']}, tokenizer "
            f"{manifest['tokenizer_digest']} -> {options.out}"
        )
