"""The command line: parses, calls, prints; every verb imports what it needs."""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import sys
import types
from collections.abc import Sequence

from gptface_jax import __version__
from gptface_jax.cli import _help, _kinds, _pipes, _written
from gptface_jax.core import allocator, compiled
from gptface_jax.core.config import split_overrides
from gptface_jax.core.errors import UserError, nearest

# Of a verb whose output nobody reads any more: as of one that SIGPIPE ends.
CLOSED = 141
# verb -> what it does; see `verb_module`.
VERBS = {
    "quickstart": "text-guided edits with the bundled demo model, in a minute",
    "train": "train a tokenizer, GPTFace, Talk2Face, Faceptor, FaceGPT or judge",
    "prepare": "photos, drawn or rendered faces, the raw web -> ArrayRecord shards",
    "data": "look at a set of pictures: inspect, check, split, stats",
    "tokenize": "photos -> ArrayRecord cache of image ids, texts and labels",
    "reconstruct": "photos through VQGANs and back: a grid, and figures that compare",
    "faces": "find the faces of a photo: boxes, points, and a picture of them",
    "edit": "edit a region of a photo with a sentence",
    "inpaint": "fill a region of a photo without a text",
    "restore": "paint over the scratches of an old photo",
    "stitch": "join two photos along a seam",
    "sample": "draw faces out of nothing, or after a sentence",
    "synthesize": "draw faces after a sentence or attributes (Talk2Face)",
    "caption": "sentences for a photo",
    "ask": "ask a photo for an age, an expression, an attribute (Talk2Face)",
    "perceive": "landmarks, parts, age, expression, attributes of faces (Faceptor)",
    "face3d": "the 3D head of a photo, or after a sentence (FaceGPT)",
    "detect": "was a picture edited here? metadata and watermark",
    "tag": "words and sentences that fit a photo, and how well",
    "serve": "edit photos in a browser: paint a region, type a sentence",
    "evaluate": "figures of a trained model: likelihoods, matching, edits",
    "export": "training runs -> a model directory, or another project's file",
    "import": "weights of other projects -> a model directory",
    "describe": "parameters of a model; memory, FLOPs and time of training it",
    "plot": "curves of training runs in one picture",
    "configs": "the configs that come with the project; a copy of them to change",
    "doctor": "what this installation has and lacks, and what to do",
}
# Those that compute for long enough that another allocator is worth a second start.
_LONG = ("train",)
# Those whose threads may still compute when they are ended: within XLA such a thread
# aborts the process ("exception not rethrown") while Python takes itself down.
_THREADED = ("serve",)
_EPILOG = """\
A verb's own help: gptface VERB --help

  gptface quickstart
  gptface edit --image photo.jpg --region mouth --text "a smiling woman" --out new.png
  gptface train --config configs/vqgan/faces64.py:tiny --workdir runs/try
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gptface",
        description="Face foundation models in JAX: edit a face with a sentence.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, text in VERBS.items():
        verbs.add_parser(name, help=text, add_help=False)
    return parser


def verb_module(verb: str) -> types.ModuleType:
    """The module gptface_jax.cli.<verb>; <verb>_ where Python has that word itself."""
    name = f"{verb}_" if keyword.iskeyword(verb) else verb
    return importlib.import_module(f"gptface_jax.cli.{name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Returns:
      0; 2 for bad input, whose one line goes to stderr; 75 for a run that was asked
      to end and has saved; 130 after Ctrl-C; 141 where the output is a pipe that
      nobody reads any more (`| head`).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        _parser().print_help(sys.stderr)
        return 2
    _check_verb(arguments)
    known, rest = _parser().parse_known_args(arguments)
    verb = verb_module(known.verb)
    parser = argparse.ArgumentParser(
        prog=f"gptface {known.verb}",
        description=verb.__doc__,
        formatter_class=_help.Formatter,
    )
    verb.add_arguments(parser)
    # First, for to argparse a word with a space in it is no option.
    rest, overrides = split_overrides(rest)
    options, foreign = parser.parse_known_args(rest)
    if foreign or (overrides and not hasattr(options, "config")):
        wrong = foreign[0] if foreign else f"--config.{overrides[0]}"
        names = _kinds.option_names(parser, options)
        hint = nearest(wrong.partition("=")[0], names)
        parser.error(f"unknown argument {wrong!r}{hint}; see --help")
    options.overrides = overrides
    # XLA's start-up lines tell a user nothing.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    compiled.keep_in_environment()
    _pipes.prepare_output()
    status = _run(verb, options, known, own_process=argv is None)
    if argv is None and known.verb in _THREADED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return CLOSED if _pipes.is_closed() and not status else status


def _check_verb(arguments: list[str]) -> None:
    """Ends with the nearest verb where the first word is none."""
    verb = next((word for word in arguments if not word.startswith("-")), None)
    if verb is not None and verb not in VERBS:
        hint = nearest(verb, VERBS)
        parser = argparse.ArgumentParser(prog="gptface", usage="gptface VERB ...")
        parser.error(f"unknown verb {verb!r}{hint}; see gptface --help")


def _run(
    verb: types.ModuleType, options, known: argparse.Namespace, own_process: bool
) -> int:
    try:
        if own_process and known.verb in _LONG:
            allocator.start_again(f"gptface {known.verb}")
        _written.check(options)
        with _pipes.as_files(options):
            verb.run(options)
    except UserError as error:
        if known.debug:
            raise
        _complain(known.verb, error)
        return error.status
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _pipes.is_closed():
            return CLOSED
        if known.debug:
            raise
        where = f" '{error.filename}'" if error.filename else ""
        _complain(
            known.verb,
            f"{error.strerror or error}{where}; check the path, its permissions and "
            "the free space",
        )
        return 2
    except SystemExit as end:  # of a signal; all that was opened is closed
        return int(end.code or 0)
    except KeyboardInterrupt:
        _complain(known.verb, "stopped")
        return 130
    return 0


def _complain(verb: str, why: object) -> None:
    """Prints why a verb ends, on a line of its own: bars on the screen are closed."""
    if bars := sys.modules.get("tqdm"):
        for bar in list(getattr(bars.tqdm, "_instances", ())):
            bar.close()
    print(f"gptface {verb}: {why}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
