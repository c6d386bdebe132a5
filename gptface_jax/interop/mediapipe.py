"""MediaPipe's face networks (TensorFlow Lite) -> parameters of `nn.face_finder`.

  pip install tflite
  python -m gptface_jax.interop.mediapipe blazeface_short.tflite face_mesh_468.tflite

writes the safetensors that the package ships, as float16, as the originals are stored.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.nn import face_finder

FOLDER = pathlib.Path(__file__).parents[1] / "models" / "face_finder"
NETWORKS = {
    "blazeface": (face_finder.BlazeFace, face_finder.DETECTOR_SIZE),
    "face_mesh": (face_finder.FaceMesh, face_finder.MESH_SIZE),
}
# SHA-256 of the files that the package ships; whoever writes others writes them here.
_DIGESTS = {
    "blazeface": "c190d226fe23aca2001c05e77cc5d7f88c342529124444eb7164be34c4daa17f",
    "face_mesh": "da0ca69de7d33e3ea92340343c40c7b1fe762e64b41667aa339e602f0598e56b",
}


def shapes(name: str) -> Any:
    """The tree of a network's parameter shapes; name: of NETWORKS."""
    module, size = NETWORKS[name]
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    found = jax.eval_shape(module().init, jax.random.key(0), images)
    return found["params"]


def read(name: str) -> Any:
    """The parameters that come with the package; tree of float32 arrays.

    Args:
      name: "blazeface" or "face_mesh".

    Raises:
      UserError: the file is missing or holds other parameters.
    """
    from safetensors.numpy import load_file

    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise UserError(f"'{path}' is missing; install the package again")
    # Tracing the network for its shapes would cost a second at the first photo.
    if hashlib.sha256(path.read_bytes()).hexdigest() != _DIGESTS[name]:
        raise UserError(f"'{path}' holds another network; install the package again")
    flat = {k: v.astype(np.float32) for k, v in load_file(path).items()}
    return trees.unflatten(flat)


def _blocks(names: list[str], prelu: bool) -> list[str]:
    parts = ("depthwise", "pointwise", "act")[: 3 if prelu else 2]
    return [f"{name}/{part}" for name in names for part in parts]


def _order(name: str) -> list[str]:
    """Modules with weights in the order in which the file's operators use them."""
    if name == "blazeface":
        net = face_finder.BlazeFace
        levels = {"fine": net.FINE, "coarse": net.COARSE}
        blocks = [f"{level}_{i}" for level in levels for i in range(len(levels[level]))]
        heads = [f"{level}_{kind}" for kind in ("logits", "boxes") for level in levels]
        return ["stem", *_blocks(blocks, False), *heads]
    trunk = [f"trunk_{i}" for i in range(len(face_finder.FaceMesh.TRUNK))]
    # The two heads are computed side by side, the points one block further on.
    points = _blocks(["points_2"], True), ["points_reduce", "points_reduce_act"]
    presence = _blocks(["presence_0"], True), ["presence_reduce", "presence_reduce_act"]
    last = _blocks(["presence_last"], True), _blocks(["points_last"], True)
    pairs = [*zip(presence[0], points[0]), *zip(presence[1], points[1]), *zip(*last)]
    return [
        "stem", "stem_act", *_blocks([*trunk, "points_0", "points_1"], True),
        *(module for pair in pairs for module in pair), "presence_out", "points_out",
    ]  # fmt: skip


def _operators(path: str | os.PathLike) -> Iterator[dict[str, np.ndarray]]:
    """The weights of each operator that has some, in Flax's layout."""
    import tflite

    model = tflite.Model.GetRootAsModel(pathlib.Path(path).read_bytes(), 0)
    graph = model.Subgraphs(0)
    names = {v: k for k, v in vars(tflite.BuiltinOperator).items()}
    halves = {}  # tensor -> the float16 one of which it is made

    def weight(index: int) -> np.ndarray:
        tensor = graph.Tensors(halves[index])
        data = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(data, np.float16).reshape(tensor.ShapeAsNumpy())

    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs = operator.InputsAsNumpy()
        if kind == "DEQUANTIZE":
            halves[operator.Outputs(0)] = inputs[0]
        elif kind == "CONV_2D":  # [out,h,w,in]
            kernel = weight(inputs[1]).transpose(1, 2, 3, 0)
            yield {"kernel": kernel, "bias": weight(inputs[2])}
        elif kind == "DEPTHWISE_CONV_2D":  # [1,h,w,C]
            yield {"kernel": weight(inputs[1])[0], "bias": weight(inputs[2])}
        elif kind == "PRELU":  # [1,1,C]
            yield {"slope": weight(inputs[1]).reshape(-1)}


def from_tflite(path: str | os.PathLike, name: str) -> dict[str, np.ndarray]:
    """A file's weights by the names of the network's parameters; float16.

    The file's operators stand in the order in which they are computed; heads are told
    apart by their number of outputs.

    Args:
      path: of the .tflite.
      name: of NETWORKS.

    Raises:
      UserError: weights are left over or do not fit.
    """
    weights = list(_operators(path))
    wanted = {k: v.shape for k, v in trees.flatten(shapes(name)).items()}
    found = dict(zip(_order(name), weights))
    flat = {f"{module}/{k}": v for module, own in found.items() for k, v in own.items()}
    if len(found) != len(weights) or {k: v.shape for k, v in flat.items()} != wanted:
        raise UserError(f"'{path}' is not the network '{name}' that is known here")
    return flat


def main() -> None:
    from safetensors.numpy import save_file

    paths = dict(zip(NETWORKS, sys.argv[1:]))
    if len(paths) < len(NETWORKS):
        raise SystemExit(__doc__)
    for name, path in paths.items():
        flat = {k: np.ascontiguousarray(v) for k, v in from_tflite(path, name).items()}
        FOLDER.mkdir(parents=True, exist_ok=True)
        save_file(flat, FOLDER / f"{name}.safetensors", {"format": "flax"})


if __name__ == "__main__":
    main()
