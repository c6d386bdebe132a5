"""Verbs whose first argument says what of, each a module of its own."""

from __future__ import annotations

import argparse
import types
from collections.abc import Mapping


def add_arguments(
    parser: argparse.ArgumentParser, kinds: Mapping[str, types.ModuleType]
) -> None:
    """Adds a subcommand for each kind; the docstring of its module is its help."""
    found = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, module in kinds.items():
        kind = found.add_parser(
            name,
            help=module.__doc__.splitlines()[0],
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(kind)
