"""The engine with a real system and the real input pipeline, cut in two."""

import shutil

import jax
import numpy as np
import pytest

from gptface_jax.core.config import load_config
from gptface_jax.experiments import training


@pytest.mark.slow
def test_vqgan_resumes_bit_for_bit(tiny, tmp_path):
    """The tiny tokenizer again from its second step; the codebook is state too."""
    config = load_config("configs/vqgan/faces64.py:tiny")

    def train(name, *left_out):
        left_out = shutil.ignore_patterns(*left_out)
        run = shutil.copytree(tiny / "vqgan", tmp_path / name, ignore=left_out)
        return training.train(config, run, progress=False)

    whole, resumed = train("whole"), train("cut", "4")
    assert int(whole.step) == int(resumed.step) == 4
    assert jax.tree.structure(whole) == jax.tree.structure(resumed)
    leaves = jax.tree.leaves((whole, resumed))
    half = len(leaves) // 2
    for a, b in zip(leaves[:half], leaves[half:]):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    usage = np.asarray(resumed.state["usage"])
    assert usage.std() > 0
