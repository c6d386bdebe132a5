"""Faceptor of lxq1000/Faceptor, in and out, and image encoders of FaRL (SPEC C.10).

Every name and shape of a file must be right; nothing in it is run. A released file may
lack what only training or only stage 2 needs: the classifier of identities, and the
levels of Layer-Attention. What is read then has none either.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.interop import faceptor_names, state_dict
from gptface_jax.nn.perception import PerceptionConfig, TaskConfig
from gptface_jax.nn.query_decoder import QueryDecoderConfig
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.nn.vit import CLIP, ViTConfig, resized_positions

_PREFIX = "module."
_NEW_LEVELS = "heads_module.decoder.new_"
_NAIVE = "heads_module.heads."
_INTERPRETERS = {"value": "value", "map_v2": "map", "feature_v2": "feature"}
_NAIVE_SIZES = {
    "attribute_width": "attribute_width",
    "dense_width": "dense_width",
    "attribute_levels": "indices_attribute",
    "dense_levels": "indices_dense",
}
# Of a checkpoint of FaRL: everything but the encoder of pictures.
_TEXT = re.compile(
    r"transformer\.|token_embedding\.|ln_final\.|positional_embedding$|"
    r"text_projection$|logit_scale$"
)
_HEAD_WIDTH = 64  # of every ViT of CLIP; its files do not say how many heads there are


def read_config(
    config: str | os.PathLike | Mapping[str, Any], naive: bool = False
) -> PerceptionConfig:
    """The network that sizes and a table of tasks describe.

    Args:
      config: a mapping, or the path of one as JSON: `backbone` (width, layers, heads,
        patch_size, output_dim, forced_resolution), `decoder` (hidden_dim, layers,
        heads, ffn_dim, levels, new_levels), `recognition` (embedding_dim, identities),
        `attribute_resolution`, `dense_resolution`, `pixel_source_level`, `pixels`
        ("family", where it is missing), and `tasks` (each with name, queries,
        interpreter, and perhaps resolution and loss); of the naive design `naive`.
      naive: of the naive design.

    Raises:
      UserError: no such file, or something that is missing or makes no sense.
    """
    if not isinstance(config, Mapping):
        config = _read_json(config)
    try:
        tasks = _naive_tasks(config) if naive else None
        described = PerceptionConfig(
            vit=_vit_config(config["backbone"]),
            decoder=_decoder_config(config["decoder"]),
            tasks=tasks or tuple(_task(task, config) for task in config["tasks"]),
            pixels=config.get("pixels", "family"),
            source_level=int(config["pixel_source_level"]),
            embedding_width=int(config["recognition"]["embedding_dim"]),
            attribute_resolution=int(config["attribute_resolution"]),
            dense_resolution=int(config["dense_resolution"]),
        )
        return _as_naive(described, config.get("naive", {})) if naive else described
    except KeyError as error:
        raise UserError(f"the config of Faceptor lacks {error}; add it") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"the config describes no Faceptor: {error}") from None


def _read_json(path: str | os.PathLike) -> Mapping[str, Any]:
    try:
        found = json.loads(pathlib.Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the config '{path}': {reason}") from None
    if not isinstance(found, dict):
        raise UserError(f"config '{path}' is no JSON object; give one with sizes")
    return found


def _vit_config(sizes: Mapping[str, Any]) -> ViTConfig:
    width, patch = int(sizes["width"]), int(sizes["patch_size"])
    return ViTConfig(
        TransformerConfig(
            num_layers=int(sizes["layers"]),
            width=width,
            num_heads=int(sizes["heads"]),
            mlp_width=int(sizes.get("mlp_width", 4 * width)),
            **CLIP,
        ),
        patch,
        int(sizes["forced_resolution"]) // patch,
        int(sizes["output_dim"]),
    )


def _decoder_config(sizes: Mapping[str, Any]) -> QueryDecoderConfig:
    return QueryDecoderConfig(
        width=int(sizes["hidden_dim"]),
        layers=int(sizes["layers"]),
        heads=int(sizes["heads"]),
        mlp_width=int(sizes["ffn_dim"]),
        levels=tuple(map(int, sizes["levels"])),
        new_levels=tuple(map(int, sizes.get("new_levels", ()))),
    )


def _task(task: Mapping[str, Any], config: Mapping[str, Any]) -> TaskConfig:
    made = TaskConfig(
        task["name"], int(task["queries"]), resolution=int(task.get("resolution", 0))
    )
    interpreter = task.get("interpreter")
    if interpreter is not None and _INTERPRETERS.get(interpreter) != made.interpreter:
        raise ValueError(
            f"task '{made.name}' has the interpreter {interpreter!r}; its family is "
            f"read by '{made.interpreter}'"
        )
    if made.has_queries:
        return made
    loss = task.get("loss", {}).get("kwargs", {})
    identities = loss.get("out_features", config["recognition"].get("identities", 0))
    return dataclasses.replace(made, identities=int(identities))


def _naive_tasks(config: Mapping[str, Any]) -> tuple[TaskConfig, ...]:
    """Tasks of the heads that the section `naive` lists; () where it lists none."""
    subnets = config.get("naive", {}).get("subnets", {})
    rows = [subnet["kwargs"] for subnet in subnets.values()]
    return tuple(
        TaskConfig(name, int(count))
        for row in rows
        for name, count in zip(row.get("task_names", ()), row.get("outputs", ()))
    )


def _as_naive(config: PerceptionConfig, sizes: Mapping[str, Any]) -> PerceptionConfig:
    names = _NAIVE_SIZES.items()
    given = {ours: sizes[theirs] for ours, theirs in names if theirs in sizes}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return dataclasses.replace(config, design="heads", **given)


def load(
    path: str | os.PathLike, config: str | os.PathLike | Mapping[str, Any]
) -> tuple[PerceptionConfig, dict[str, Any], dict[str, Any]]:
    """(config, params, state) of a released Faceptor, or of a naive one.

    Args:
      path: their `.pth.tar`, or another file of PyTorch, or `.safetensors`.
      config: see `read_config`.

    Returns:
      The config of `nn.perception.Perception`, without levels of stage 2 and without
      classifiers where the file has none; its parameters, float32; and its state,
      {"batch_stats": ...}.

    Raises:
      UserError: a file that cannot be read, a missing, unknown or misshapen weight.
    """
    return _load(path, config, backbone=True)


def load_heads(
    path: str | os.PathLike, config: str | os.PathLike | Mapping[str, Any]
) -> tuple[PerceptionConfig, dict[str, Any], dict[str, Any]]:
    """The same as `load` for a file without an encoder: for `model.apply_to_maps`."""
    return _load(path, config, backbone=False)


def _load(path, config, backbone):
    found = _named(path)
    naive = any(name.startswith(_NAIVE) for name in found)
    described = _without_absent(read_config(config, naive), found)
    wanted = list(faceptor_names.weights(described, backbone))
    _check(path, found, wanted, "the Faceptor of its config")
    variables = _converted(path, found, wanted)
    state = {"batch_stats": variables.get("batch_stats", {})}
    return described, variables["params"], state


def _named(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The weights of a file by name, without "module." before all of them."""
    found = state_dict.read(path)
    if all(name.startswith(_PREFIX) for name in found):
        found = {name.removeprefix(_PREFIX): array for name, array in found.items()}
    return found


