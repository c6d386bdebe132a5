"""BlazeFace and a face mesh of 468 points (arXiv 1907.05047 and 1907.06724).

Both are stacks of `BlazeBlock`: a depthwise 3 x 3 and a pointwise convolution beside a
shortcut, which is pooled where the block strides and gains channels of zeros where it
widens. Their weights come from MediaPipe, see `interop.mediapipe`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptface_jax.ops.convolution import depthwise

DETECTOR_SIZE = 128  # pixels a side for which BlazeFace was trained
MESH_SIZE = 192  # pixels a side of what the mesh reads
NUM_POINTS = 468
# The weights are read, never trained; flax traces this for each of them at each shape.
_INIT = nn.initializers.zeros


def _conv(features: int, size: int, name: str, stride: int = 1, padding="SAME"):
    window = (size, size)
    return nn.Conv(features, window, stride, padding, kernel_init=_INIT, name=name)


class Depthwise(nn.Module):
    """A 3 x 3 convolution of every channel by itself, "same" as TensorFlow pads."""

    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,H/stride,W/stride,C]."""
        shape = (3, 3, x.shape[-1])
        kernel = self.param("kernel", _INIT, shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        return depthwise(x, kernel, self.stride) + bias


class Activation(nn.Module):
    """ReLU, or PReLU with a slope a channel."""

    learnt: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not self.learnt:
            return nn.relu(x)
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:])
        return jnp.where(x < 0, slope * x, x)


class BlazeBlock(nn.Module):
    """A residual block: act(shortcut + pointwise(depthwise(x)))."""

    features: int
    stride: int = 1
    prelu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,H/stride,W/stride,features]."""
        y = Depthwise(self.stride, name="depthwise")(x)
        y = _conv(self.features, 1, "pointwise")(y)
        if self.stride > 1:
            x = nn.max_pool(x, (self.stride,) * 2, (self.stride,) * 2)
        x = jnp.pad(x, ((0, 0),) * 3 + ((0, self.features - x.shape[-1]),))
        return Activation(self.prelu, name="act")(x + y)


class BlazeFace(nn.Module):
    """A detector of faces of a fifth of 128 pixels and more (short range)."""

    # (channels, stride) of the blocks whose output is read at a stride of 8, and of 16.
    FINE = ((24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2),
            (56, 1), (64, 1), (72, 1), (80, 1), (88, 1))  # fmt: skip
    COARSE = ((96, 2), (96, 1), (96, 1), (96, 1), (96, 1))

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Box, points and score of a face close to each of `anchors`.

        Args:
          images: float32 [B,H,W,3] in [-1,1], sides multiples of 16.

        Returns:
          (regressors float32 [B,A,16], logits float32 [B,A]); of a regressor x, y of
          the box's centre less the anchor's, width, height and x, y of six points less
          the anchor's (right eye, left eye, nose, mouth, right ear, left ear), pixels.
        """
        x = nn.relu(_conv(24, 5, "stem", 2)(images))
        outputs = []
        for level, blocks in (("fine", self.FINE), ("coarse", self.COARSE)):
            for i, (features, stride) in enumerate(blocks):
                x = BlazeBlock(features, stride, name=f"{level}_{i}")(x)
            a = 2 if level == "fine" else 6  # anchors a cell
            logits = _conv(a, 1, f"{level}_logits")(x)
            boxes = _conv(16 * a, 1, f"{level}_boxes")(x)
            b = len(images)
            outputs.append((boxes.reshape(b, -1, 16), logits.reshape(b, -1)))
        boxes, logits = zip(*outputs)
        return jnp.concatenate(boxes, 1), jnp.concatenate(logits, 1)


def anchors(height: int, width: int) -> np.ndarray:
    """Centres of BlazeFace's anchors in a picture, (x, y) pixels; float32 [A,2].

    Two in every cell of 8 x 8 pixels, then six in every one of 16 x 16, raster order.
    """
    found = []
    for stride, count in ((8, 2), (16, 6)):
        y, x = np.mgrid[: height // stride, : width // stride]
        centres = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
        found.append(np.repeat(centres, count, axis=0))
    return np.concatenate(found).astype(np.float32)


class FaceMesh(nn.Module):
    """A network for 468 points of an upright face, two thirds of a picture wide."""

    TRUNK = ((16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1),
             (128, 2), (128, 1), (128, 1), (128, 2), (128, 1), (128, 1))  # fmt: skip
    # (strides of the last blocks, outputs)
    HEADS = {"points": ((2, 1, 1), 3 * NUM_POINTS), "presence": ((2,), 1)}

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Points of faces and whether there are faces.

        Args:
          images: float32 [B,192,192,3] in [0,1].

        Returns:
          (points float32 [B,468,3], x, y and depth in pixels of the picture; logits
          of presence float32 [B]).
        """
        x = Activation(True, name="stem_act")(_conv(16, 3, "stem", 2)(images))
        for i, (features, stride) in enumerate(self.TRUNK):
            x = BlazeBlock(features, stride, True, name=f"trunk_{i}")(x)
        outputs = {}
        for name, (strides, count) in self.HEADS.items():
            y = x
            for i, stride in enumerate(strides):
                y = BlazeBlock(128, stride, True, name=f"{name}_{i}")(y)
            y = _conv(32, 1, f"{name}_reduce")(y)
            y = Activation(True, name=f"{name}_reduce_act")(y)
            y = BlazeBlock(32, 1, True, name=f"{name}_last")(y)
            y = _conv(count, 3, f"{name}_out", padding="VALID")(y)
            outputs[name] = y.reshape(len(images), count)
        points = outputs["points"].reshape(-1, NUM_POINTS, 3)
        return points, outputs["presence"][:, 0]
