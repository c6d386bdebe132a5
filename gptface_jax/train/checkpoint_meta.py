"""What a checkpoint says about itself, and whether a run may go on from it."""

from __future__ import annotations

import base64
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from gptface_jax.core.errors import UserError
from gptface_jax.train.checkpoint_folder import quiet
from gptface_jax.train.settings import first_difference

log = logging.getLogger(__name__)

FORMAT = "gptface-train/1"
# An extra file: JSON of fingerprints of what the run reads, by name. Where it is the
# same, files may lie elsewhere; checkpoints of older versions have none.
CONTENTS = "contents.json"


def make(
    step: int,
    system: str,
    config: Mapping[str, Any],
    extra: Mapping[str, bytes],
    data_position: int,
    early_stop: Mapping[str, Any] | None = None,
    constants: Mapping[str, str] | None = None,
    unevaluated: bool = False,
) -> dict[str, Any]:
    """The JSON that a checkpoint says about itself; bytes become base64 or text.

    `constants`: name -> digest. `unevaluated`: an evaluation was due and not made.
    """
    return {
        "format": FORMAT,
        "step": step,
        "data_position": data_position,
        "early_stop": dict(early_stop or {}),
        "unevaluated": unevaluated,
        "system": system,
        "constants": dict(constants or {}),
        "config": dict(config),
        "extra_files": {name: _encode(data) for name, data in extra.items()},
    }


def _encode(data: bytes) -> dict[str, str]:
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _decode(entry: Mapping[str, str]) -> bytes:
    if "text" in entry:
        return entry["text"].encode("utf-8")
    return base64.b64decode(entry["base64"])


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The meta of a checkpoint, see `make`; `extra_files` as bytes."""
    with quiet(), ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        meta = reader.restore(folder / "meta", args=ocp.args.JsonRestore())
    meta["extra_files"] = {k: _decode(v) for k, v in meta["extra_files"].items()}
    return meta


def check_same_run(
    meta: Mapping[str, Any],
    system: str,
    config: Any,
    extra: Mapping[str, bytes],
    where: Any,
    constants: Mapping[str, str] | None = None,
    resumable: tuple[str, ...] = (),
) -> None:
    """Raises where a checkpoint is of another model, config, constant or extra file.

    What the run reads may lie elsewhere, if it is the same (`CONTENTS`). Where it lies
    as before it may have changed, with a warning: a picture that could not be read was
    mended, say.

    Args:
      meta: of the checkpoint.
      system, config, extra, constants: of this run, as of `make`.
      where: the work folder.
      resumable: see `settings.first_difference`.

    Raises:
      UserError: names the first key, constant or file that differs.
    """
    saved, files = dict(meta["extra_files"]), dict(extra)
    there, here = (json.loads(f.pop(CONTENTS, b"null")) for f in (saved, files))
    if there and here:  # older versions noted a network among them
        there = {k: v for k, v in there.items() if k in here or k.startswith("data.")}
    # Equal fingerprints are the same data wherever they lie; None is an old checkpoint.
    same = there is not None and there == here

    def compared(moved: bool) -> str | None:
        return first_difference(meta["config"], config, moved, resumable)

    difference = compared(moved=same)
    known = meta.get("constants", {})  # checkpoints of older versions have none
    for name, digest in (constants or {}).items():
        if known.get(name, digest) != digest:
            difference = f"its constant '{name}' has the digest {known[name]} there"
            difference += f" and {digest} here"
    odd = [n for n in sorted({*saved, *files}) if not _same(saved.get(n), files.get(n))]
    if odd and not difference:
        difference = f"its {odd[0]} is not the one of this run"
    if there and here and not same:
        names = [n for n in {**there, **here} if there.get(n) != here.get(n)]
        found = f"{', '.join(names)}: files were added, removed or altered"
        if difference and not compared(moved=True):
            difference += f", and not only moved ({found})"
        elif not difference and jax.process_index() == 0:
            log.warning("%s since step %d; going on", found, meta["step"])
    if meta["system"] != system:
        difference = f"system is {meta['system']!r} there and {system!r} here"
    if difference:
        raise UserError(
            f"'{where}' holds a checkpoint (step {meta['step']}) of another run: "
            f"{difference}; use another --workdir, where "
            f"--config.init_from='{where}' starts with the weights of this one"
        )


def _same(saved: bytes | None, here: bytes | None) -> bool:
    """Whether a file is as it was, but for entries that older versions did not note."""
    if saved == here or saved is None or here is None:
        return saved == here
    try:
        before, now = json.loads(saved), json.loads(here)
    except ValueError:
        return False
    known = isinstance(before, dict) and isinstance(now, dict)
    return known and {k: now.get(k) for k in before} == before
