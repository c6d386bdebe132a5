import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig
from gptface_jax.ops import quantize
from gptface_jax.systems import vqgan as system_module
from gptface_jax.systems.judge import Judge, JudgeConfig
from gptface_jax.systems.judge import make_system as make_judge

SMALL = VQGANConfig(
    resolution=16,
    channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    attn_resolutions=(8,),
    z_channels=8,
    embed_dim=4,
    codebook_size=16,
    groups=4,
)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def small():
    module = VQGAN(SMALL)
    image = jax.random.uniform(KEY, (2, 16, 16, 3), minval=-1, maxval=1)
    params = nn.meta.unbox(jax.jit(module.init)(KEY, image)["params"])
    return module, params, image


def shapes(config):
    module = VQGAN(config)
    dummy = jnp.zeros((1, config.resolution, config.resolution, 3))
    made = jax.eval_shape(lambda k: module.init(k, dummy)["params"], KEY)
    return nn.meta.unbox(made)


def test_shapes_and_consistency(small):
    module, params, image = small
    variables = {"params": params}
    ids = module.apply(variables, image, method="encode")
    assert ids.shape == (2, 8, 8) and ids.dtype == jnp.int32
    assert SMALL.factor == 2 and SMALL.grid == (8, 8)
    again, aux = module.apply(variables, image)
    np.testing.assert_array_equal(ids, aux["image_ids"])
    decoded = module.apply(variables, ids, method="decode")
    assert decoded.shape == image.shape
    np.testing.assert_allclose(decoded, again, atol=1e-4)
    larger = jnp.zeros((1, 32, 24, 3))
    assert module.apply(variables, larger, method="encode").shape == (1, 16, 12)


def test_parameter_counts_of_the_face_configuration():
    declared = VQGANConfig(resolution=256)
    assert abs(trees.count(shapes(declared)) / 1e6 - 74.0) < 0.05
    # Declared at 336 the network never meets 16: only the middle attention stays.
    trap = VQGANConfig(resolution=336)
    assert abs(trees.count(shapes(trap)) / 1e6 - 68.7) < 0.05
    cured = VQGANConfig(resolution=336, attn_resolutions=(21,))
    assert trees.count(shapes(cured)) == trees.count(shapes(declared))
    names = trees.flatten(shapes(trap))
    assert not any("down_4_attn" in n for n in names)
    assert any("mid/attn_1" in n for n in names)
    with pytest.raises(ValueError, match="no multiple of f"):
        VQGANConfig(resolution=100)


def test_gradients_pass_straight_through(small):
    module, params, image = small

    def loss(p):
        return jnp.mean((module.apply({"params": p}, image)[0] - image) ** 2)

    grads = jax.grad(loss)(params)
    assert jnp.abs(grads["encoder"]["conv_in"]["kernel"]).max() > 0
    np.testing.assert_array_equal(grads["codebook"], 0.0)
    z, q = jnp.array([1.0, 2.0]), jnp.array([5.0, 5.0])
    np.testing.assert_array_equal(quantize.straight_through(z, q), q)
    slope = jax.grad(lambda z: jnp.sum(3.0 * quantize.straight_through(z, q)))(z)
    np.testing.assert_array_equal(slope, [3.0, 3.0])


def test_beta_orderings_agree_in_value_and_differ_in_gradient():
    z, q = jnp.array([[1.0, 3.0]]), jnp.array([[2.0, 5.0]])

    def gradients(on_codebook):
        return jax.grad(
            lambda z, q: quantize.codebook_loss(z, q, 0.25, on_codebook), (0, 1)
        )(z, q)

    values = [quantize.codebook_loss(z, q, 0.25, flag) for flag in (False, True)]
    np.testing.assert_allclose(values, 1.25 * 2.5)
    textbook, published = gradients(False), gradients(True)
    np.testing.assert_allclose(textbook[0], 0.25 * np.array([[-1.0, -2.0]]))
    np.testing.assert_allclose(textbook[1], [[1.0, 2.0]])
    np.testing.assert_allclose(published[0], [[-1.0, -2.0]])
    np.testing.assert_allclose(published[1], 0.25 * np.array([[1.0, 2.0]]))


