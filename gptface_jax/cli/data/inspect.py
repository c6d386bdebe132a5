"""a page of HTML: pictures with texts, histograms, copies, what was rejected

  gptface data inspect --images sets/laion_face --out report.html

Opens in any browser, needs no network and runs no script. Of a set of `gptface prepare
--config` it shows what was rejected, by reason. The pictures are in the page: treat it
as the pictures themselves.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _written
from gptface_jax.cli.data import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_arguments(parser, sample=2000)
    parser.add_argument("--out", required=True, help="the page, FILE.html")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.core import files
    from gptface_jax.data.inspection import report

    _written.check_file("--out", options.out)
    found, count = _shared.open_set(options), _shared.sample(options)
    total = len(found) if count is None else min(count, len(found))
    with _shared.bar(options, total) as progress:
        page, survey = report.report(found, count, progress)
    files.write_text(options.out, page)
    print(f"{survey.records} of {len(found)} records -> {options.out}")