def _without_absent(config: PerceptionConfig, found: Iterable[str]):
    """The config without the parts that a released file may lack as a whole."""
    tasks = tuple(
        task
        if f"losses_module.losses.{task.name}.classifier" in found
        else dataclasses.replace(task, identities=0)
        for task in config.tasks
    )
    decoder = config.decoder
    if not any(name.startswith(_NEW_LEVELS) for name in found):
        decoder = dataclasses.replace(decoder, new_levels=())
    return dataclasses.replace(config, tasks=tasks, decoder=decoder)


def _check(path, found, wanted, what):
    shapes = {name: array.shape for name, array in found.items()}
    expected = {weight.name: weight.shape for weight in wanted}
    if differences := state_dict.differences(shapes, expected):
        raise UserError(
            f"'{path}' is not {what}: {differences}; give the config that it was "
            "trained with"
        )


def _converted(path, found, wanted) -> dict[str, Any]:
    """Our trees of their weights, those of layers stacked."""
    flat: dict[str, Any] = {}
    layers: dict[str, dict[int, np.ndarray]] = collections.defaultdict(dict)
    for weight in wanted:
        array = found[weight.name]
        if weight.form != "count":
            array = state_dict.as_float32(array, weight.name)
        for name, part in zip(weight.paths, weight.ours(array)):
            if weight.alias:
                if not np.array_equal(part, flat[name], equal_nan=True):
                    raise UserError(
                        f"'{path}': '{weight.name}' should repeat another weight and "
                        "does not; get the file again"
                    )
            elif weight.layer is None:
                flat[name] = np.asarray(part, order="C")
            else:
                layers[name][weight.layer] = part
    for name, parts in layers.items():
        flat[name] = np.stack([parts[i] for i in range(len(parts))])
    return trees.unflatten(flat)


def to_state_dict(
    config: PerceptionConfig, params: Any, state: Any
) -> dict[str, np.ndarray]:
    """Name in their files -> array, what `load` reads.

    Raises:
      UserError: a network that theirs cannot be.
    """
    if config.encoder != "vit":
        raise UserError(
            f"the encoder is '{config.encoder}'; Faceptor's files hold a ViT: such a "
            "network cannot be exported to them"
        )
    flat = trees.flatten(nn.meta.unbox({"params": params, **state}))
    made = {}
    for weight in faceptor_names.weights(config, "backbone" in params):
        arrays = [np.asarray(flat[path]) for path in weight.paths]
        if weight.layer is not None:
            arrays = [array[weight.layer] for array in arrays]
        made[_PREFIX + weight.name] = np.asarray(weight.theirs(arrays), order="C")
    return made


