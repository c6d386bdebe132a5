"""What this installation has and lacks: versions, devices, caches, extras; what to do.

  gptface doctor
  gptface doctor --json report.json

The status is 1 where something is missing without which nothing works. A report of a
problem should come with this one.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from gptface_jax.core.errors import UserError


class Broken(UserError):
    """Something is missing without which nothing works."""

    status = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="the findings, to be sent along")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps import doctor
    from gptface_jax.core import files

    findings = doctor.examine()
    if options.json:
        content = json.dumps([dataclasses.asdict(f) for f in findings], indent=1)
        files.write_text(options.json, content + "\n")
    print(doctor.report(findings))
    if broken := [f.name for f in findings if f.broken]:
        raise Broken(f"{', '.join(broken)}: see above")
