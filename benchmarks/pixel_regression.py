"""Pixels by regression against tokens, three quarters of a photograph hidden (G13).

    python benchmarks/pixel_regression.py --images ../shared/data/lfw_attributes \\
        --features ../runs/judge_all --steps 2000 --weights ../runs/pixel_regression.npz

Trains, in the manner of a masked autoencoder, the same backbone as `faces64` to regress
the pixels of hidden 8 x 8 patches (mean squared error), and compares with the tokens
that the model draws. Random masks over 75 % of the 8 x 8 cells of each photograph at
64 px. PSNR over the hidden pixels; energy: that of the finest half of the frequencies
in each direction over that of the photographs (1 keeps all texture); Frechet: distance
to the photographs in the feature space of --features.
"""

from __future__ import annotations

import argparse
import pathlib
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import photos
import tables
from tqdm import tqdm

import gptface_jax
from gptface_jax.core import trees
from gptface_jax.data import blending, image
from gptface_jax.evaluate import distributions
from gptface_jax.nn.transformer import Transformer, TransformerConfig
from gptface_jax.pipelines import pictures
from gptface_jax.protocols import feature_space

SIDE, CELL = 64, 8
GRID = SIDE // CELL
HIDDEN = round(0.75 * GRID**2)
BACKBONE = TransformerConfig(
    num_layers=4, width=128, num_heads=4, mlp_width=344, init="fan_in", qk_norm=True,
    remat="none", unroll=4,
)  # fmt: skip


class PixelModel(nn.Module):
    """Patches float [B,n,CELL*CELL*3] and hidden bool [B,n] -> patches."""

    @nn.compact
    def __call__(self, patches, hidden):
        width = BACKBONE.width
        normal = nn.initializers.normal(0.5)
        empty = self.param("hidden", normal, (width,))
        place = self.param("position", normal, (GRID**2, width))
        x = nn.Dense(width)(patches)
        x = jnp.where(hidden[..., None], empty, x) + place
        x = Transformer(BACKBONE)(x, jnp.ones((1, 1, 1, GRID**2), bool))
        return nn.Dense(patches.shape[-1])(x)


def patches_of(pixels):
    """[B,SIDE,SIDE,3] -> [B,n,CELL*CELL*3]."""
    x = pixels.reshape(-1, GRID, CELL, GRID, CELL, 3).swapaxes(2, 3)
    return x.reshape(len(x), GRID**2, -1)


def pixels_of(patches):
    x = patches.reshape(-1, GRID, GRID, CELL, CELL, 3).swapaxes(2, 3)
    return x.reshape(len(x), SIDE, SIDE, 3)


def random_cells(count: int, seed: int) -> np.ndarray:
    """bool [count,n] with HIDDEN True in a row."""
    order = np.random.default_rng(seed).random((count, GRID**2)).argsort(1)
    return order < HIDDEN


def train(pixels: np.ndarray, steps: int, batch: int, seed: int):
    """Parameters after so many steps on uint8 [N,SIDE,SIDE,3], mirrored at random."""
    model, rng = PixelModel(), np.random.default_rng(seed)
    example = jnp.zeros((1, GRID**2, CELL * CELL * 3)), jnp.zeros((1, GRID**2), bool)
    params = nn.meta.unbox(model.init(jax.random.key(seed), *example)["params"])
    schedule = optax.warmup_cosine_decay_schedule(0, 1.5e-3, steps // 30, steps, 1e-5)
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, 0.9, 0.98, weight_decay=0.01),
    )

    @jax.jit
    def step(params, opt_state, x, hidden):
        def loss(params):
            drawn = model.apply({"params": params}, x, hidden)
            error = jnp.mean((drawn - x) ** 2, axis=-1)
            return jnp.sum(error * hidden) / jnp.sum(hidden)

        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    opt_state, begin = tx.init(params), time.time()
    for number in (bar := tqdm(range(steps), unit="step")):
        x = pixels[rng.integers(len(pixels), size=batch)]
        x = np.where(rng.random((batch, 1, 1, 1)) < 0.5, x[:, :, ::-1], x)
        hidden = random_cells(batch, int(rng.integers(2**31)))
        x = patches_of(image.to_unit_range(x))
        params, opt_state, value = step(params, opt_state, x, hidden)
        if number % 100 == 0:
            bar.set_postfix(loss=f"{float(value):.4f}")
    print(f"{steps} steps of {batch} in {time.time() - begin:.0f} s")
    return params


