"""Verbs whose first argument says what of, each a module of its own."""

from __future__ import annotations

import argparse
import types
from collections.abc import Mapping

from gptface_jax.cli import _help


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
            formatter_class=_help.Formatter,
        )
        module.add_arguments(kind)


def option_names(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> list[str]:
    """The options of a verb, and of the kind that was given, if it has kinds."""
    found = list(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += action.choices[options.what]._option_string_actions
    return found
