"""a page of HTML: pictures with texts, histograms, copies, what was rejected

  gptface data inspect --images sets/laion_face --out report.html
  gptface data inspect --images tokens/photos --tokenizer demo --out report.html

Opens in any browser, needs no network and runs no script. Of a set of `gptface prepare
--config` it shows what was rejected, by reason. The pictures are in the page: treat it
as the pictures themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from gptface_jax.cli import _written
from gptface_jax.cli.data import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_arguments(parser, sample=2000)
    parser.add_argument("--out", required=True, help="the page, FILE.html")
    parser.add_argument(
        "--tokenizer",
        metavar="NAME_OR_DIR",
        help="VQGAN that made a token cache: shows what its image ids decode to",
    )


def run(options: argparse.Namespace) -> None:
    from gptface_jax.core import files
    from gptface_jax.data.inspection import report

    _written.check_file("--out", options.out)
    found, count = _shared.open_set(options), _shared.sample(options)
    decode = _decoder(options.tokenizer, found) if options.tokenizer else None
    total = len(found) if count is None else min(count, len(found))
    with _shared.bar(options, total) as progress:
        page, survey = report.report(found, count, progress, decode)
    files.write_text(options.out, page)
    print(f"{survey.records} of {len(found)} records -> {options.out}")


def _decoder(tokenizer: str, found: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Function from image ids int [h,w] of a set to pixels uint8 [S,S,3].

    Raises:
      UserError: the set is no token cache, or another tokenizer's.
    """
    from gptface_jax.data import image
    from gptface_jax.experiments import token_data
    from gptface_jax.pipelines.image_tokenizer import ImageTokenizer

    records = next(iter(found.splits.values()))
    network = token_data.tokenizer_of(tokenizer, records, "--tokenizer")
    vqgan = ImageTokenizer(network, batch_size=1)
    return lambda ids: image.from_unit_range(vqgan.decode(ids[None]))[0]
