"""Transformers of Tencent/TencentPretrain, in and out: Talk2Face and GLU encoders.

Their file is a flat dictionary of tensors (`talk2face.bin`, SPEC B.11) which the
reference loads without looking at what is missing or left over; here every name and
shape must be right. Nothing in a file is run.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.core.vocab import JointVocab
from gptface_jax.interop import state_dict
from gptface_jax.nn.prefix_lm import PrefixLMConfig
from gptface_jax.nn.transformer import TransformerConfig

_OUTPUT, _OUTPUT_BIAS = "target.lm.output_layer.weight", "target.lm.output_layer.bias"
_WORDS = "embedding.word.embedding.weight"
_MASKS = {"prefix": "prefix", "fully_visible": "full", "causal": "causal"}
_ACTIVATIONS = {"gelu": "gelu_exact", "gelu_fast": "gelu", "relu": "relu"}
_BERT = 30_522  # words of the released vocabulary; image codes come after them
# Their options -> the one value with which the network is the one that is built here.
_FIXED = {
    "remove_embedding_layernorm": True,
    "layernorm_positioning": "pre",
    "layernorm": "normal",
    "parameter_sharing": False,
    "factorized_embedding_parameterization": False,
    "remove_transformer_bias": False,
    "remove_attention_scale": False,
    "relative_position_embedding": False,
    "rotary_position_embedding": False,
    "residual_attention": False,
    "has_residual_attention": False,
}
# Options that decide the network, all others being of training.
_NEEDED = ("hidden_size", "heads_num", "layers_num", "feedforward_size", "vocab_size")


def read_config(config: str | os.PathLike | Mapping[str, Any]) -> PrefixLMConfig:
    """The network that their options describe.

    Args:
      config: a mapping like their JSON, or the path of one: `hidden_size`,
        `heads_num`, `layers_num`, `feedforward_size`, `vocab_size`, and where it
        differs from Talk2Face's `embedding` (["word", "pos", "seg"]),
        `max_seq_length`, `mask`, `feed_forward`, `hidden_act`, `dropout`. Ours:
        `codebook_size`, the last so many ids (default what comes after BERT's), and
        `grid` of the image tokens.

    Raises:
      UserError: no such file, an option that is missing, or one that is not built.
    """
    if not isinstance(config, Mapping):
        config = _read_json(config)
    if lacking := [name for name in _NEEDED if name not in config]:
        raise UserError(f"the config lacks {', '.join(lacking)}; add them")
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise UserError(
                f"config {name} is {config[name]!r}; only {value!r} is built here"
            )
    tables = list(config.get("embedding", ["word", "pos", "seg"]))
    if tables not in (["word", "pos"], ["word", "pos", "seg"]):
        raise UserError(
            f"config embedding is {tables}; use ['word', 'pos'], with 'seg' or without"
        )
    sizes = {name: _positive(config, name) for name in _NEEDED}
    length = _positive(config, "max_seq_length", 1024)
    words = min(sizes["vocab_size"], _BERT)
    codes = int(config.get("codebook_size", sizes["vocab_size"] - words))
    if not 0 <= codes < sizes["vocab_size"]:
        raise UserError(
            f"codebook_size is {codes}; it must be less than vocab_size "
            f"{sizes['vocab_size']}"
        )
    try:
        return PrefixLMConfig(
            transformer=_transformer(config, sizes),
            vocab=JointVocab(
                text_size=sizes["vocab_size"] - codes,
                codebook_size=codes,
                multiple_of=1,
            ),
            max_positions=length,
            segments=3 if "seg" in tables else 0,
            tied_output=False,
            grid=_grid(config),
            length=min(length, 334),
            visibility=_one_of(config, "mask", _MASKS),
        )
    except ValueError as error:
        raise UserError(f"the config describes no transformer: {error}") from None


def _transformer(
    config: Mapping[str, Any], sizes: Mapping[str, int]
) -> TransformerConfig:
    """The layers that their options describe."""
    return TransformerConfig(
        num_layers=sizes["layers_num"],
        width=sizes["hidden_size"],
        num_heads=sizes["heads_num"],
        mlp_width=sizes["feedforward_size"],
        feed_forward=_one_of(
            config, "feed_forward", {"dense": "dense", "gated": "gated"}
        ),
        gate=_one_of(config, "hidden_act", _ACTIVATIONS, "gelu_fast"),
        norm="unbiased",
        norm_eps=float(config.get("layernorm_eps", 1e-6)),
        dropout=float(config.get("dropout", 0.0)),
    )


def load(
    path: str | os.PathLike, config: str | os.PathLike | Mapping[str, Any]
) -> tuple[PrefixLMConfig, dict[str, Any]]:
    """(config, params) for `PrefixLM(config)`, params a nested dict of float32 arrays.

    An output matrix equal to the embeddings is read as tied to them; an output bias is
    read where there is one.

    Args:
      path: their `.bin`, or another file of PyTorch, or `.safetensors`.
      config: see `read_config`.

    Raises:
      UserError: a file that cannot be read, a missing, unknown or misshapen weight.
    """
    described = read_config(config)
    state = state_dict.read(path)
    tied = _OUTPUT in state and np.array_equal(state[_OUTPUT], state.get(_WORDS, ()))
    described = dataclasses.replace(
        described, tied_output=tied, output_bias=_OUTPUT_BIAS in state
    )
    wanted = {name: shape for name, _, shape, _ in _weights(described)}
    found = {name: array.shape for name, array in state.items()}
    if differences := state_dict.differences(found, wanted):
        raise UserError(
            f"'{path}' is not the transformer of its config: {differences}; give the "
            "config that it was trained with"
        )
    layers: dict[str, dict[int, np.ndarray]] = collections.defaultdict(dict)
    params: dict[str, np.ndarray] = {}
    for name, ours, _, layer in _weights(described):
        if ours is None:  # the second copy of a tied table
            continue
        array = state_dict.as_float32(state[name], name)
        array = array.T if ours.endswith("kernel") else array
        if layer is None:
            params[ours] = array
        else:
            layers[ours][layer] = array
    params |= {
        ours: np.stack([parts[i] for i in range(len(parts))])
        for ours, parts in layers.items()
    }
    return described, trees.unflatten(params)


def to_state_dict(config: PrefixLMConfig, params: Any) -> dict[str, np.ndarray]:
    """Name in their files -> float32 array.

    Raises:
      UserError: a network that theirs cannot be, by its shape or its variants.
    """
    _check_exportable(config)
    flat = trees.flatten(nn.meta.unbox(params))
    state = {}
    for name, ours, shape, layer in _weights(config):
        array = np.asarray(flat[ours or "tokens/embedding"], np.float32)
        array = array if layer is None else array[layer]
        array = array.T if (ours or "").endswith("kernel") else array
        # Rows that round the table up to a multiple have no ids.
        state[name] = np.ascontiguousarray(array[: shape[0]])
    return state


def save(path: str | os.PathLike, config: PrefixLMConfig, params: Any) -> None:
    """Writes a flat dictionary of tensors for TencentPretrain, or `.safetensors`.

    Args:
      path: ends in .bin, .pt, .pth, .ckpt or .safetensors.
      config, params: of a `PrefixLM`.

    Raises:
      UserError: another ending, or a network that theirs cannot be.
    """
    state_dict.check(path)
    state_dict.write(path, to_state_dict(config, params), key="")


def their_config(config: PrefixLMConfig) -> dict[str, Any]:
    """Their options for a network: the inverse of `read_config`."""
    transformer, masks = config.transformer, {v: k for k, v in _MASKS.items()}
    return {
        "embedding": ["word", "pos", "seg"] if config.segments else ["word", "pos"],
        "remove_embedding_layernorm": True,
        "max_seq_length": config.max_positions,
        "mask": masks[config.visibility],
        "layernorm_positioning": "pre",
        "layernorm_eps": transformer.norm_eps,
        "feed_forward": transformer.feed_forward,
        "hidden_act": {v: k for k, v in _ACTIVATIONS.items()}[transformer.gate],
        "emb_size": transformer.width,
        "hidden_size": transformer.width,
        "feedforward_size": transformer.mlp_width,
        "heads_num": transformer.num_heads,
        "layers_num": transformer.num_layers,
        "dropout": transformer.dropout,
        "vocab_size": config.vocab.size,
        "codebook_size": config.vocab.codebook_size,
        "grid": list(config.grid),
    }


def _weights(config: PrefixLMConfig):
    """(their name, our path or None, their shape, layer or None) of every weight."""
    t = config.transformer
    width, rows = t.width, config.vocab.size
    yield _WORDS, "tokens/embedding", (rows, width), None
    at = "embedding.pos.embedding.weight"
    yield at, "tokens/position", (config.max_positions, width), None
    if config.segments:
        at = "embedding.seg.embedding.weight"
        yield at, "tokens/segment", (config.segments, width), None

    def dense(at, ours, features, inputs, layer):
        yield f"{at}.weight", f"{ours}/kernel", (features, inputs), layer
        yield f"{at}.bias", f"{ours}/bias", (features,), layer

    def norm(at, ours, layer=None):
        yield f"{at}.gamma", f"{ours}/scale", (width,), layer
        yield f"{at}.beta", f"{ours}/bias", (width,), layer

    wide, mlp = t.mlp_width, "transformer/layers/mlp"
    for i in range(t.num_layers):
        at, ours = f"encoder.transformer.{i}", "transformer/layers"
        for j, name in enumerate(("query", "key", "value")):
            theirs = f"{at}.self_attn.linear_layers.{j}"
            yield from dense(theirs, f"{ours}/attention/{name}", width, width, i)
        theirs = f"{at}.self_attn.final_linear"
        yield from dense(theirs, f"{ours}/attention/out", width, width, i)
        if t.feed_forward == "gated":
            theirs = f"{at}.feed_forward.linear_gate"
            yield from dense(theirs, f"{mlp}/gate", wide, width, i)
        yield from dense(f"{at}.feed_forward.linear_1", f"{mlp}/up", wide, width, i)
        yield from dense(f"{at}.feed_forward.linear_2", f"{mlp}/down", width, wide, i)
        yield from norm(f"{at}.layer_norm_1", f"{ours}/attention_norm", i)
        yield from norm(f"{at}.layer_norm_2", f"{ours}/mlp_norm", i)
    yield from norm("encoder.layer_norm", "transformer/final_norm")
    output = None if config.tied_output else "tokens/output"
    yield _OUTPUT, output, (rows, width), None
    if config.output_bias:
        yield _OUTPUT_BIAS, "tokens/output_bias", (rows,), None


def _check_exportable(config: PrefixLMConfig) -> None:
    t = config.transformer
    for name, value, wanted in (
        ("model.transformer.norm", t.norm, "unbiased"),
        ("model.transformer.norm_position", t.norm_position, "pre"),
        ("model.transformer.qk_norm", t.qk_norm, False),
        ("model.output_transform", config.output_transform, False),
        ("model.embedding_multiplier", config.embedding_multiplier, 1.0),
        ("model.positions", config.positions, "absolute"),
        ("model.cross_modal_heads", config.cross_modal_heads, 0),
    ):
        if value != wanted:
            raise UserError(
                f"{name} is {value!r}; TencentPretrain has only {wanted!r}: such a "
                "network cannot be exported to it"
            )
    if t.gate not in _ACTIVATIONS.values():
        raise UserError(
            f"model.transformer.gate is {t.gate!r}; TencentPretrain has "
            f"{', '.join(_ACTIVATIONS.values())}"
        )


def _read_json(path: str | os.PathLike) -> Mapping[str, Any]:
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"config '{path}' does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise UserError(f"config '{path}' is no JSON ({error}); correct it") from None
    if not isinstance(found, dict):
        raise UserError(f"config '{path}' is no JSON object; give one with options")
    return found


def _positive(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"config {name} is {value!r}; use a whole number from 1 on")
    return value


def _one_of(
    config: Mapping[str, Any], name: str, choices: Mapping[str, str], default: str = ""
) -> str:
    """Our word for an option of theirs, by default the first of the choices."""
    value = config.get(name, default or next(iter(choices)))
    if value not in choices:
        raise UserError(
            f"config {name} is {value!r}; built here are {', '.join(choices)}"
        )
    return choices[value]


def _grid(config: Mapping[str, Any]) -> tuple[int, int]:
    """Grid of the image tokens; the released models have 16 x 16."""
    grid = config.get("grid", [16, 16])
    if not (isinstance(grid, (list, tuple)) and len(grid) == 2):
        raise UserError(f"config grid is {grid!r}; use [rows, columns]")
    return int(grid[0]), int(grid[1])
