"""Help that all verbs show in one form, and lists that they read in one way."""

from __future__ import annotations

import argparse

from gptface_jax.core import config_names

_NUMBERS = {int: "N", float: "X"}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Docstrings as they stand; the default of every option, and N for a number."""

    def format_help(self) -> str:
        return config_names.with_pages(super().format_help())

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        # A help that says "default" tells what None, or another value, stands for.
        if "default" in text or not action.option_strings:
            return text
        value = action.default
        if value is argparse.SUPPRESS or any(
            value is none for none in (None, False, True)
        ):
            return text
        if isinstance(value, list | tuple):
            value = " ".join(map(str, value))
        return f"{text}; default {value}" if value != "" else text

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        usual = super()._get_default_metavar_for_optional(action)
        return _NUMBERS.get(action.type, usual)


class Names(argparse.Action):
    """Stores names that follow one another, or are joined by commas, as a list."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        names = [name.strip() for text in values for name in text.split(",")]
        setattr(namespace, self.dest, [name for name in names if name])
