"""Help of every verb: what it is for, an example, every option and its default."""

import argparse

import pytest

from gptface_jax.cli import _help
from gptface_jax.cli.main import VERBS, main, verb_module


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Those of all verbs and their kinds, by what one types."""
    found = {}
    for verb in VERBS:
        parser = argparse.ArgumentParser(
            verb, description=verb_module(verb).__doc__, formatter_class=_help.Formatter
        )
        verb_module(verb).add_arguments(parser)
        found[verb] = parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                found |= {f"{verb} {kind}": p for kind, p in action.choices.items()}
    return found


PARSERS = parsers()


@pytest.mark.parametrize("words", PARSERS)
def test_every_help_teaches(words):
    """An example, what every option is for, and what it is where it is not given."""
    parser = PARSERS[words]
    assert f"gptface {words}" in parser.description
    assert "../shared" not in parser.description  # what no user has
    shown = " ".join(parser.format_help().split())
    for action in parser._actions:
        assert action.help or action.dest == "what", action.dest
        unset = action.default in (None, argparse.SUPPRESS, "", [])
        if action.option_strings and action.nargs != 0 and not unset:
            if action.help is not argparse.SUPPRESS and "default" not in action.help:
                told = " ".join((action.help % {}).split())
                assert f"{told}; default " in shown, action.dest


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_its_help(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert not stop.value.code
    assert f"usage: gptface {verb} " in capsys.readouterr().out


def test_help_tells_defaults_and_numbers():
    parser = argparse.ArgumentParser("x", formatter_class=_help.Formatter)
    parser.add_argument("--count", type=int, default=0, help="how many")
    parser.add_argument("--share", type=float, help="of all; default a half")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds")
    parser.add_argument("--names", nargs="+", action=_help.Names, help="which")
    parser.add_argument("--quiet", action="store_true", help="no bar")
    said = parser.format_help()
    for line in (
        "--count N             how many; default 0",
        "--share X             of all; default a half",
        "--seeds N [N ...]     seeds; default 0 1",
        "--quiet               no bar\n",
    ):
        assert line in said
    for given in (["--names", "a", "b"], ["--names", "a,b"], ["--names", "a,", "b"]):
        assert parser.parse_args(given).names == ["a", "b"]


def test_kinds_of_evaluation_take_what_they_use_alone(capsys):
    """A flag that a kind would leave out of account is refused."""
    for *command, hint in (
        ("likelihood", "--run", "x", "--images", "x", ""),
        ("matching", "--images", "x", "--run", "x", ""),
        ("matching", "--images", "x", "--modell", "x", " (did you mean '--model'?)"),
    ):
        with pytest.raises(SystemExit):
            main(["evaluate", *command])
        said = capsys.readouterr().err
        assert f"unknown argument '{command[-2]}'{hint}" in said