def fine_energy(pixels: np.ndarray) -> float:
    """Mean power of what the finest half of the frequencies holds."""
    power = np.abs(np.fft.fft2(pixels.astype(float).mean(-1), norm="ortho")) ** 2
    frequency = np.abs(np.fft.fftfreq(pixels.shape[1]))
    fine = np.maximum(frequency[:, None], frequency[None]) > 0.25
    return float(power[:, fine].mean())


def main() -> None:
    parser = photos.parser(__doc__, limit=1055)
    parser.add_argument("--features", required=True, help="judge run")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--weights", help="FILE.npz: read where it exists, else written"
    )
    options = parser.parse_args()
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    features = feature_space.open_space(options.features).of_photos
    weights = pathlib.Path(options.weights) if options.weights else None
    if weights and weights.exists():
        params = trees.unflatten(dict(np.load(weights)))
    else:
        train_options = argparse.Namespace(**{**vars(options), "split": "train"})
        train_options.limit = 10**9
        seen = [image.fit(p, SIDE) for p in photos.read(train_options)]
        params = train(np.stack(seen), options.steps, options.batch, options.seed)
        if weights:
            np.savez(weights, **trees.flatten(jax.device_get(params)))
    truth = np.stack([image.fit(p, SIDE) for p in photos.read(options)])
    cells = random_cells(len(truth), 1).reshape(-1, GRID, GRID)
    masks = np.stack([image.tokens_to_pixels(c, (SIDE, SIDE)) for c in cells])
    apply = jax.jit(lambda x, hidden: PixelModel().apply({"params": params}, x, hidden))

    def regression(photo, mask, cell):
        drawn = apply(
            patches_of(image.to_unit_range(photo)), cell.reshape(len(cell), -1)
        )
        return image.from_unit_range(pixels_of(np.asarray(drawn)))

    def tokens(**changes):
        config = model.decode_config({"guidance": "none", "cfg": 1.0, **changes})

        def run(photo, mask, cell):
            keys = jax.random.split(jax.random.key(options.seed), len(photo))
            return model.editor.edit(
                photo, mask, [""] * len(photo), config, keys
            ).images

        return run

    def tokenizer(photo, mask, cell):
        ids = model.editor.image_ids(photo)
        return image.from_unit_range(model.editor.vqgan.decode(ids))

    def smooth(photo, mask, cell):
        x = image.to_unit_range(photo)
        return image.from_unit_range(
            np.stack([blending.prefill(*pair) for pair in zip(x, mask)])
        )

    ways = {
        "photographs": lambda photo, mask, cell: photo,
        "the tokenizer's best": tokenizer,
        "smooth fill": smooth,
        "pixel regression": regression,
        "tokens, k = 8": tokens(),
        "tokens, k = 1": tokens(k=1),
        "tokens, k = 8, most likely": tokens(temperature=0.0, temperature_end=0.0),
    }
    rows, shown, said = [["", "PSNR", "energy", "Frechet"]], [], []
    for name, way in ways.items():
        parts = [
            way(truth[i : i + 64], masks[i : i + 64], cells[i : i + 64])
            for i in range(0, len(truth), 64)
        ]
        drawn = np.where(masks[..., None], np.concatenate(parts), truth)
        psnr = np.mean([photos.psnr(*x) for x in zip(drawn, truth, masks)])
        energy = fine_energy(drawn) / fine_energy(truth)
        frechet = distributions.frechet_distance(features(drawn), features(truth))
        rows.append([name, f"{psnr:.2f}", f"{energy:.2f}", f"{frechet:.3f}"])
        print(rows[-1], flush=True)
        shown += list(drawn[:6])
        said += [name] * 6
    print(tables.aligned(rows))
    if options.sheet:
        pictures.save(pictures.sheet(shown, 6, said, cell=128), options.sheet)


if __name__ == "__main__":
    main()
