"""captions that a Talk2Face writes, against sentences and attributes that are true

gptface evaluate captions --model my_model --images my_photos \\
    --split test --limit 200 --samples captions.jsonl
gptface evaluate captions --model my_model --images synthetic --limit 200 --seed 77

Sentences of the pictures are the references; where they have none, some are made of
labels and expressions. Printed are BLEU-4, ROUGE-L, CIDEr-D and, where Java is present,
METEOR; how many attributes a caption mentions (richness), the share of these that is
right (accuracy), and the share of different captions.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo, _source
from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_talk2face(parser, "caption")
    _shared.add_generation(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols import captioning, samples
    from gptface_jax.protocols.records import open_records

    model = _shared.model(options, "ask")
    spec = _source.spec(options, model.size)
    records = open_records(spec, _source.limit(options, 256))
    decode = _photo.decode_options(options)
    written = captioning.write(
        model, records, seed=options.decode_seed, progress=not options.quiet, **decode
    )
    figures, rows, notes = captioning.figures(written, records)
    for note in notes:
        print(f"note: {note}")
    for name, value in figures.items():
        print(f"{name:10s} {value:.4f}")
    if options.samples:
        samples.write(options.samples, rows)
    about = {"model": model.digest, "images": spec, "decode": decode}
    _shared.write({**about, "figures": figures}, options.out)
