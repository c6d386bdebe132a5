"""How well a tokenizer keeps pictures: PSNR, SSIM, use of the codebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

_SIGMA, _RADIUS = 1.5, 5


def psnr(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of uint8 [B,H,W,3] pairs; float64 [B].

    Infinite where the pictures are equal.
    """
    error = image.astype(np.float64) - target
    mse = np.mean(error**2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255.0**2 / mse)


def _blur(x: np.ndarray) -> np.ndarray:
    """Gaussian window of 11 over axes 1 and 2, valid part only."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window /= window.sum()
    for axis in (1, 2):
        length = x.shape[axis] - 2 * _RADIUS
        x = sum(
            w * np.take(x, np.arange(i, i + length), axis) for i, w in enumerate(window)
        )
    return x


def ssim(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004) of uint8 [B,H,W,3]; float64 [B].

    Gaussian window of 11 pixels, sigma 1.5, mean over the three channels.
    """
    x, y = image.astype(np.float64), target.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = _blur(x), _blur(y)
    xx, yy, xy = _blur(x * x) - mx**2, _blur(y * y) - my**2, _blur(x * y) - mx * my
    numerator = (2 * mx * my + c1) * (2 * xy + c2)
    return np.mean(numerator / ((mx**2 + my**2 + c1) * (xx + yy + c2)), (1, 2, 3))


def evaluate(
    batches: Iterable[np.ndarray],
    encode: Callable[[np.ndarray], np.ndarray],
    decode: Callable[[np.ndarray], np.ndarray],
    codebook_size: int,
) -> dict[str, float]:
    """Reconstruction figures.

    Args:
      batches: uint8 [B,S,S,3].
      encode, decode: uint8 pictures -> image_ids int [B,h,w] -> uint8 pictures.
      codebook_size: K.

    Returns:
      psnr (dB, mean over pictures), ssim, codes_used (share of the K codes met at
      least once), perplexity (of the code distribution), num_images.
    """
    counts = np.zeros(codebook_size, np.int64)
    psnrs, ssims = [], []
    for batch in batches:
        ids = encode(batch)
        counts += np.bincount(ids.ravel(), minlength=codebook_size)
        again = decode(ids)
        psnrs.append(psnr(again, batch))
        ssims.append(ssim(again, batch))
    share = counts[counts > 0] / counts.sum()
    return {
        "psnr": float(np.mean(np.concatenate(psnrs))),
        "ssim": float(np.mean(np.concatenate(ssims))),
        "codes_used": float(np.mean(counts > 0)),
        "perplexity": float(np.exp(-np.sum(share * np.log(share)))),
        "num_images": int(sum(len(p) for p in psnrs)),
    }
