"""An editor as one StableHLO program, which runs without this package (jax.export)."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from gptface_jax.apps import api
from gptface_jax.core import extras
from gptface_jax.core.config import to_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.data import blending
from gptface_jax.experiments import registry
from gptface_jax.interop import directory
from gptface_jax.ops.pictures import known_pixels, to_unit_range
from gptface_jax.pipelines import networks
from gptface_jax.pipelines.editor import Editor
from gptface_jax.systems.gptface import decode
from gptface_jax.systems.gptface.model import assemble
from gptface_jax.systems.gptface.options import DecodeConfig

PLATFORMS = ("cpu", "cuda", "tpu")
NAME, SCRIPT = "editor.stablehlo", "edit.py"


def edit_function(editor: Editor, config: DecodeConfig, num_candidates: int = 1):
    """A function that is the whole edit of a batch, from pixels to pixels.

    Returns:
      A function of
        weights: {"vqgan": params, "gptface": params},
        images: uint8 [B,S,S,3], masks: bool [B,S,S] (True = may change),
        text_ids: int32 [B,m] (`TextTokenizer.encode`; all [PAD] for no text),
        seeds: uint32 [B]
      to {"images": uint8 [B,S,S,3] raw decodes, "image_ids": int32 [B,h,w],
      "itm_log_prob": float32 [B,T], "final_log_prob": float32 [B]}, the same as
      those of `Editor.edit`.
    """
    vqgan, gptface = editor.vqgan.network.module, editor.module
    layout, vocab = editor.layout, editor.vocab
    cell = editor.size // layout.grid[0], editor.size // layout.grid[1]
    prefill = jax.vmap(lambda x, mask: blending.prefill(x, mask, jnp))

    def edit(weights, images, masks, text_ids, seeds):
        count = images.shape[0]
        # A token is open where any of its pixels is.
        cells = masks.reshape(count, layout.grid[0], cell[0], layout.grid[1], cell[1])
        is_open = cells.any((2, 4))
        hidden = jnp.repeat(jnp.repeat(is_open, cell[0], 1), cell[1], 2)
        pixels = to_unit_range(images)
        params = {"params": weights["vqgan"]}
        ids = vqgan.apply(params, prefill(pixels, hidden), method="encode")
        tokens = assemble(ids.reshape(count, -1), text_ids, editor.module.config)
        known = jnp.ones(tokens.shape, bool)
        known = known.at[:, layout.image_slice].set(~is_open.reshape(count, -1))
        keys = jax.vmap(jax.random.key)(seeds)
        result, scores = decode.rerank(
            gptface, weights["gptface"], tokens, known, config, keys, num_candidates,
            codebook=weights["vqgan"]["codebook"],
        )  # fmt: skip
        ids = vocab.joint_to_image(result.tokens[:, layout.image_slice])
        ids = ids.reshape(count, *layout.grid)
        sees = vqgan.config.condition_channels
        known = [known_pixels(pixels, masks)] if sees else []
        decoded = vqgan.apply(params, ids, *known, method="decode")
        levels = jnp.clip(jnp.round((decoded + 1.0) * 127.5), 0, 255)
        return {
            "images": levels.astype(jnp.uint8),
            "image_ids": ids,
            "itm_log_prob": result.itm_log_prob,
            "final_log_prob": jnp.max(scores, axis=1),
        }

    return edit


def write(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    batch_size: int = 1,
    samples: int | None = None,
    decode_options: Mapping[str, Any] | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> int:
    """Writes a model directory with `editor.stablehlo` and `edit.py`, which runs it.

    edit.py needs jax, numpy, pillow, safetensors, tokenizers and flatbuffers, and
    nothing of this package. jax.export promises that JAX loads the program for
    six months of releases; config.json says what made it ("program", "made_with").

    Args:
      source: bundled name, model directory or hub id.
      out: new folder.
      batch_size: pictures that the program edits at once.
      samples: candidates of each, of which the program keeps the best; default
        `Model.default_candidates`.
      decode_options: changed fields of the model's `DecodeConfig`.
      platforms: the program runs on.

    Returns:
      Bytes of the program.

    Raises:
      UserError: no model directory, options that make no sense, no `flatbuffers`.
    """
    _check(batch_size, samples, platforms)
    folder = networks.locate(source)
    model = api.load(folder)
    config = model.decode_config(decode_options or {})
    samples = samples or model.default_candidates(config)
    editor = model.editor
    weights = {"vqgan": editor.vqgan.network.params, "gptface": editor.gptface.params}
    function = edit_function(editor, config, samples)
    program = _exported(editor, function, weights, batch_size, platforms)
    known = directory.read_config(folder)
    # Of several systems on one set of weights, the program holds the editor alone.
    settings = {k: v for k, v in known.items() if k not in registry.SYSTEMS}
    settings["vqgan"] = known["vqgan"]
    settings["gptface"] = to_mapping(editor.gptface.config)
    if "training" in known:
        settings["training"] = editor.gptface.meta["training"]
    made_with = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    settings["program"] = {
        "file": NAME,
        "platforms": list(platforms),
        "made_with": made_with,
        "details": {**model.details(True, "", 0, config), "samples": samples},
        "batch_size": batch_size,
        "size": editor.size,
        "max_text_tokens": editor.max_text_tokens,
        "pad_id": editor.text_tokenizer.pad_id,
    }
    script = importlib.resources.files("gptface_jax") / "assets" / SCRIPT
    files = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in (".txt", ".md", ".json") and path.name != "config.json"
    }
    files |= {NAME: program, SCRIPT: script.read_bytes()}
    directory.write(out, settings, weights, files, settings["dtype"])
    return len(program)


def _check(batch_size: int, samples: int | None, platforms: Sequence[str]) -> None:
    """Raises UserError for options of `write` that make no sense."""
    if batch_size < 1 or (samples is not None and samples < 1):
        raise UserError(
            f"batch_size is {batch_size} and samples {samples}; use 1 or more"
        )
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown or not platforms:
        raise UserError(
            f"platform '{(*unknown, '')[0]}' is none of {', '.join(PLATFORMS)}"
        )
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise UserError(
            "StableHLO programs are stored by flatbuffers; " + extras.install("export")
        ) from None


def _exported(
    editor: Editor,
    function: Callable[..., Any],
    weights: Mapping[str, Any],
    batch_size: int,
    platforms: Sequence[str],
) -> bytes:
    """The serialised program of a function that `edit_function` made."""
    size = editor.size

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((batch_size, *shape), dtype)

    # Weights are arguments and float32 whatever they are stored in: the program holds
    # none of them, and edit.py converts what it reads.
    exported = jax_export.export(jax.jit(function), platforms=tuple(platforms))(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), weights),
        array(np.uint8, size, size, 3),
        array(bool, size, size),
        array(np.int32, editor.max_text_tokens),
        array(np.uint32),
    )
    return bytes(exported.serialize())
