"""`init_from` by a config: a run that starts with the weights of a run or a model."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_vqgan

from gptface_jax.core import trees
from gptface_jax.core.config import load_config
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.experiments import opening, training, vqgan
from gptface_jax.nn.vqgan import VQGAN
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer


@pytest.mark.slow
@pytest.mark.parametrize("source", ["vqgan", "model"])
def test_a_decoder_is_trained_on_and_the_codes_stay(tiny, source, tmp_path):
    config = load_config("configs/vqgan/faces64.py:tiny_decoder")
    config.init_from, config.total_steps = str(tiny / source), 2
    state = training.train(config, tmp_path, progress=False)
    before = opening.open_network(tiny / source, "vqgan", None)
    after = opening.open_network(tmp_path, "vqgan", None)
    assert after.codes_digest == before.codes_digest and after.digest != before.digest
    kept = trees.flatten(before.params)
    for name, value in trees.flatten(jax.device_get(state.params)).items():
        if name in kept and name.startswith("encoder"):
            np.testing.assert_array_equal(value, kept[name], name)


def test_more_codes_begin_as_the_codes_that_are_used():
    """Without noise every picture comes back as it did; each child is its parent's."""
    network = tiny_vqgan.network()
    spec = {"kind": "synthetic", "count": 40, "size": 32}
    wanted = dataclasses.replace(tiny_vqgan.CONFIG, codebook_size=256, resolution=32)
    options = {"records": 36, "noise": 0.0}
    params = vqgan.with_more_codes(network, wanted, spec, **options)
    assert params["codebook"].shape == (256, 4)
    np.testing.assert_array_equal(params["codebook"][:64], network.params["codebook"])
    larger = dataclasses.replace(network, module=VQGAN(wanted), params=params)
    images = np.stack([f.image for f in SyntheticFaces(size=32, count=8)])
    first, second = ImageTokenizer(network), ImageTokenizer(larger)
    ids = first.encode(images)
    np.testing.assert_array_equal(second.encode(images), ids)
    np.testing.assert_array_equal(second.decode(ids), first.decode(ids))
    # What these pictures use has become several, the more the more it is used.
    used = np.bincount(ids.ravel(), minlength=64)
    parents = [
        int(np.abs(network.params["codebook"] - child).sum(-1).argmin())
        for child in params["codebook"][64:]
    ]
    children = np.bincount(parents, minlength=64)
    assert children[used > 0].mean() > 2 * children[used == 0].mean()
    assert children[used.argmax()] >= 0.5 * children.max()
    same = vqgan.with_more_codes(network, tiny_vqgan.CONFIG, spec)
    assert same is network.params


@pytest.mark.slow
def test_a_run_with_more_codes(tiny, tmp_path):
    config = load_config("configs/vqgan/faces64.py:tiny")
    config.init_from, config.total_steps = str(tiny / "vqgan"), 1
    config.model.codebook_size = 64
    state = training.train(config, tmp_path, progress=False)
    assert state.params["codebook"].shape == (64, 8)
    assert state.state["usage"].shape == (64,)
