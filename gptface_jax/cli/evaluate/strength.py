"""whether strengths of attributes do what they say

gptface evaluate strength --model demo --judge runs/judge --images synthetic \\
    --limit 16 --seed 77 --attributes Smiling Male --sheet strips.png

The region in which each of --attributes shows is drawn anew without a text at nine
strengths from -4 to 4. --judge scores what it sees: the share of pictures with the
attribute, in brackets the mean score, then Spearman's rho of strength and mean score,
and of each picture. --sheet shows two pictures an attribute at all nine.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared

_SHOWN = 2  # pictures an attribute


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser)
    _shared.add_model(parser)
    _shared.add_judge(parser)
    _shared.add_attributes(parser, "the sliders of the model's card")
    parser.add_argument("--most", type=float, default=4.0, help="largest strength")
    _shared.add_candidates(parser)
    parser.add_argument(
        "--sheet", metavar="FILE.png", help="two pictures an attribute, all strengths"
    )
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols import strength
    from gptface_jax.protocols.records import pictures_of

    judge, model = _shared.open_judge(options), _shared.model(options, "edit")
    photos = pictures_of(_shared.records(options, model.size), model.size)
    figures, drawn = strength.sweep(
        model,
        judge,
        photos,
        options.attributes or model.attributes,
        options.decode_seeds,
        most=options.most,
        num_candidates=options.samples,
        borders=options.borders,
        progress=not options.quiet,
    )
    if options.sheet:
        _save_sheet(options, model, photos, drawn)
    print(strength.table(figures))
    _shared.write({"model": model.digest, "attributes": figures}, options.out)


def _save_sheet(options, model, photos, drawn) -> None:
    """A row for each picture: before, then the nine settings."""
    from gptface_jax.pipelines import pictures
    from gptface_jax.protocols.strength import settings

    shown = settings(options.most)
    rows, said = [], []
    for name, made in drawn.items():
        for i in range(min(_SHOWN, len(photos))):
            rows += [photos[i], *made[:, i]]
            said += [name, *(f"{s:+g}" for s in shown)]
    sheet = pictures.sheet(rows, 1 + len(shown), said, cell=80)
    config = model.unsteered_config({})
    what = f"strengths of {', '.join(drawn)}"
    details = model.details(True, what, options.decode_seeds[0], config)
    pictures.save(sheet, options.sheet, details)
