"""Weights of CompVis/taming-transformers VQGANs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig


def their_name(path: str) -> str:
    """Our parameter path -> the name in a taming checkpoint.

    >>> their_name("encoder/down_1_block_0/conv1/kernel")
    'encoder.down.1.block.0.conv1.weight'
    """
    if path == "codebook":
        return "quantize.embedding.weight"
    name = re.sub(r"(down|up)_(\d+)_(block|attn)_(\d+)", r"\1.\2.\3.\4", path)
    name = re.sub(r"(down|up)_(\d+)_(\w+sample)", r"\1.\2.\3", name)
    return re.sub(r"(kernel|scale)$", "weight", name).replace("/", ".")


def convert(state_dict: Mapping[str, Any], config: VQGANConfig) -> dict[str, Any]:
    """A taming state dict -> parameters of `VQGAN(config)`.

    Args:
      state_dict: name -> array, PyTorch layout (convolutions OIHW); what belongs
        to the loss (`loss.*`) is left out.
      config: must describe the same network.

    Returns:
      Nested dict of float32 arrays.

    Raises:
      UserError: a missing, an unused or a misshapen weight.
    """
    module = VQGAN(config)
    dummy = jnp.zeros((1, config.resolution, config.resolution, config.in_channels))
    shapes = jax.eval_shape(
        lambda k: module.init(k, dummy)["params"], jax.random.key(0)
    )
    flat, used = {}, set()
    for path, leaf in trees.flatten(nn.meta.unbox(shapes)).items():
        name = their_name(path)
        if name not in state_dict:
            raise UserError(f"the checkpoint has no '{name}'; config and file differ")
        array = np.asarray(state_dict[name], np.float32)
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        if array.shape != leaf.shape:
            raise UserError(
                f"'{name}' is {list(array.shape)} (HWIO), the config asks for "
                f"{list(leaf.shape)}"
            )
        flat[path] = array
        used.add(name)
    unused = [
        n
        for n in state_dict
        if n.startswith(("encoder.", "decoder.", "quant")) and n not in used
    ]
    if unused:
        raise UserError(
            f"the checkpoint holds '{unused[0]}' ({len(unused)} in all) that the "
            "config has no place for"
        )
    return trees.unflatten(flat)
