"""The engine with a real system and the real input pipeline, cut in two."""

import shutil

import jax
import numpy as np

from gptface_jax.apps import training
from gptface_jax.core.config import load_config


def test_vqgan_resumes_bit_for_bit(tmp_path):
    def train(name):
        config = load_config("configs/vqgan/faces64.py:tiny")
        config.data.eval = None
        config.model.level_channels = (8, 8)
        config.checkpoint_every = 2
        config.ema_decay = 0.9
        config.objective.revive_every = 1  # the codebook depends on the state
        return training.train(config, tmp_path / name, progress=False)

    whole = train("whole")
    later = shutil.ignore_patterns("4")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", ignore=later)
    resumed = train("cut")
    assert int(whole.step) == int(resumed.step) == 4
    assert jax.tree.structure(whole) == jax.tree.structure(resumed)
    leaves = jax.tree.leaves((whole, resumed))
    half = len(leaves) // 2
    for a, b in zip(leaves[:half], leaves[half:]):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    usage = np.asarray(resumed.state["usage"])
    assert usage.std() > 0