def test_nearest_counts_perplexity_and_revival_by_hand():
    codebook = jnp.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    z = jnp.array([[0.4, 0.0], [0.6, 0.0], [0.9, 0.2]])
    ids = quantize.nearest(z, codebook)
    assert ids.tolist() == [0, 1, 1]
    usage = quantize.counts(ids, 3)
    assert usage.tolist() == [1.0, 2.0, 0.0]
    share = np.array([1 / 3, 2 / 3])
    expected = np.exp(-(share * np.log(share)).sum())
    np.testing.assert_allclose(quantize.perplexity(usage), expected, rtol=1e-5)
    np.testing.assert_allclose(quantize.perplexity(jnp.ones(8)), 8.0, rtol=1e-5)
    revived, dead = quantize.revive(codebook, usage, z, 0.5, KEY)
    assert dead.tolist() == [False, False, True]
    np.testing.assert_array_equal(revived[:2], codebook[:2])
    assert np.abs(np.asarray(revived[2]) - np.asarray(z)).sum(1).min() < 0.1


def test_psnr_and_gradient_loss_by_hand():
    image = jnp.zeros((1, 4, 4, 3))
    np.testing.assert_allclose(
        system_module.psnr(image + 0.2, image), 20.0, atol=1e-4
    )  # 10 log10(4 / 0.04)
    assert system_module.gradient_loss(image + 0.3, image, 2) == 0.0
    step = image.at[:, :, 2:].add(1.0)
    # Scale 0: one of three column steps is 1; scale 1: the only one is 1.
    expected = (1 / 3 + 0 + 1 + 0) / 4
    np.testing.assert_allclose(system_module.gradient_loss(step, image, 2), expected)


def mapping(**objective):
    model = dataclasses.asdict(SMALL)
    return {"model": model, "objective": objective, "batch_size": 2, "total_steps": 40}


def test_the_system_learns_and_revives_in_its_window(small):
    _, _, image = small
    system = system_module.make_system(
        mapping(revive_every=2, revive_from=0.25, revive_until=0.5)
    )
    params = nn.meta.unbox(system.init(KEY))
    state, tx = system.init_state(), optax.adam(3e-3)
    loss = system.phases[0].loss

    @jax.jit
    def step(params, opt, state, i):
        (value, (state, _)), grads = jax.value_and_grad(loss, has_aux=True)(
            params, state, {"image": image}, KEY, i
        )
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(params, updates), opt, state, value

    opt, values = tx.init(params), []
    for i in range(25):
        params, opt, state, value = step(params, opt, state, jnp.int32(i))
        values.append(float(value))
    assert np.mean(values[-5:]) < 0.9 * values[0]
    dead = {**state, "usage": state["usage"].at[3].set(0.0)}
    for number, moved in ((8, False), (10, True), (11, False), (20, True), (22, False)):
        after, _ = system.post_update(params, dead, KEY, jnp.int32(number))
        changed = (after["codebook"][3] != params["codebook"][3]).any()
        assert bool(changed) == moved, number


def test_judge():
    config = JudgeConfig(
        resolution=16, attributes=("a", "b"), channels=(8, 8), groups=4
    )
    system = make_judge({"model": dataclasses.asdict(config)})
    params = nn.meta.unbox(system.init(KEY))
    batch = {
        "image": jnp.zeros((4, 16, 16, 3)),
        "labels": jnp.array([[1, 0], [1, 1], [0, 0], [0, 1]], jnp.float32),
        "label_mask": jnp.array([[1, 1], [1, 0], [1, 0], [1, 1]], jnp.float32),
    }
    metrics = system.eval_fns["eval"](params, {}, batch, KEY)
    assert metrics["a_present"][1] == 2 and metrics["b_present"][1] == 1
    assert metrics["loss"][1] == 6
    logits = Judge(config).apply({"params": params}, batch["image"])
    assert logits.shape == (4, 2) and logits.dtype == jnp.float32
    # Unknown labels change nothing.
    other = {**batch, "labels": batch["labels"].at[1, 1].set(0.0)}
    loss = system.phases[0].loss
    same = [loss(params, {}, b, KEY, jnp.int32(0))[0] for b in (batch, other)]
    np.testing.assert_array_equal(same[0], same[1])
