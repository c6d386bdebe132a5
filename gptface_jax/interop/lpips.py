"""Weights of LPIPS on VGG-16, from the files in which people have them.

Two parts: the convolutions of VGG-16 (torchvision's `vgg16`, 528 MB with its
classifier, which is left aside) and the five linear heads of Zhang et al. 2018
(`vgg.pth` of the package lpips, `vgg_lpips` of taming-transformers). The state dict
of either package's whole module, or a VQGAN trained with it, has both.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

import numpy as np

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.interop import state_dict
from gptface_jax.nn import perceptual

# Where VGG-16's convolutions stand in torchvision's sequence `features`.
_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_INSIDE = "loss.perceptual_loss."  # in a VQGAN's checkpoint
_CONV = re.compile(r"(?:features|net\.slice[1-5])\.(\d+)\.(weight|bias)")
_HEAD = re.compile(r"(?:lin|lins\.)([0-4])\.model\.[01]\.weight")
# The classifier of torchvision and of timm; the constants of LPIPS's input.
_ASIDE = re.compile(r"(classifier|pre_logits|head|scaling_layer)\..*")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load(path: str | os.PathLike) -> dict[str, Any]:
    """Both parts of LPIPS as our parameters; nothing that is in the files is run.

    Args:
      path: a file (.pth, .pt, .ckpt, .bin of PyTorch, or .safetensors), a folder of
        such files, or a hub id "owner/name"; or several, joined by commas:
        "vgg16-397923af.pth,vgg.pth", "timm/vgg16.tv_in1k,vgg.pth".

    Returns:
      Parameters of `nn.perceptual.LPIPS`, float32: {"conv_0": {"kernel" [3,3,3,64],
      "bias" [64]}, ..., "conv_12", "lin_0": [64], ..., "lin_4": [512]}.

    Raises:
      UserError: a file or repository that cannot be read, a missing, an unknown or a
        misshapen weight, or two different values of one.
    """
    found: dict[str, np.ndarray] = {}
    for file in _files(os.fspath(path)):
        for name, array in _read(file).items():
            _add(found, name, array, file)
    wanted = {_theirs(name): shape for name, shape in _shapes().items()}
    shapes = {_theirs(name): array.shape for name, array in found.items()}
    if differences := state_dict.differences(shapes, wanted):
        raise UserError(
            f"'{path}' is not LPIPS on VGG-16: {differences} (kernels HWIO; also "
            "looked for as net.slice1.0 ... net.slice5.28 and as lins.0 ...)"
        )
    return trees.unflatten(found)


def _shapes() -> dict[str, tuple[int, ...]]:
    """Shapes by path in the parameters."""
    widths = [width for stage in perceptual.STAGES for width in stage]
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (before, width) in enumerate(zip([3, *widths], widths)):
        shapes |= {
            f"conv_{i}/kernel": (3, 3, before, width),
            f"conv_{i}/bias": (width,),
        }
    return shapes | {f"lin_{i}": (s[-1],) for i, s in enumerate(perceptual.STAGES)}


def _theirs(name: str) -> str:
    """Names in torchvision's and the package's files by path in the parameters."""
    layer, _, leaf = name.partition("/")
    kind, number = layer.split("_")
    if kind == "lin":
        return f"lin{number}.model.1.weight"
    leaf = {"kernel": "weight", "bias": "bias"}[leaf]
    return f"features.{_PLACES[int(number)]}.{leaf}"


def _ours(name: str) -> str | None:
    """The path in the parameters of a name in a file, or None."""
    if (conv := _CONV.fullmatch(name)) and int(conv[1]) in _PLACES:
        leaf = {"weight": "kernel", "bias": "bias"}[conv[2]]
        return f"conv_{_PLACES.index(int(conv[1]))}/{leaf}"
    head = _HEAD.fullmatch(name)
    return f"lin_{head[1]}" if head else None


def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays of a weight file by their path in the parameters."""
    state = state_dict.read(file)
    if inside := [name for name in state if _INSIDE in name]:  # the rest is a VQGAN
        prefix = inside[0].partition(_INSIDE)[0] + _INSIDE
        state = {n[len(prefix) :]: a for n, a in state.items() if n.startswith(prefix)}
    unknown = [n for n in state if not (_ours(n) or _ASIDE.fullmatch(n))]
    if unknown:
        raise UserError(
            f"'{file}' holds {len(unknown)} weights that are neither VGG-16's nor "
            f"LPIPS's: {state_dict.shortened(unknown)}"
        )
    found: dict[str, np.ndarray] = {}
    for name, array in state.items():
        if ours := _ours(name):
            array = state_dict.as_float32(array, name)
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
            array = array.reshape(-1) if ours.startswith("lin") else array
            # The package has its heads twice, as lin0 and as lins.0.
            _add(found, ours, np.ascontiguousarray(array), file)
    return found


def _add(
    found: dict[str, np.ndarray], name: str, array: np.ndarray, where: object
) -> None:
    if name in found and not np.array_equal(found[name], array):
        raise UserError(
            f"'{where}' has a second '{_theirs(name)}' with other values; give one "
            "VGG-16 and one set of heads"
        )
    found[name] = array


def _files(path: str) -> list[pathlib.Path]:
    """The files that a path, or several joined by commas, stands for."""
    files = []
    for part in (p.strip() for p in path.split(",")):
        if not part:
            raise UserError(f"weights of LPIPS: '{path}' names no file; give a path")
        path = pathlib.Path(part).expanduser()
        if not path.exists() and _HUB_ID.fullmatch(part):
            if path.suffix not in state_dict.SUFFIXES:
                path = _from_hub(part)
        if path.is_dir():
            inside = sorted(
                p for p in path.iterdir() if p.suffix in state_dict.SUFFIXES
            )
            if not inside:
                raise UserError(
                    f"'{part}' holds no weights ({', '.join(state_dict.SUFFIXES)})"
                )
            files += inside
        else:
            files.append(path)
    return files


def _from_hub(name: str) -> pathlib.Path:
    """Downloads a repository's weights, or finds them in the hub's cache."""
    import huggingface_hub

    patterns = [f"*{suffix}" for suffix in state_dict.SUFFIXES]
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(name, allow_patterns=patterns)
        )
    except Exception as error:  # no network, no such repository, no permission
        said = " ".join(str(error).split())[:160]
        raise UserError(
            f"'{name}' is no file here, and the hub does not give it "
            f"({type(error).__name__}: {said}); download it and give the path"
        ) from None