def save(
    path: str | os.PathLike,
    config: PerceptionConfig,
    params: Any,
    state: Any,
    step: int = 0,
) -> None:
    """Writes a checkpoint in the layout of the release, or `.safetensors`.

    Args:
      path: ends in .pth.tar, .ckpt, .pt, .pth, .bin or .safetensors.
      config, params, state: of a `Perception`.
      step: that the checkpoint says it was made at.

    Raises:
      UserError: another ending, or a network that theirs cannot be.
    """
    state_dict.check(path)
    state_dict.write(path, to_state_dict(config, params, state), beside={"step": step})


def their_config(config: PerceptionConfig) -> dict[str, Any]:
    """The sizes and tasks of a network: the inverse of `read_config`."""
    vit, decoder = config.vit, config.decoder
    t, names = vit.transformer, {v: k for k, v in _INTERPRETERS.items()}
    found: dict[str, Any] = {
        "backbone": {
            "width": t.width,
            "layers": t.num_layers,
            "heads": t.num_heads,
            "mlp_width": t.mlp_width,
            "patch_size": vit.patch,
            "output_dim": vit.output_width,
            "forced_resolution": vit.patch * vit.grid,
        },
        "decoder": {
            "hidden_dim": decoder.width,
            "layers": decoder.layers,
            "heads": decoder.heads,
            "ffn_dim": decoder.mlp_width,
            "levels": list(decoder.levels),
            "new_levels": list(decoder.new_levels),
        },
        "recognition": {
            "embedding_dim": config.embedding_width,
            "identities": max((task.identities for task in config.tasks), default=0),
        },
        "attribute_resolution": config.attribute_resolution,
        "dense_resolution": config.dense_resolution,
        "pixel_source_level": config.source_level,
        "pixels": config.pixels,
        "tasks": [_their_task(task, names[task.interpreter]) for task in config.tasks],
    }
    if config.design == "heads":
        sizes = {theirs: getattr(config, ours) for ours, theirs in _NAIVE_SIZES.items()}
        found["naive"] = {
            k: list(v) if isinstance(v, tuple) else v for k, v in sizes.items()
        }
    return found


def _their_task(task: TaskConfig, interpreter: str) -> dict[str, Any]:
    """A row of `tasks`: the inverse of `_task`."""
    row = {"name": task.name, "queries": task.queries, "interpreter": interpreter}
    if task.resolution:
        row["resolution"] = task.resolution
    if not task.has_queries:
        row["loss"] = {"kwargs": {"out_features": task.identities}}
    return row


def load_farl(
    path: str | os.PathLike, grid: int = 32
) -> tuple[ViTConfig, dict[str, Any]]:
    """(config, params) of the encoder of pictures in a checkpoint of FaRL or CLIP.

    Args:
      path: such as `FaRL-Base-Patch16-LAIONFace20M-ep64.pth`.
      grid: side of the table of positions, which is resized once (SPEC C.2).

    Returns:
      For `nn.vit.ViT`; parameters are float32.

    Raises:
      UserError: a file that cannot be read, or that holds something else.
    """
    found = {k: x for k, x in _named(path).items() if not _TEXT.match(k)}
    try:
        width, _, patch, _ = found["visual.conv1.weight"].shape
        rows = len(found["visual.positional_embedding"])
        output = found["visual.proj"].shape[1]
        mlp = len(found["visual.transformer.resblocks.0.mlp.c_fc.weight"])
    except (KeyError, ValueError, IndexError):
        raise UserError(
            f"'{path}' holds no ViT of FaRL or CLIP (visual.conv1.weight and others); "
            "give a checkpoint of FaRL-Base-Patch16"
        ) from None
    numbers = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.")
    layers = {int(m[1]) for name in found if (m := numbers.match(name))}
    try:
        transformer = TransformerConfig(
            num_layers=max(layers) + 1,
            width=width,
            num_heads=max(1, width // _HEAD_WIDTH),
            mlp_width=mlp,
            **CLIP,
        )
    except ValueError as error:
        raise UserError(f"'{path}' holds no ViT of FaRL or CLIP: {error}") from None
    stored = ViTConfig(transformer, patch, round((rows - 1) ** 0.5), output)
    wanted = list(faceptor_names.vit(stored, "visual.", "params"))
    _check(path, found, wanted, "a ViT of FaRL or CLIP")
    params = _converted(path, found, wanted)["params"]
    with jax.default_device(jax.devices("cpu")[0]):
        params["position"] = np.asarray(
            resized_positions(params["position"], (grid, grid))
        )
    return dataclasses.replace(stored, grid=grid), params
