"""PSNR and SSIM against scikit-image; figures in any split, on devices and hosts."""

import json
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.evaluate import reconstruction
from gptface_jax.evaluate.landmarks import landmark_figures
from gptface_jax.evaluate.perceived import Perceiver

HERE = os.path.dirname(__file__)
ssim, psnr = jax.jit(reconstruction.ssim), jax.jit(reconstruction.psnr)


def photos(count=2, height=40, width=32, seed=0):
    """Smooth random pictures, float32 [B,H,W,3] in [-1,1]."""
    rng = np.random.default_rng(seed)
    rough = rng.uniform(-1, 1, (count, height // 4, width // 4, 3))
    return np.float32(rough.repeat(4, axis=1).repeat(4, axis=2))


def structural_similarity(image, target):
    metrics = pytest.importorskip("skimage.metrics")
    return [
        metrics.structural_similarity(
            np.float64(a) + 1, np.float64(b) + 1, channel_axis=-1, data_range=2,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(image, target)
    ]  # fmt: skip


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_ssim_and_psnr_agree_with_scikit_image(noise):
    metrics = pytest.importorskip("skimage.metrics")
    target = photos()
    rough = target + np.random.default_rng(1).normal(0, noise, target.shape)
    image = np.clip(rough, -1, 1).astype(np.float32)
    np.testing.assert_allclose(
        ssim(image, target),
        structural_similarity(image, target),
        atol=1e-5,
    )
    expected = [
        metrics.peak_signal_noise_ratio(np.float64(b), np.float64(a), data_range=2)
        for a, b in zip(image, target)
    ]
    np.testing.assert_allclose(psnr(image, target), expected, rtol=1e-5)


def test_ssim_of_flat_bright_pictures():
    # Variances are differences of numbers near 4, five orders larger.
    rng = np.random.default_rng(2)
    target = np.full((2, 32, 32, 3), 0.99, np.float32)
    target[1, 16:] = -0.99
    image = np.float32(target + rng.uniform(-0.01, 0.01, target.shape))
    np.testing.assert_allclose(
        ssim(image, target),
        structural_similarity(image, target),
        atol=1e-4,
    )


def test_psnr_by_hand():
    target = jnp.zeros((2, 4, 4, 3))
    image = jnp.stack([jnp.full((4, 4, 3), 0.2), jnp.zeros((4, 4, 3))])
    # Peak 2, error 0.2: 20 log10(10); equal pictures stop at 100.
    np.testing.assert_allclose(psnr(image, target), [20, 100], rtol=1e-5)
    np.testing.assert_allclose(ssim(photos(), photos()), 1, rtol=1e-5)


def test_what_leaves_the_range_is_clipped():
    target = photos()
    beyond = np.where(target > 0.5, target + 3, np.where(target < -0.5, -7, target))
    clipped = np.clip(beyond, -1, 1)
    for metric in (psnr, ssim):
        np.testing.assert_array_equal(metric(beyond, target), metric(clipped, target))


def test_pictures_that_cannot_be_compared():
    image = photos()
    with pytest.raises(ValueError, match="uint8; give float32"):
        psnr(np.uint8(image), np.uint8(image))
    with pytest.raises(ValueError, match="of shapes"):
        psnr(image, image[:1])
    with pytest.raises(ValueError, match="8 x 32 are smaller .* 11"):
        ssim(image[:, :8], image[:, :8])


def test_code_usage_by_hand():
    image_ids = np.array([[[0, 1]], [[1, 2]], [[7, 7]]])
    counts = reconstruction.code_counts(image_ids, np.array([1.0, 1.0, 0.0]), 8)
    np.testing.assert_array_equal(counts, [1, 2, 1, 0, 0, 0, 0, 0])
    figures = reconstruction.code_figures(counts)
    assert figures["codes_used"] == 3 / 8
    share = np.array([0.25, 0.5, 0.25])
    assert figures["perplexity"] == pytest.approx(
        np.exp(-(share * np.log(share)).sum())
    )


# A tokenizer whose code is the brightness of a cell of 4 x 4 pixels, and a judge.
CODES = 8


@jax.jit
def encode(image):
    batch, height, width, _ = image.shape
    cells = image.reshape(batch, height // 4, 4, width // 4, 4, 3).mean((2, 4, 5))
    return jnp.clip((cells + 1) * CODES / 2, 0, CODES - 1).astype(jnp.int32)


@jax.jit
def decode(image_ids):
    grey = (image_ids + 0.5) * (2 / CODES) - 1
    return jnp.repeat(grey.repeat(4, axis=1).repeat(4, axis=2)[..., None], 3, axis=3)


@jax.jit
def means(image):
    return image.mean((1, 2))


def measure(batches):
    return reconstruction.evaluate(
        batches,
        encode,
        decode,
        CODES,
        distances={"pixels": jax.jit(lambda a, b: jnp.abs(a - b).mean((1, 2, 3)))},
        features={"means": means},
        judge=means,
        attributes=("red", "green", "blue"),
    )


def pool():
    """16 pictures, each person twice."""
    return {"image": photos(16, 16, 16, 3), "identity": np.arange(16) % 8}


def test_figures_by_hand():
    image = photos(2, 16, 16)
    figures = reconstruction.evaluate(
        [{"image": image}],
        lambda x: np.zeros((2, 1, 2), int),
        lambda ids: image * 3,
        4,
        distances={"constant": lambda a, b: jnp.array([1.0, 4.0])},
    )
    expected = float(np.mean(psnr(np.clip(image * 3, -1, 1), image)))
    assert figures.pop("psnr") == pytest.approx(expected, rel=1e-5)
    assert 0 < figures.pop("ssim") < 1
    assert figures == {
        "distance/constant": 2.5,
        "codes_used": 0.25,
        "perplexity": 1.0,
        "num_images": 2,
    }


def test_points_of_a_face_move():
    """A finder that reads its points off the picture's first pixels."""

    def landmarks(pictures):
        assert pictures.dtype == np.uint8
        points = np.zeros((len(pictures), 68, 2), np.float32)
        points[:, 42:48, 0] = 10.0  # 10 pixels between the eyes
        points[:, 36:48, 1] = pictures[:, :1, 0, 0]
        points[:, 48:, 1] = 20.0
        points[pictures[:, 1, 0, 0] > 127] = np.nan
        return points

    def picture(value, lost=False):
        levels = np.zeros((16, 16, 3), np.float32)
        levels[0], levels[1] = value, 255 * lost
        return levels / 127.5 - 1

    image = np.stack([picture(v) for v in (0, 10, 0, 0)] + [picture(0, True)])
    again = np.stack([picture(v) for v in (5, 10, 1)] + [picture(0, True), picture(0)])
    batch = {"image": np.pad(image, [(0, 2)] + [(0, 0)] * 3, constant_values=np.nan)}
    batch["weight"] = np.repeat([1.0, 0.0], [5, 2])
    figures = reconstruction.evaluate(
        [batch],
        lambda x: np.zeros((7, 1, 2), int),
        lambda ids: np.pad(again, [(0, 2)] + [(0, 0)] * 3),
        4,
        landmarks=landmarks,
    )
    # Three have a face twice: eyes move by 5, 0 and 1 of 10; 12 of 68 points do.
    found = {k: v for k, v in figures.items() if "face" in k or "landmark" in k}
    assert found == pytest.approx(
        {
            "faces_before": 0.8,
            "faces_after": 0.8,
            "landmark_error/eyes": 0.2,
            "landmark_error/mouth": 0.0,
            "landmark_error/brows": 0.0,
            "landmark_error/all": 0.2 * 12 / 68,
        }
    )
    nobody = landmark_figures(*[np.full((2, 68, 2), np.nan)] * 2)
    assert nobody == {"faces_before": 0.0, "faces_after": 0.0}


def test_what_a_perception_model_sees_in_both():
    """A reader whose classes and points are the first levels of a picture's rows."""

    def read(pictures):
        assert pictures.dtype == np.uint8
        points = np.zeros((len(pictures), 68, 2), np.float32)
        points[:, 45, 0] = 10  # 10 from the other corner
        points[:, 30, 1] = pictures[:, 1, 0, 0]
        return {"classes": pictures[:, 0, :4, 0], "points": points}

    def picture(classes, y):
        levels = np.zeros((16, 16, 3), np.float32)
        levels[0, :4], levels[1, 0] = np.array(classes)[:, None], y
        return levels / 127.5 - 1

    def figures(again, perceiver):
        image = np.stack([picture([0, 1, 1, 2], 0), picture([1, 1, 2, 2], 20)])
        return reconstruction.evaluate(
            # The third only fills up the batch.
            [{"image": np.pad(image, FILL, constant_values=np.nan), "weight": REAL}],
            lambda x: np.zeros((3, 1, 2), int),
            lambda ids: np.pad(image if again is None else np.stack(again), FILL),
            4,
            perceiver=perceiver,
        )

    FILL, REAL = [(0, 1)] + [(0, 0)] * 3, np.array([1.0, 1, 0])
    perceiver = Perceiver(read, ("background", "skin", "nose", "hat"), "ibug68")
    found = figures(None, perceiver)
    assert found["parsing_agreement"] == 1 and found["landmark_shift"] == 0
    # A pixel of skin becomes background, and a point moves by 0 and by 17 of 10.
    found = figures([picture([0, 0, 1, 2], 0), picture([1, 1, 2, 2], 37)], perceiver)
    shift = (0 + 1.7 / 68) / 2
    assert found["landmark_shift"] == pytest.approx(shift)
    seen = {k: v for k, v in found.items() if k.startswith("parsing")}
    f1 = {"background": 2 / 3, "skin": 2 * 3 / (4 + 3), "nose": 1.0}
    assert seen == pytest.approx(
        {"parsing_agreement": (f1["skin"] + 1) / 2}
        | {f"parsing_agreement/{k}": v for k, v in f1.items()}
    )
    points = Perceiver(lambda x: {"points": read(x)["points"]}, scheme="ibug68")
    assert {k for k in figures(None, points) if "parsing" in k} == set()
    parts = Perceiver(lambda x: {"classes": read(x)["classes"]}, perceiver.classes)
    assert "landmark_shift" not in figures(None, parts)


def test_every_split_gives_the_same_figures():
    whole = measure([pool()])
    assert whole["num_images"] == 16 and whole["codes_used"] > 0.5
    assert whole["present/red"] + whole["absent/red"] == 16
    assert whole["frechet/means"] > 0
    assert 0 <= whole["identity_before/means"] <= 1
    for sizes in ([8, 8], [3, 10, 3]):
        cuts = np.cumsum(sizes)[:-1]
        parts = {name: np.split(x, cuts) for name, x in pool().items()}
        batches = [dict(zip(parts, values)) for values in zip(*parts.values())]
        assert measure(batches) == pytest.approx(whole, rel=1e-5)


def test_what_fills_up_a_batch_does_not_count():
    whole = pool()
    filling = {
        "image": np.full((3, 16, 16, 3), np.nan, np.float32),
        "identity": np.zeros(3, int),
    }
    padded = {name: np.concatenate([whole[name], filling[name]]) for name in whole}
    padded["weight"] = np.repeat([1.0, 0.0], [16, 3])
    assert measure([padded]) == pytest.approx(measure([whole]), rel=1e-6)


def test_nothing_to_measure():
    with pytest.raises(UserError, match="no pictures"):
        measure([])
    with pytest.raises(UserError, match="at least 2 samples, not 1"):
        measure([{name: x[:1] for name, x in pool().items()}])


WORKER = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
index, port = int(sys.argv[1]), sys.argv[2]
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
import numpy as np
import test_reconstruction as here
from gptface_jax.train import sharding
assert jax.device_count() == 8
mesh = sharding.make_mesh(2, 4, 1)
whole = here.pool()
whole["weight"] = np.ones(16, np.float32)
batches = []
for start in (0, 8):  # every host holds half of each batch
    mine = slice(start + 4 * index, start + 4 * index + 4)
    batches.append(sharding.put_batch({k: v[mine] for k, v in whole.items()}, mesh))
assert not batches[0]["image"].is_fully_addressable
figures = here.measure(batches)
print("RESULT", json.dumps(figures))
"""


def test_eight_devices_of_two_hosts_give_the_figures_of_one():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": HERE}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(i), port],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        outputs = [w.communicate(timeout=240) for w in workers]
    finally:
        for worker in workers:
            worker.kill()
    expected = measure([pool()])
    for worker, (out, errors) in zip(workers, outputs):
        assert worker.returncode == 0, errors[-3000:]
        (line,) = [x for x in out.splitlines() if x.startswith("RESULT")]
        found = json.loads(line.removeprefix("RESULT"))
        assert found == pytest.approx(expected, rel=1e-5)
