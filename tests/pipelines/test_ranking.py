"""Drawn pictures in the order of how well they match."""

import numpy as np
import pytest
from PIL import Image

from gptface_jax.apps.api import load
from gptface_jax.core.errors import UserError
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.pipelines import ranking
from gptface_jax.pipelines.results import Samples

GREYS = [30, 200, 90, 200]


def drawn(size: int = 16) -> Samples:
    pictures = [Image.new("RGB", (size, size), (v,) * 3) for v in GREYS]
    return Samples(pictures, {"seed": 3})


def brightness(pictures, sentence):
    sign = {"bright": 1.0, "dark": -3.0}[sentence]
    return sign * pictures.mean((1, 2, 3))


def test_the_best_come_first_and_the_details_say_why():
    kept = ranking.best(drawn(), ["bright"], brightness, 3, "brightness")
    assert [s.getpixel((0, 0))[0] for s in kept] == [200, 200, 90]
    assert kept.details["seed"] == 3
    told = kept.details["ranking"]
    assert told["kept"] == [1, 3, 2] and told["of"] == 4 and told["by"] == "brightness"
    assert told["scores"] == [200.0, 200.0, 90.0]
    # Of several sentences the sum counts: 1 - 3 times the brightness.
    kept = ranking.best(drawn(), ["bright", "dark"], brightness, 1, "brightness")
    assert kept.details["ranking"]["scores"] == [-60.0]


def test_more_pictures_than_fit_at_once(monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3)).astype(np.uint8)
    whole = ranking.scores(pictures, ["bright"], brightness)
    monkeypatch.setattr(ranking, "_AT_ONCE", 3)
    np.testing.assert_array_equal(
        ranking.scores(pictures, ["bright"], brightness), whole
    )


def test_the_bundled_model_s_matching():
    """Of drawn faces, those that wear what is asked for come first."""
    editor = load("demo").editor
    faces = list(SyntheticFaces(size=64, count=24, seed=5))
    wearing = np.array([face.labels["Wearing_Hat"] > 0.5 for face in faces])
    found = ranking.scores(
        np.stack([face.image for face in faces]),
        ["a person wearing a hat"],
        ranking.by_matching(editor),
    )
    first = np.argsort(-found)[: wearing.sum()]
    assert 0 < wearing.mean() < 0.6
    assert wearing[first].mean() > 2 * wearing.mean()
    small = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(UserError, match="have 32 px, and the model.* sees 64"):
        ranking.by_matching(editor)(small, "a man")


def test_what_cannot_be_ranked():
    with pytest.raises(UserError, match="5 of 4 pictures are to be kept"):
        ranking.best(drawn(), ["bright"], brightness, 5, "brightness")
    with pytest.raises(UserError, match="no sentence to rank by"):
        ranking.best(drawn(), ["", " "], brightness, 1, "brightness")
