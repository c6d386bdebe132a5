"""The linear probe finds lines, and only them."""

import numpy as np

from gptface_jax.evaluate import linear_probe


def test_a_line_is_found_whichever_system_is_smaller():
    rng = np.random.default_rng(0)
    for count, width in ((400, 12), (60, 200)):
        slope = rng.normal(size=width)
        first, second = (rng.normal(size=(n, width)) for n in (count, 50))
        said = linear_probe.numbers(first, first @ slope + 3, second)
        error = np.abs(said - (second @ slope + 3))
        # As many examples as unknowns are needed for all of it.
        assert error.mean() < (0.02 if count > width else 0.9) * np.abs(slope).sum()
        if count > width:
            assert error.max() < 0.1


def test_a_rare_class_is_found_as_well():
    """Five in a hundred, a step apart along one direction of ten."""
    rng = np.random.default_rng(1)
    labels = np.arange(1000) % 20 == 0
    features = rng.normal(size=(1000, 10))
    features[:, 4] += 4 * labels
    said, scores = linear_probe.classes(
        features[:800], labels[:800].tolist(), features[800:], (False, True)
    )
    said, truth = np.array(said), labels[800:]
    assert said[truth].mean() > 0.8 and (~said[~truth]).mean() > 0.9
    assert scores.shape == (200, 2)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)
    noise = rng.normal(size=(1000, 10))
    said, _ = linear_probe.classes(
        noise[:800], labels[:800].tolist(), noise[800:], (False, True)
    )
    assert 0.3 < np.mean(said) < 0.7  # balanced: it says both equally often


def test_codes_as_features():
    codebook = np.array([[1.0, 0.0], [3.0, 2.0]])
    found = linear_probe.codes_as_features(np.array([[0, 1], [1, 1]]), codebook)
    np.testing.assert_allclose(found, [[-1, -1, 1, 1], [1, 1, 1, 1]])
