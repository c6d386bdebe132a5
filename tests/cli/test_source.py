"""Arguments that say where photos are."""

import argparse

import pytest

from gptface_jax.cli import _source
from gptface_jax.data import sources


def spec(*arguments, size=None):
    parser = argparse.ArgumentParser()
    _source.add_arguments(parser)
    return _source.spec(parser.parse_args(["--images", *arguments]), size)


@pytest.mark.parametrize("kind", ["synthetic", "synthetic_edits", "textures"])
def test_pictures_are_drawn_at_the_size_of_the_model_that_looks(kind):
    drawn = sources.open_source(spec(kind, "--limit", "4", size=96))
    assert drawn[0].image.shape == (96, 96, 3)
    assert "size" not in spec(kind)
    own = spec(kind, "--data", "size=32", size=96)
    assert sources.open_source(own)[0].image.shape == (32, 32, 3)


def test_photographs_stay_as_they_are(tmp_path):
    assert "size" not in spec(str(tmp_path), size=96)
