"""Pictures of no face: reproducible, varied, and a source like any other."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import sources
from gptface_jax.data.textures import Textures


def test_reproducible_and_all_different():
    first, again, other = Textures(32, 8), Textures(32, 8), Textures(32, 8, seed=1)
    pictures = [first[i].image for i in range(8)]
    assert all(p.shape == (32, 32, 3) and p.dtype == np.uint8 for p in pictures)
    np.testing.assert_array_equal(pictures[3], again[3].image)
    np.testing.assert_array_equal(pictures[-1], first[-1].image)
    distinct = {p.tobytes() for p in [*pictures, other[3].image]}
    assert len(distinct) == 9
    with pytest.raises(IndexError):
        first[8]


def test_they_have_edges_and_colours_and_no_labels():
    record = sources.open_source({"kind": "textures", "size": 48, "count": 3})[0]
    assert record.source == "textures" and not record.labels and not record.text
    picture = record.image.astype(float)
    assert picture.std() > 20  # of 255
    steps = np.abs(np.diff(picture, axis=0)).mean(-1)
    assert np.quantile(steps, 0.99) > 5 * np.median(steps)
    with pytest.raises(UserError, match="size 4, count 3"):
        Textures(4, 3)
