"""What experiments open of the data that a config names."""

import json

import pytest

from gptface_jax.data.composed import Mixture
from gptface_jax.experiments import base, token_data

FRAME = [[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.4, 0.8], [0.6, 0.8]]


class Cache(list):
    """A token cache of three records."""

    codebook = None

    def __init__(self, frame=None):
        super().__init__([None] * 3)
        self.manifest = {"tokenizer_digest": "d", "grid": [4, 4], "codebook_size": 8}
        self.manifest |= {"frame": frame} if frame else {}


@pytest.mark.parametrize(
    "frames, known",
    [
        ((FRAME, FRAME), FRAME),
        ((None, FRAME, None), FRAME),  # beside pictures that lie as they came
        ((None, None), None),
        ((FRAME, FRAME[::-1]), None),
    ],
)
def test_edits_bring_faces_where_the_upright_pictures_have_them(frames, known):
    source = Mixture([Cache(frame) for frame in frames])
    data = base.DataConfig(train={}, image_ids="cache", codebook_init=False)
    codes = token_data.open_codes(data, (4, 4), 8, source, source)
    assert json.loads(codes.files["manifest.json"]).get("frame") == known


@pytest.mark.parametrize("wanted", [True, False])
def test_a_cache_without_a_codebook_says_that_codes_begin_at_random(wanted, capsys):
    data = base.DataConfig(train={}, image_ids="cache", codebook_init=wanted)
    token_data.open_codes(data, (4, 4), 8, Cache(), Cache())
    assert ("no codebook.npy" in capsys.readouterr().err) == wanted


def test_evaluation_on_the_training_pictures_is_said(capsys):
    drawn = {"kind": "synthetic", "count": 3, "size": 16}
    same = base.DataConfig(train=drawn, eval=dict(drawn))
    assert len(base.open_eval(same, {})) == 3
    assert "data.eval is data.train" in capsys.readouterr().err
    other = base.DataConfig(train=drawn, eval={**drawn, "seed": 1})
    assert len(base.open_eval(other, {})) == 3
    assert base.open_eval(base.DataConfig(train=drawn), {}) is None
    assert not capsys.readouterr().err
