"""a data sheet: what texts say of the pictures, skin, pose, sizes

  gptface data stats --images sets/laion_face --sample 20000 --json sheet.json

How often a text mentions an attribute that is present is the estimate of how weakly
texts and pictures go together; it needs labels (CelebA's names), as the fixed wordings
of captions are looked for in the texts. Skin is the luminance of the cheeks, which
light changes as well; pose and size of faces need landmarks.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _written
from gptface_jax.cli.data import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_arguments(parser, sample=10_000)
    parser.add_argument("--json", metavar="FILE", help="also write the numbers here")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.core import files
    from gptface_jax.data.inspection import survey

    _written.check_file("--json", options.json)
    found, count = _shared.open_set(options), _shared.sample(options)
    total = len(found) if count is None else min(count, len(found))
    result = survey.Survey()
    with _shared.bar(options, total) as progress:
        for _, record in found.sample(count):
            result.add(record)
            progress(1)
    values = {"set": found.name, **result.as_json()}
    print("\n".join(survey.table(values)))
    if options.json:
        files.write_text(options.json, files.json_text(values, 2))
