"""The configs that come with the project, by name; a copy of them to change.

  gptface configs
  gptface configs talk2face
  gptface configs --copy my_project

A name stands wherever a config file does: `gptface train --config vqgan/faces64:tiny`.
--copy writes configs/ and launch/ (starters for SLURM, Kubernetes, TPU pods, sweeps)
into a folder, from which the commands of the docs run as they stand there.
"""

from __future__ import annotations

import argparse
import ast
import pathlib
import shutil

from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("part", nargs="?", default="", help="of the names to list")
    parser.add_argument(
        "--copy", metavar="DIR", help="write configs/ and launch/ there"
    )


def run(options: argparse.Namespace) -> None:
    from gptface_jax.core import config_names, files

    if options.copy:
        target = pathlib.Path(options.copy)
        files.check_place(target)
        for name in ("configs", "launch"):
            if (target / name).exists():
                raise UserError(f"'{target / name}' exists; give another folder")
        for name in ("configs", "launch"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(config_names.root() / name, target / name, ignore=ignored)
        print(f"configs/ and launch/ are in {target}")
        return
    found = {n: p for n, p in config_names.names().items() if options.part in n}
    if not found:
        raise UserError(f"no config has '{options.part}' in its name")
    width = max(map(len, found))
    for name, path in found.items():
        print(f"{name:<{width}}  {_first_sentence(path)}")


def _first_sentence(path: pathlib.Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split()).partition(". ")[0]
