"""A trained VQGAN at work: batches and pictures of any size, whole or in tiles."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gptface_jax.core.errors import UserError
from gptface_jax.nn.vqgan import VQGANConfig
from gptface_jax.ops import pictures
from gptface_jax.ops.tiling import Tiling, border_gradient
from gptface_jax.pipelines import batching
from gptface_jax.pipelines.networks import Network

DTYPES = ("float32", "bfloat16")


class ImageTokenizer:
    """A VQGAN for pictures of any size, compiled once for each bucket of shapes.

    Sides are padded to multiples of f by repeating the border. Group norms and
    attention see the padding, so that no coarser bucket is used. Batches are padded
    to powers of two, at most `batch_size`, by repeating the last picture.

    Args:
      network: the VQGAN.
      batch_size: pictures that a device works on at once.
      dtype: of the activations, "float32" or "bfloat16"; by default the network's
        own. Code distances are float32 in any case.
      devices: share every batch; by default the first one of this process.

    Raises:
      UserError: an unknown dtype, or a batch of nothing.
    """

    def __init__(
        self,
        network: Network,
        batch_size: int = 32,
        *,
        dtype: str | None = None,
        devices: Sequence[jax.Device] | None = None,
    ):
        if dtype not in (None, *DTYPES):
            raise UserError(f"dtype '{dtype}' is unknown; use {' or '.join(DTYPES)}")
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; use 1 or more")
        self.network, self.batch_size = network, batch_size
        self._devices = list(devices or jax.local_devices()[:1])
        config = network.config
        self.dtype = dtype or config.dtype
        module = type(network.module)(dataclasses.replace(config, dtype=self.dtype))
        mesh = Mesh(np.array(self._devices), ("batch",))
        self._split = NamedSharding(mesh, PartitionSpec("batch"))
        self._params = jax.device_put(
            network.params, NamedSharding(mesh, PartitionSpec())
        )

        @functools.partial(jax.jit, static_argnames="method")
        def run(params, x, method, *more):
            if x.dtype == jnp.uint8:
                x = pictures.to_unit_range(x)
            return module.apply({"params": params}, x, *more, method=method)

        self._run = run

    @property
    def config(self) -> VQGANConfig:
        return self.network.config

    @property
    def full_batch(self) -> int:
        """The most pictures that all devices work on at once."""
        return self.batch_size * len(self._devices)

    def dispatch(
        self, x: np.ndarray, method: str, *more: np.ndarray, full: bool = False
    ) -> jax.Array:
        """Starts one batch, without waiting for its result.

        Args:
          x: at most `full_batch` pictures, sides multiples of f, or grids of ids.
          method: "encode" or "decode".
          more: further arguments of that, as many entries each.
          full: pad to `full_batch` and not to a power of two.

        Returns:
          The result; its batch axis is padded, the first len(x) entries count.
        """
        size = self.full_batch if full else self._size(len(x))
        arrays = [batching.filled(array, size) for array in (x, *more)]
        batch, *rest = jax.device_put(arrays, self._split)
        return self._run(self._params, batch, method, *rest)

    def _size(self, count: int) -> int:
        """Pictures of the batch that so many get: a power of two on each device."""
        # Few sizes, for each is compiled; at most half of the batch is padding.
        return min(batching.on_devices(count, len(self._devices)), self.full_batch)

    def _batched(self, x: np.ndarray, method: str, *more: np.ndarray) -> np.ndarray:
        def start(batch, *rest):
            return self.dispatch(batch, method, *rest)

        return batching.run(start, [x, *more], self.full_batch, self._size)

    def _decoded(self, image_ids: np.ndarray, known: np.ndarray | None) -> np.ndarray:
        return self._batched(image_ids, "decode", *([] if known is None else [known]))

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Pictures to codes.

        Args:
          image: float32 [B,H,W,3] in [-1,1], or uint8.

        Returns:
          image_ids int32 [B,ceil(H/f),ceil(W/f)].
        """
        return self._batched(self._padded(image), "encode")

    def decode(
        self,
        image_ids: np.ndarray,
        size: tuple[int, int] | None = None,
        known: np.ndarray | None = None,
    ) -> np.ndarray:
        """Codes to pictures.

        Args:
          image_ids: int [B,h,w].
          size: (H, W) to crop to, if the sides of the picture are no multiples of f.
          known: float32 [B,H,W,4], `ops.pictures.known_pixels` of the photographs, for
            a decoder that sees them; another one ignores it. Default nothing.

        Returns:
          float32 [B,H,W,3], about [-1,1].
        """
        known = None if known is None else self._padded(known)
        return _cropped(self._decoded(image_ids, known), size)

    def encode_tiled(
        self, image: np.ndarray, tile: int = 64, margin: int = 4
    ) -> np.ndarray:
        """Codes as of `encode`, with the memory of one tile: for large pictures.

        Not the same codes: group norms and attention see the tile only.

        Args:
          image: float32 [B,H,W,3] in [-1,1], or uint8.
          tile: side of a tile in tokens.
          margin: tokens at the sides of a tile whose codes are thrown away.
        """
        image, f = self._padded(image), self.config.factor
        height, width = (side // f for side in image.shape[1:3])
        # A margin on either side of the cut in the middle of each overlap.
        rows, columns = (Tiling(n, tile, 2 * margin) for n in (height, width))
        image_ids = np.zeros((len(image), height, width), np.int32)
        for y, (top, bottom) in zip(rows.starts, rows.kept):
            for x, (left, right) in zip(columns.starts, columns.kept):
                part = image[:, y * f : (y + rows.size) * f]
                part = part[:, :, x * f : (x + columns.size) * f]
                ids = self._batched(part, "encode")
                kept = ids[:, top - y : bottom - y, left - x : right - x]
                image_ids[:, top:bottom, left:right] = kept
        return image_ids

    def decode_tiled(
        self,
        image_ids: np.ndarray,
        tile: int = 64,
        overlap: int = 8,
        size: tuple[int, int] | None = None,
        known: np.ndarray | None = None,
    ) -> np.ndarray:
        """Pictures as of `decode`, with the memory of one tile, the result aside.

        Neighbouring tiles are blended by a ramp. Not the same picture: group norms
        and attention see the tile only. `tiling_effect` tells the difference.

        Args:
          image_ids: int [B,h,w].
          tile: side of a tile in tokens.
          overlap: tokens that neighbouring tiles share at least, and are blended over.
          size: (H, W) to crop to.
          known: as of `decode`.
        """
        known = None if known is None else self._padded(known)
        f, (batch, height, width) = self.config.factor, image_ids.shape
        rows, columns = (Tiling(n, tile, overlap) for n in (height, width))
        shape = (batch, height * f, width * f, self.config.out_channels)
        picture = np.zeros(shape, np.float32)
        for y, down in zip(rows.starts, rows.weights(f)):
            for x, across in zip(columns.starts, columns.weights(f)):
                ids = image_ids[:, y : y + rows.size, x : x + columns.size]
                seen = known
                if known is not None:
                    seen = known[:, y * f : (y + rows.size) * f]
                    seen = seen[:, :, x * f : (x + columns.size) * f]
                part = self._decoded(ids, seen)
                # Weights of neighbouring tiles sum to exactly 1, see `ops.tiling`: no
                # division after.
                part *= (down[:, None] * across)[..., None]
                region = picture[:, y * f :, x * f :]
                region[:, : part.shape[1], : part.shape[2]] += part
        return _cropped(picture, size)

    def tiling_effect(
        self, image_ids: np.ndarray, tile: int = 64, overlap: int = 8
    ) -> dict[str, float]:
        """Errors of `decode_tiled`, measured where decoding whole is still possible.

        Args:
          image_ids: int [B,h,w], of more than one tile.
          tile, overlap: as there.

        Returns:
          psnr: of tiled to whole pictures, dB.
          largest: difference of a pixel in levels, 0..255.
          border_gradient: mean |difference| of neighbouring pixels across the tile
            borders over that inside, in the tiled picture; see `ops.tiling`.
          border_gradient_whole: the same places of the whole picture, where only
            its content can make a difference.
        """
        whole = np.clip(self.decode(image_ids), -1, 1)
        tiled = np.clip(self.decode_tiled(image_ids, tile, overlap), -1, 1)
        axes = [Tiling(n, tile, overlap) for n in image_ids.shape[1:]]
        return {
            "psnr": float(jnp.mean(pictures.psnr(tiled, whole))),
            "largest": float(np.abs(tiled - whole).max() * 127.5),
            "border_gradient": border_gradient(tiled, *axes),
            "border_gradient_whole": border_gradient(whole, *axes),
        }

    def _padded(self, image: np.ndarray) -> np.ndarray:
        """Sides rounded up to multiples of f, the border repeated."""
        more = [(0, -side % self.config.factor) for side in image.shape[1:3]]
        return np.pad(image, [(0, 0), *more, (0, 0)], mode="edge")


def _cropped(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    return image if size is None else image[:, : size[0], : size[1]]
