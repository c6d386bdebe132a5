"""Whether strengths of attributes do what they say: a table, and with --out JSON.

The region in which each of --attributes shows is drawn anew without a text at nine
strengths from -4 to 4. --judge scores what it sees: the share of pictures with the
attribute, in brackets the mean score, then Spearman's rho of strength and mean score,
and of each picture. --sheet shows three pictures an attribute at all nine.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared
from gptface_jax.cli.evaluate._shared import add_arguments as add_arguments

_SHOWN = 3  # pictures an attribute


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols import strength
    from gptface_jax.protocols.records import pictures_of

    judge, model = _shared.open_judge(options), _shared.model(options)
    photos = pictures_of(_shared.records(options), model.size)
    figures, drawn = strength.sweep(
        model,
        judge,
        photos,
        options.attributes or model.attributes,
        options.decode_seeds,
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
    from gptface_jax.protocols.strength import SETTINGS

    rows, said = [], []
    for name, settings in drawn.items():
        for i in range(min(_SHOWN, len(photos))):
            rows += [photos[i], *settings[:, i]]
            said += [name, *(f"{s:+g}" for s in SETTINGS)]
    sheet = pictures.sheet(rows, 1 + len(SETTINGS), said, cell=96)
    config = model.unsteered_config({})
    what = f"strengths of {', '.join(drawn)}"
    details = model.details(True, what, options.decode_seeds[0], config)
    pictures.save(sheet, options.sheet, details)
