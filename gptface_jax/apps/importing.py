"""Foreign checkpoints -> model directories."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from gptface_jax.apps import exporting
from gptface_jax.interop import taming


def import_taming(
    checkpoint: str | os.PathLike, config: str | os.PathLike, out: str | os.PathLike
) -> list[str]:
    """Writes a model directory with the VQGAN of a taming checkpoint, float32.

    Args:
      checkpoint, config: see `interop.taming.load`.
      out: new folder.

    Returns:
      Lines for a person: what was matched, what was left aside, the config.

    Raises:
      UserError: see `interop.taming.read` and `interop.directory.write`.
    """
    found = taming.read(checkpoint, config)
    name = pathlib.Path(checkpoint).name
    facts = {
        "description": f"Imported from `{name}` of taming-transformers.",
        "origin": "Its licence and its limits are those of that checkpoint.",
    }
    source = {"imported": {"format": "taming", "checkpoint": name}}
    millions = exporting.write_tokenizer(
        out, found.config, found.params, facts, source=source, files={}, dtype="float32"
    )
    lines = [f"matched: {found.matched} weights, {millions['vqgan']:.2f} M parameters"]
    aside = [f"{count} of the {part}" for part, count in found.ignored.items()]
    lines.append(f"left aside: {', '.join(aside) or 'nothing'}")
    if found.never_met:
        lines.append(
            f"attn_resolutions {', '.join(map(str, found.never_met))}: never met at "
            f"resolution {found.config.resolution}, as in taming"
        )
    values = dataclasses.asdict(found.config)
    return [*lines, f"config: {', '.join(f'{k}={v}' for k, v in values.items())}"]
