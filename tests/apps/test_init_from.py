"""`init_from` by a config: a run that starts with the weights of a run or a model."""

import jax
import numpy as np
import pytest

from gptface_jax.apps import networks, training
from gptface_jax.core import trees
from gptface_jax.core.config import load_config


@pytest.mark.slow
@pytest.mark.parametrize("source", ["vqgan", "model"])
def test_a_decoder_is_trained_on_and_the_codes_stay(tiny, source, tmp_path):
    config = load_config("configs/vqgan/faces64.py:tiny_decoder")
    config.init_from, config.total_steps = str(tiny / source), 2
    state = training.train(config, tmp_path, progress=False)
    before = networks.open_network(tiny / source, "vqgan", None)
    after = networks.open_network(tmp_path, "vqgan", None)
    assert after.codes_digest == before.codes_digest and after.digest != before.digest
    kept = trees.flatten(before.params)
    for name, value in trees.flatten(jax.device_get(state.params)).items():
        if name in kept and name.startswith("encoder"):
            np.testing.assert_array_equal(value, kept[name], name)
