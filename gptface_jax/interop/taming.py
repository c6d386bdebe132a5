"""VQGANs of CompVis/taming-transformers, in and out.

Checkpoints of VQModel and GumbelVQ, and of Net2NetTransformer, whose VQGAN stands
under `first_stage_model.`. Every name in a file is a weight of the VQGAN, or belongs
to a part that is known and left aside; anything else is refused.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptface_jax.core import locks, trees
from gptface_jax.core.errors import UserError
from gptface_jax.interop import state_dict, taming_config
from gptface_jax.nn.adversary import Discriminator, DiscriminatorConfig
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig

_FIRST_STAGE = "first_stage_model."
_DISCRIMINATOR = "loss.discriminator."
# Beginning of a name -> what it belongs to, beside the VQGAN in its own checkpoint ...
_BESIDE = {
    _DISCRIMINATOR: "discriminator",
    "loss.perceptual_loss.": "perceptual loss",
    "quantize.used": "renumbering of the codes",
    "colorize": "colours of segmentation maps",
}
# ... and around it in the checkpoint of a transformer.
_AROUND = {
    "transformer.": "transformer",
    "cond_stage_model.": "conditioning model",
    "permuter.": "order of the codes",
}
_OIHW, _HWIO = (3, 2, 0, 1), (2, 3, 1, 0)  # axes of kernels: ours to theirs, and back
_CODEBOOKS = {
    "nearest": "quantize.embedding.weight",
    "gumbel": "quantize.embed.weight",
}


@dataclasses.dataclass(frozen=True)
class Imported:
    """A VQGAN from a taming checkpoint.

    Attributes:
      config, params: for `VQGAN(config)`; params is a nested dict of float32 arrays.
      matched: number of names in the file that are weights of the VQGAN.
      ignored: other part of the file -> number of its names.
      never_met: sides in attn_resolutions that taming ignores, and so do we.
    """

    config: VQGANConfig
    params: dict[str, Any]
    matched: int
    ignored: Mapping[str, int]
    never_met: tuple[int, ...]


def their_name(path: str, quantizer: str = "nearest") -> str:
    """The name in a taming checkpoint of a parameter path of our VQGAN.

    >>> their_name("encoder/down_1_block_0/conv1/kernel")
    'encoder.down.1.block.0.conv1.weight'
    """
    if path == "codebook":
        return _CODEBOOKS[quantizer]
    name = re.sub(r"^code_logits/", "quantize/proj/", path)
    name = re.sub(r"(down|up)_(\d+)_(block|attn)_(\d+)", r"\1.\2.\3.\4", name)
    name = re.sub(r"(down|up)_(\d+)_(\w+sample)", r"\1.\2.\3", name)
    return re.sub(r"(kernel|scale)$", "weight", name).replace("/", ".")


def _discriminator_name(path: str) -> str:
    """The name after `loss.discriminator.` of a path in our discriminator's variables.

    Theirs is one sequence: convolution, LeakyReLU, then convolution, norm and
    LeakyReLU for every further layer, and a last convolution.
    """
    _, layer, leaf = path.split("/")
    kind, number = layer.split("_")
    index = 3 * int(number) - (kind == "conv" and number != "0")
    leaves = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    leaves |= {"mean": "running_mean", "var": "running_var"}
    return f"main.{index}.{leaves[leaf]}"


def load(
    path: str | os.PathLike, config: str | os.PathLike | Mapping[str, Any]
) -> tuple[VQGANConfig, dict[str, Any]]:
    """Config and parameters of a checkpoint, see `read`."""
    imported = read(path, config)
    return imported.config, imported.params


def read(
    path: str | os.PathLike, config: str | os.PathLike | Mapping[str, Any]
) -> Imported:
    """The VQGAN of a checkpoint; nothing that is in the file is run.

    Names decide whether it is a VQModel (`quantize.embedding.weight`) or a GumbelVQ
    (`quantize.proj.*`, `quantize.embed.weight`); a `target` in the config that says
    otherwise is refused.

    Args:
      path: Lightning checkpoint, state dict or `.safetensors`.
      config: its YAML, or a mapping with `ddconfig`, `n_embed` and `embed_dim`;
        see `taming_config`.

    Raises:
      UserError: an unreadable file, a config that makes no sense, a missing, an
        unknown or a misshapen weight.
    """
    known = taming_config.read(config)
    state = state_dict.read(path)
    prefix = _prefix(state)
    quantizer = _quantizer(state, prefix, path)
    if known.quantizer not in (None, quantizer):
        raise UserError(
            f"'{path}' holds '{prefix}{_CODEBOOKS[quantizer]}', but the config's "
            f"target is a class with {known.quantizer} codes; give this file's config"
        )
    model = dataclasses.replace(known.model, quantizer=quantizer)
    taming_config.check(model)
    ours, ignored = _sorted_out(state, prefix)
    shapes = _vqgan_shapes(model)
    names = {p: prefix + their_name(p, quantizer) for p in shapes}
    params = _taken(ours, shapes, names, f"'{path}' and its config do not fit")
    return Imported(model, params, len(names), ignored, known.never_met)


def load_discriminator(
    path: str | os.PathLike,
) -> tuple[DiscriminatorConfig, dict[str, Any], dict[str, Any]]:
    """The discriminator that a VQGAN was trained against.

    Args:
      path: as for `load`.

    Returns:
      (config, params, batch_stats) for `Discriminator(config)`; the numbers of
      channels and layers are those of the weights.

    Raises:
      UserError: an unreadable file, no discriminator, or another kind of one.
    """
    state = state_dict.read(path)
    prefix = _prefix(state) + _DISCRIMINATOR
    weights = {
        name: array
        for name, array in state.items()
        if name.startswith(prefix) and not name.endswith(".num_batches_tracked")
    }
    kernels = [name for name, array in weights.items() if array.ndim == 4]
    if f"{prefix}main.0.weight" not in kernels or not 3 <= len(kernels) <= 12:
        raise UserError(
            f"'{path}' holds no discriminator ('{prefix}main.0.weight' and 2 to 11 "
            "more layers)"
        )
    channels, in_channels = weights[f"{prefix}main.0.weight"].shape[:2]
    config = DiscriminatorConfig(channels, len(kernels) - 2, "batch", in_channels)
    shapes = _discriminator_shapes(config)
    names = {p: prefix + _discriminator_name(p) for p in shapes}
    said = f"the discriminator in '{path}' is no PatchGAN with batch norms"
    found = _taken(weights, shapes, names, said)
    return config, found["params"], found["batch_stats"]


def save(
    path: str | os.PathLike,
    config: VQGANConfig,
    params: Mapping[str, Any],
    discriminator: tuple[DiscriminatorConfig, Any, Any] | None = None,
) -> pathlib.Path:
    """Writes a checkpoint that taming reads, and its YAML beside it.

    `load` gives back the same bits. torch is not needed.

    Args:
      path: .ckpt (zip format, {"state_dict": ...}) or .safetensors.
      config, params: of the VQGAN.
      discriminator: (config, params, batch_stats) to write with it.

    Returns:
      The YAML's path: `path` with the suffix .yaml.

    Raises:
      UserError: a network that taming cannot build, or files that exist.
    """
    path = pathlib.Path(path)
    text = taming_config.write(config, discriminator[0] if discriminator else None)
    shapes = _vqgan_shapes(config)
    names = {p: their_name(p, config.quantizer) for p in shapes}
    state = _renamed(params, shapes, names)
    if discriminator:
        shapes = _discriminator_shapes(discriminator[0])
        names = {p: _DISCRIMINATOR + _discriminator_name(p) for p in shapes}
        both = {"params": discriminator[1], "batch_stats": discriminator[2]}
        state |= _renamed(both, shapes, names)
        # PyTorch counts batches beside every running mean; taming never reads it.
        for name in [n for n in state if n.endswith(".running_mean")]:
            counter = name.replace("running_mean", "num_batches_tracked")
            state[counter] = np.array(0, np.int64)
    return _write_both(path, state, text)


def _write_both(path: pathlib.Path, state: dict[str, Any], text: str) -> pathlib.Path:
    """Checkpoint and YAML, complete or not at all."""
    targets = path, path.with_suffix(".yaml")
    lock = locks.held(f"{path}.lock", "exports", "choose another name")
    with (
        lock,
        tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as room,
    ):
        for target in targets:
            if target.exists():
                raise UserError(f"'{target}' already exists; choose another name")
        partial = [pathlib.Path(room) / target.name for target in targets]
        state_dict.write(partial[0], state)
        partial[1].write_text(text)
        for source, target in zip(partial, targets):
            source.rename(target)
    return targets[1]


def _vqgan_shapes(config: VQGANConfig) -> dict[str, Any]:
    """Shapes of the parameters by path."""
    shape = (1, config.factor, config.factor, config.in_channels)
    dummy = jax.ShapeDtypeStruct(shape, jnp.float32)
    init = functools.partial(VQGAN(config).init, jax.random.key(0))
    return trees.flatten(nn.meta.unbox(jax.eval_shape(init, dummy)["params"]))


def _discriminator_shapes(config: DiscriminatorConfig) -> dict[str, Any]:
    """Shapes by path; paths begin with "params" or "batch_stats"."""
    side = 4 * 2**config.num_layers
    dummy = jax.ShapeDtypeStruct((1, side, side, config.in_channels), jnp.float32)
    init = functools.partial(Discriminator(config).init, jax.random.key(0))
    return trees.flatten(nn.meta.unbox(jax.eval_shape(init, dummy)))


def _prefix(state: Mapping[str, Any]) -> str:
    inside = any(name.startswith(_FIRST_STAGE) for name in state)
    return _FIRST_STAGE if inside else ""


def _quantizer(state: Mapping[str, Any], prefix: str, path: Any) -> str:
    found = [q for q, name in _CODEBOOKS.items() if prefix + name in state]
    if len(found) != 1:
        names = " and ".join(f"'{prefix}{name}'" for name in _CODEBOOKS.values())
        raise UserError(
            f"'{path}' holds {'both' if found else 'neither'} {names}; it is no "
            "checkpoint of a VQGAN of taming"
        )
    return found[0]


def _sorted_out(
    state: Mapping[str, Any], prefix: str
) -> tuple[dict[str, Any], dict[str, int]]:
    """(what may be the VQGAN's under full names, known part -> how many names)."""
    kept, ignored = {}, collections.Counter()
    for name, array in state.items():
        inside = name.startswith(prefix)
        parts, rest = (_BESIDE, name[len(prefix) :]) if inside else (_AROUND, name)
        part = [what for start, what in parts.items() if rest.startswith(start)]
        if part:
            ignored[part[0]] += 1
        else:
            kept[name] = array
    return kept, dict(ignored)


def _taken(
    state: Mapping[str, np.ndarray],
    shapes: Mapping[str, Any],
    names: Mapping[str, str],
    said: str,
) -> dict[str, Any]:
    """Their weights as our nested dict; each of `state` must be used."""
    wanted = {names[path]: _their_shape(leaf.shape) for path, leaf in shapes.items()}
    found = {name: array.shape for name, array in state.items()}
    if differences := state_dict.differences(found, wanted):
        raise UserError(f"{said}: {differences}")
    flat = {}
    for path, name in names.items():
        array = state_dict.as_float32(state[name], name)
        array = array.transpose(_HWIO) if array.ndim == 4 else array
        flat[path] = np.ascontiguousarray(array)
    return trees.unflatten(flat)


def _their_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[i] for i in _OIHW) if len(shape) == 4 else shape


def _renamed(
    tree: Any, shapes: Mapping[str, Any], names: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Our nested dict as their weights."""
    flat = {path: np.asarray(x, np.float32) for path, x in trees.flatten(tree).items()}
    found = {path: array.shape for path, array in flat.items()}
    wanted = {path: leaf.shape for path, leaf in shapes.items()}
    if differences := state_dict.differences(found, wanted):
        raise UserError(f"these are not the config's parameters: {differences}")
    return {
        names[path]: array.transpose(_OIHW) if array.ndim == 4 else array
        for path, array in flat.items()
    }
