"""The tokenizer's losses, metrics and codebook care, on networks made constant."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig
from gptface_jax.ops import holes
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems.vqgan import Painter, Perceptual, make_system

MODEL = {
    "resolution": 8,
    "level_channels": (4, 8),
    "num_res_blocks": 1,
    "attn_resolutions": (),
    "z_channels": 4,
    "embed_dim": 2,
    "codebook_size": 6,
    "groups": 2,
}
KEY = jax.random.key(0)
TOKENS = 3 * 4 * 4  # a batch of three pictures


def build(**objective):
    return make_system(
        {"model": MODEL, "objective": objective, "batch_size": 3, "total_steps": 20}
    )


@functools.cache
def initial():
    return nn.meta.unbox(jax.jit(build().init)(KEY))


def constant(colour: float, latent=(1.0, 2.0)):
    """Parameters that encode anything as `latent` and decode it as one colour."""
    params = initial()
    zero = jax.tree.map(jnp.zeros_like, params)
    out = {**zero["decoder"]["conv_out"], "bias": jnp.full(3, colour)}
    return {
        **params,
        "decoder": {**params["decoder"], "conv_out": out},
        "quant_conv": {**zero["quant_conv"], "bias": jnp.array(latent)},
        "codebook": jnp.array(
            [[9.0, 9.0], [2.0, 4.0], [-5.0, 0.0], [5.0, 9.0], [7.0, 0.0], [8.0, 8.0]]
        ),
    }


def test_eval_by_hand():
    system = build(l1=2.0, l2=3.0, gradient=5.0, codebook=7.0, scales=2)
    batch = {"image": jnp.full((3, 8, 8, 3), 0.1)}
    evaluate = jax.jit(system.evaluations["eval"].metrics)
    metrics = evaluate(constant(0.3), system.init_state(), {}, batch, KEY)
    means = {name: float(total / count) for name, (total, count) in metrics.items()}
    assert all(count == 3 for _, count in metrics.values())
    assert means["psnr"] == pytest.approx(20.0, abs=1e-3)  # 10 log10(4 / 0.2^2)
    assert means["l1"] == pytest.approx(0.2, rel=1e-4)
    assert means["l2"] == pytest.approx(0.04, rel=1e-4)
    assert means["gradient"] == 0.0
    # Latent (1, 2), nearest code (2, 4): (1 + 0.25) * (1 + 4) / 2.
    assert means["codebook"] == pytest.approx(3.125, rel=1e-4)
    expected = 2 * 0.2 + 3 * 0.04 + 7 * 3.125
    assert means["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_face_counts_more_by_hand():
    """One pixel of 64 counts 3 times, where there are points."""
    options = {"eyes": 3.0, "mouth": 3.0, "brows": 3.0}
    system = build(l1=1.0, l2=0.0, gradient=0.0, codebook=0.0, face_map=options)
    assert set(system.feeds["pictures"].spec) == {"image", "landmarks"}
    assert set(build().feeds["pictures"].spec) == {"image"}
    # All points one: the radius is nothing, and only the pixel that holds it counts.
    points = jnp.full((3, 68, 2), 0.5 / 8).at[2].set(jnp.nan)
    image = jnp.full((3, 8, 8, 3), 0.1).at[:, 0, 0].set(0.0).at[0].set(0.1)
    batch = {"image": image, "landmarks": points}
    evaluate = jax.jit(system.evaluations["eval"].metrics)
    metrics = evaluate(constant(0.1), system.init_state(), {}, batch, KEY)
    # Picture 0 is right. In 1 a pixel is off by 0.1 and counts 3 of 66; in 2 1 of 64.
    expected = (0.1 * 3 / 66 + 0.1 / 64) / 3
    assert metrics["l1"][0] / 3 == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="eyes, mouth and brows count 1 time or more"):
        build(face_map={"eyes": 0.5})
    with pytest.raises(ValueError, match="code_gradient is 'rotate'; use one of"):
        build(code_gradient="rotate")


def test_psnr_sees_the_picture_as_it_is_saved():
    """Beyond white is white, and a perfect picture has 100 dB."""
    batch = {"image": jnp.ones((3, 8, 8, 3))}
    metrics = jax.jit(build().evaluations["eval"].metrics)(
        constant(1.4), {}, {}, batch, KEY
    )
    assert metrics["psnr"][0] / 3 == pytest.approx(100.0)
    assert metrics["l1"][0] / 3 == pytest.approx(0.4, rel=1e-4)


def test_usage_is_a_moving_average_and_candidates_are_latents():
    system = build(usage_decay=0.75, num_candidates=5)
    state = system.init_state()
    np.testing.assert_allclose(state["usage"], TOKENS / 6)
    assert state["candidates"].shape == (5, 2)
    batch = {"image": jnp.zeros((3, 8, 8, 3))}
    loss = jax.jit(system.phases[0].loss)
    _, (state, metrics) = loss(
        constant(0.0), state, {}, {"pictures": batch}, KEY, jnp.int32(0)
    )
    expected = np.full(6, 0.75 * TOKENS / 6)
    expected[1] += 0.25 * TOKENS  # every token is code 1
    np.testing.assert_allclose(state["usage"], expected, rtol=1e-5)
    np.testing.assert_allclose(state["candidates"], np.tile([1.0, 2.0], (5, 1)))
    np.testing.assert_allclose(metrics["code_perplexity"][0], 1.0, rtol=1e-5)
    assert metrics["codes_in_use"] == (1.0, 1.0)


def test_revival_happens_in_its_window_only():
    assert build().post_update is None
    system = build(revive_every=3, revive_from=0.3, revive_until=0.6)
    params = constant(0.0)
    usage = jnp.array([8.0, 8.0, 0.0, 8.0, 0.1, 8.0])  # 3 % of the mean is 0.16
    state = {"usage": usage, "candidates": jnp.tile(jnp.array([1.0, 2.0]), (4, 1))}
    moved = []
    for step in range(20):
        after, kept = system.post_update(params, state, KEY, jnp.int32(step))
        change = np.abs(np.asarray(after["codebook"] - params["codebook"])).max(-1) > 0
        if not change.any():
            np.testing.assert_array_equal(kept["usage"], usage)
            continue
        moved.append(step)
        assert change.tolist() == [False, False, True, False, True, False]
        # Spread 0.01 of the candidates' standard deviation 0.5.
        gap = np.asarray(after["codebook"])[change] - [1.0, 2.0]
        assert np.abs(gap).max() < 0.05
        expected = np.where(change, usage.mean(), usage)
        np.testing.assert_allclose(kept["usage"], expected, rtol=1e-6)
        np.testing.assert_array_equal(kept["candidates"], state["candidates"])
    assert moved == [6, 9, 12]


@pytest.mark.slow
def test_a_batch_is_learnt():
    system = build(l2=1.0)
    # A few flat pictures: what is left to learn is the colour of each.
    colours = jnp.array([[-0.8, 0.0, 0.6], [0.7, 0.5, -0.5], [0.0, -0.6, 0.9]])
    batch = {"image": jnp.broadcast_to(colours[:, None, None], (3, 8, 8, 3))}
    params, state = initial(), system.init_state()
    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, opt, state, number):
        (loss, (state, metrics)), grads = jax.value_and_grad(
            system.phases[0].loss, has_aux=True
        )(
            params, state, {}, {"pictures": batch}, jax.random.fold_in(KEY, number),
            number,
        )  # fmt: skip
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(params, updates), opt, state, loss, metrics

    opt, losses, psnrs = tx.init(params), [], []
    for number in range(40):
        params, opt, state, loss, metrics = step(params, opt, state, jnp.int32(number))
        losses.append(float(loss))
        psnrs.append(float(metrics["psnr"][0]) / 3)
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert np.mean(psnrs[-5:]) > np.mean(psnrs[:5]) + 2.0


def test_a_decoder_alone_leaves_the_codes():
    (phase,) = build(trainable="decoder").phases
    params = trees.flatten(initial())
    chosen = {name for name in params if re.search(phase.trainable, name)}
    assert {name.split("/")[0] for name in chosen} == {"decoder", "post_quant_conv"}
    module = VQGAN(VQGANConfig(**MODEL))
    network = Network(module, jax.device_get(initial()), "", {})
    moved = {k: v + 1 if k in chosen else v for k, v in params.items()}
    other = dataclasses.replace(network, params=trees.unflatten(moved))
    assert other.codes_digest == network.codes_digest
    moved["codebook"] = moved["codebook"] + 1
    other = dataclasses.replace(network, params=trees.unflatten(moved))
    assert other.codes_digest != network.codes_digest
    with pytest.raises(ValueError, match="revive_every is 5 and would move codes"):
        build(trainable="decoder", revive_every=5)
    with pytest.raises(ValueError, match="trainable is 'encoder'; use 'all' or"):
        build(trainable="encoder")


def conditional(**objective):
    model = {**MODEL, "condition_channels": 2}
    objective = {"trainable": "decoder", **objective}
    return make_system(
        {"model": model, "objective": objective, "batch_size": 3, "total_steps": 20}
    )


def test_a_conditional_decoder_is_trained_alone_and_the_codes_stay():
    (phase,) = conditional().phases
    assert set(conditional().feeds["pictures"].spec) == {"image", "landmarks"}
    assert re.search(phase.trainable, "decoder/stem/conv_0/kernel")
    with pytest.raises(ValueError, match="condition_channels is 2 and .*'all'; train"):
        conditional(trainable="all")
    with pytest.raises(ValueError, match="has inside 5.0, everything 1.5 and drawn 0"):
        conditional(holes={"everything": 1.5})
    params = jax.device_get(initial())
    digests = {
        Network(
            VQGAN(VQGANConfig(**MODEL, condition_channels=channels)), params, "", {}
        ).codes_digest
        for channels in (0, 2, 4)
    }
    assert len(digests) == 1


@pytest.mark.slow
def test_a_hole_counts_more_by_hand(monkeypatch):
    """Grey decoded for white: what is hidden counts four times, and is alone seen."""
    seen = []

    def distance(params, image, target, counts):
        del params, target
        seen.append((image, counts))
        return jnp.zeros(len(image))

    hole = jnp.zeros((3, 8, 8), bool).at[:, :2, :4].set(True).at[2].set(True)
    monkeypatch.setattr(holes, "random_holes", lambda *_: hole)
    options = {"l2": 0.0, "gradient": 0.0, "codebook": 0.0, "holes": {"inside": 4.0}}
    system = make_system(
        {
            "model": {**MODEL, "condition_channels": 2},
            "objective": {
                "trainable": "decoder",
                "perceptual": {"weight": 1.0, "path": "x"},
                **options,
            },
            "batch_size": 3,
            "total_steps": 20,
        },
        Perceptual("features", {}, distance),
    )
    params = constant(0.5)
    shapes = jax.eval_shape(system.init, KEY)["decoder"]["stem"]
    stem = jax.tree.map(lambda x: jnp.zeros(x.shape), nn.meta.unbox(shapes))
    params["decoder"] = {**params["decoder"], "stem": stem}
    # Wrong by 0.5 in the hole of picture 0, in what is known of 1, everywhere in 2.
    image = jnp.full((3, 8, 8, 3), 0.5).at[2].set(1.0)
    image = image.at[0].set(jnp.where(hole[0, ..., None], 1.0, 0.5))
    image = image.at[1].set(jnp.where(hole[1, ..., None], 0.5, 1.0))
    batch = {"image": image, "landmarks": jnp.full((3, 68, 2), jnp.nan)}
    constants = {"perceptual": {}}
    metrics = system.evaluations["eval"].metrics(params, {}, constants, batch, KEY)
    # 8 of 64 pixels are hidden: 4 * 8 of 88 of the weight, and 56 of 88.
    expected = 0.5 * (32 / 88 + 56 / 88 + 1) / 3
    assert metrics["l1"][0] / 3 == pytest.approx(expected, rel=1e-4)
    # 72 of 80 hidden pixels are wrong by a quarter of the range.
    error = 72 / 80 / 16
    assert metrics["inside_psnr"][0] / 3 == pytest.approx(
        -10 * np.log10(error), abs=1e-3
    )
    ((pasted, counts),) = seen
    known = np.asarray(~hole[..., None] & jnp.ones(3, bool))
    np.testing.assert_array_equal(np.asarray(pasted)[known], np.asarray(image)[known])
    np.testing.assert_allclose(np.asarray(pasted)[~known], 0.5, rtol=1e-6)
    np.testing.assert_allclose(counts.mean((1, 2)), 1, rtol=1e-5)


def test_codes_misfit_within_the_tokens_of_a_hole_only(monkeypatch):
    system = conditional(holes={"everything": 0.0})
    hole = jnp.zeros((3, 8, 8), bool).at[:, 0, 0].set(True).at[2].set(True)
    monkeypatch.setattr(holes, "random_holes", lambda *_: hole)
    trainer = system.phases[0].loss.__self__
    image = jax.random.uniform(KEY, (3, 8, 8, 3), minval=-1, maxval=1)
    batch = {"image": image, "landmarks": jnp.full((3, 68, 2), jnp.nan)}
    given, found = trainer.given({}, {}, batch, KEY)
    np.testing.assert_array_equal(found, hole)
    changed = np.asarray(given["image"] != image).any(-1)
    # Tokens are 2 x 2 pixels; of the last picture nothing is known, so it fits.
    assert changed[:2, :2, :2].all()
    changed[:2, :2, :2] = False
    assert not changed.any()
    assert not np.asarray(given["known"][..., :3])[np.asarray(hole)].any()


@pytest.mark.slow
def test_a_painter_draws_the_open_codes(monkeypatch):
    asked = []

    def draw(params, image_ids, is_open, key):
        asked.append((params, is_open))
        return jnp.where(is_open, 5, image_ids)

    system = make_system(
        {
            "model": {**MODEL, "condition_channels": 2},
            "objective": {"trainable": "decoder", "holes": {"drawn": 1.0}},
            "batch_size": 3,
            "total_steps": 20,
        },
        painter=Painter("weights", draw),
    )
    hole = jnp.zeros((3, 8, 8), bool).at[:, 0, 0].set(True)
    monkeypatch.setattr(holes, "random_holes", lambda *_: hole)
    assert system.constants == {"painter": "weights"}
    trainer = system.phases[0].loss.__self__
    batch = {"image": jnp.zeros((3, 8, 8, 3)), "landmarks": jnp.zeros((3, 68, 2))}
    params = nn.meta.unbox(jax.jit(system.init)(KEY))
    given, _ = trainer.given(params, system.constants, batch, KEY)
    _, aux, _ = trainer.reconstruct(params, given)
    del given["image_ids"]
    _, before, _ = trainer.reconstruct(params, given)
    ((weights, is_open),) = asked
    assert weights == "weights" and is_open.shape == (3, 4, 4)
    assert is_open.sum() == 3
    expected = np.where(is_open, 5, before["image_ids"])
    np.testing.assert_array_equal(aux["image_ids"], expected)
