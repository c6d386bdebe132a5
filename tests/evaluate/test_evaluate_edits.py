import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptface_jax.evaluate import edits, reconstruction


def test_mcnemar_by_hand():
    # 9 pairs only the first has, 1 only the second: 2 * (1 + 10) / 2**10.
    first = np.array([True] * 9 + [False] + [True] * 5)
    second = np.array([False] * 9 + [True] + [True] * 5)
    assert edits.mcnemar(first, second) == pytest.approx(22 / 1024)
    assert edits.mcnemar(first, first) == 1.0
    many = np.ones(4000, bool)
    assert 0 < edits.mcnemar(many, ~many) < 1e-300 or edits.mcnemar(many, ~many) == 0


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(a, b):
    first = np.array([True] * a + [False] * b, bool)
    exact = sum(math.comb(a + b, i) for i in range(min(a, b) + 1)) / 2 ** (a + b)
    assert edits.mcnemar(first, ~first) == pytest.approx(min(1.0, 2 * exact))


def test_rates():
    asked = np.array([True, True, True, False])
    opposite = np.array([False, True, False, False])
    rates = edits.rates(asked, opposite, np.array([True, False, False, False]))
    assert (rates.asked, rates.opposite, rates.before) == (0.75, 0.25, 0.25)
    assert rates.gap == 0.5 and rates.count == 4
    assert rates.to_dict()["p_value"] == 0.5


def test_outside_psnr():
    photo = np.full((1, 4, 4, 3), 100, np.uint8)
    mask = np.zeros((1, 4, 4), bool)
    mask[:, :2] = True
    inside = photo.copy()
    inside[:, 0] = 0
    assert np.isinf(edits.outside_psnr(inside, photo, mask)[0])
    outside = photo.copy()
    outside[:, 2:] += 10
    expected = 10 * math.log10(255**2 / 100)
    assert edits.outside_psnr(outside, photo, mask)[0] == pytest.approx(expected)


def test_balanced_accuracy():
    truth = np.array([True] * 2 + [False] * 8)
    said = np.array([True, False] + [False] * 8)
    assert edits.balanced_accuracy(said, truth) == 0.75
    assert math.isnan(edits.balanced_accuracy(said, np.ones(10, bool)))


def test_ssim_and_psnr_agree_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (2, 40, 32, 3), dtype=np.uint8)
    noisy = np.clip(photo + rng.normal(0, 12, photo.shape), 0, 255).astype(np.uint8)
    ours, psnr = reconstruction.ssim(noisy, photo), reconstruction.psnr(noisy, photo)
    for i in range(2):
        theirs = metrics.structural_similarity(
            photo[i], noisy[i], channel_axis=-1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, data_range=255,
        )  # fmt: skip
        assert ours[i] == pytest.approx(theirs, abs=2e-4)
        assert psnr[i] == pytest.approx(
            metrics.peak_signal_noise_ratio(photo[i], noisy[i])
        )
    assert np.isinf(reconstruction.psnr(photo, photo)).all()
    np.testing.assert_allclose(reconstruction.ssim(photo, photo), 1.0)


def test_code_usage_by_hand():
    batch = np.zeros((2, 16, 16, 3), np.uint8)

    def encode(x):
        return np.array([[[0, 1]], [[1, 2]]])

    figures = reconstruction.evaluate([batch], encode, lambda ids: batch, 8)
    assert figures["codes_used"] == 3 / 8 and figures["num_images"] == 2
    share = np.array([0.25, 0.5, 0.25])
    assert figures["perplexity"] == pytest.approx(
        np.exp(-(share * np.log(share)).sum())
    )
