"""The second phase: who learns what and when, the balance, and the alarms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.ops import adversarial, pictures
from gptface_jax.systems import vqgan

MODEL = {
    "resolution": 16,
    "level_channels": (4, 8),
    "num_res_blocks": 1,
    "attn_resolutions": (),
    "z_channels": 4,
    "embed_dim": 2,
    "codebook_size": 6,
    "groups": 2,
}
ADVERSARY = {
    "weight": 0.5,
    "start": 0.5,
    "ramp": 0.2,
    "warmup": 0.1,
    "discriminator": {"channels": 4, "num_layers": 1},
}
KEY = jax.random.key(0)
IMAGE = jax.random.uniform(KEY, (3, 16, 16, 3), minval=-1, maxval=1)
BATCH = {"image": IMAGE}
# Of 100 steps: the discriminator learns from 40 on, and teaches from 50, fully at 70.
IDLE, ALONE, RISING, FULL = 30, 45, 60, 80


def build(network=None, **objective):
    objective = {"adversary": ADVERSARY, **objective}
    return vqgan.make_system(
        {"model": MODEL, "objective": objective, "batch_size": 3, "total_steps": 100},
        network,
    )


@functools.cache
def initial():
    return nn.meta.unbox(jax.jit(build().init)(KEY))


def phase_results(phase, params, state, *steps, constants=None):
    """(loss, gradient of the phase's own parameters, new state, means) of each."""
    given = constants or {}, {"pictures": BATCH}, KEY
    chosen, fixed = trees.split(params, phase.trainable)

    @jax.jit
    def run(chosen, state, step):
        def loss(chosen):
            return phase.loss(trees.merge(chosen, fixed), state, *given, step)

        return jax.value_and_grad(loss, has_aux=True)(chosen)

    found = []
    for step in steps:
        (loss, (after, metrics)), grads = run(chosen, state, jnp.int32(step))
        means = {k: float(a / b) for k, (a, b) in metrics.items()}
        found.append((loss, grads, after, means))
    return found if len(steps) > 1 else found[0]


@pytest.mark.slow
def test_each_phase_has_its_own_parameters():
    generator, discriminator = build().phases
    mine, _ = trees.split(initial(), generator.trainable)
    theirs, rest = trees.split(initial(), discriminator.trainable)
    assert set(mine) == set(rest) and "codebook" in mine
    assert all(name.startswith("discriminator/") for name in theirs) and theirs
    (alone,) = build(adversary={}).phases
    assert alone.name == generator.name == ""
    assert "discriminator" not in jax.eval_shape(build(adversary={}).init, KEY)


@pytest.mark.parametrize(
    "step, learns",
    [pytest.param(IDLE, False, marks=pytest.mark.slow), (ALONE, True), (FULL, True)],
)
def test_when_the_discriminator_learns(step, learns):
    system = build()
    state = system.init_state()
    phase = system.phases[1]
    loss, grads, after, means = phase_results(phase, initial(), state, step)
    moved = max(float(np.abs(g).max()) for g in grads.values())
    assert (moved > 0) == learns and (float(loss) > 0) == learns
    before, after = state["adversary"], after["adversary"]
    statistics = trees.flatten(after["batch_stats"])
    assert all(
        (np.abs(statistics[k] - v).max() > 0) == learns
        for k, v in trees.flatten(before["batch_stats"]).items()
    )
    if learns:
        expected = 0.99 + 0.01 * float(loss)  # of hinge, 1 at chance
        assert means["loss_share"] == pytest.approx(expected, rel=1e-5)
        assert float(after["loss"]) == pytest.approx(expected, rel=1e-5)
        assert 0 < means["accuracy"] < 1
    else:
        assert means["loss_share"] == 1.0


def test_the_discriminator_waits_for_the_decoder():
    system = build(adversary={**ADVERSARY, "hold_below": 0.5})
    state, phase = system.init_state(), system.phases[1]
    results = []
    for average in (0.6, 0.4):
        watched = {**state["adversary"], "loss": jnp.float32(average)}
        before = {**state, "adversary": watched}
        results.append(phase_results(phase, initial(), before, FULL))
    (loss, grads, _, means), (held, none, after, watched) = results
    _, expected, *_ = phase_results(build().phases[1], initial(), state, FULL)
    for name, slope in expected.items():
        np.testing.assert_allclose(grads[name], slope, atol=1e-6, err_msg=name)
        assert not none[name].any()
    assert means["learns"] == 1.0 and watched["learns"] == held == 0.0
    # It is still watched: this is how it comes to learn again.
    share = float(after["adversary"]["loss"])
    assert share == pytest.approx(0.99 * 0.4 + 0.01 * float(loss), rel=1e-5)


@pytest.mark.slow
def test_before_the_start_the_generator_learns_as_if_alone():
    system, alone = build(), build(adversary={})
    params = {k: v for k, v in initial().items() if k != "discriminator"}
    _, expected, *_ = phase_results(alone.phases[0], params, alone.init_state(), 0)
    result = phase_results(system.phases[0], initial(), system.init_state(), ALONE)
    _, grads, _, means = result
    assert means["adaptive_weight"] == 0.0
    for name, slope in expected.items():
        np.testing.assert_allclose(grads[name], slope, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_balance_equals_the_definition():
    """The gradient is that of nll + codes + factor * weight * adversarial loss, with
    the weight from two separate gradients at the decoder's last kernel."""
    system = build(l2=0.5)
    params, state = initial(), system.init_state()
    found = phase_results(system.phases[0], params, state, RISING, FULL)
    alone = build(l2=0.5, adversary={})
    own = {k: v for k, v in params.items() if k != "discriminator"}
    from gptface_jax.nn.adversary import Discriminator, DiscriminatorConfig
    from gptface_jax.nn.vqgan import VQGAN, VQGANConfig

    module = VQGAN(VQGANConfig(**MODEL))
    judge = Discriminator(DiscriminatorConfig(**ADVERSARY["discriminator"]))

    def adversarial_loss(own):
        fake, _ = module.apply({"params": own}, IMAGE)
        variables = {
            "params": params["discriminator"],
            "batch_stats": state["adversary"]["batch_stats"],
        }
        return adversarial.generator_loss(judge.apply(variables, fake, True))

    def nll(own):
        fake, _ = module.apply({"params": own}, IMAGE)
        error = fake - IMAGE
        l1, l2 = jnp.mean(jnp.abs(error)), jnp.mean(error**2)
        return l1 + 0.5 * l2 + 0.5 * pictures.gradient_loss(fake, IMAGE, 3)

    def everything(own):
        given = alone.init_state(), {}, {"pictures": BATCH}, KEY, jnp.int32(0)
        return alone.phases[0].loss(own, *given)[0]

    @jax.jit
    def slopes(own):
        taught, slope = jax.value_and_grad(adversarial_loss)(own)
        return taught, slope, jax.grad(nll)(own), jax.grad(everything)(own)

    taught, slope, of_nll, plain = jax.device_get(slopes(own))
    last = [x["decoder"]["conv_out"]["kernel"] for x in (of_nll, slope)]
    weight = 0.5 * np.linalg.norm(last[0]) / (np.linalg.norm(last[1]) + 1e-4)
    plain, slope = trees.flatten(plain), trees.flatten(slope)
    for factor, (_, grads, _, means) in zip((0.5, 1.0), found):
        assert means["adaptive_weight"] == pytest.approx(float(weight), rel=1e-3)
        assert means["adversarial"] == pytest.approx(float(taught), rel=1e-4, abs=1e-6)
        for name, value in grads.items():
            expected = plain[name] + factor * weight * slope[name]
            # Of a key's bias only rounding is left: no query prefers by it.
            atol = 2e-3 * float(np.abs(expected).max()) + 1e-7
            np.testing.assert_allclose(value, expected, atol=atol, err_msg=name)


@pytest.mark.slow
def test_the_slope_at_the_last_weights_is_that_of_the_network():
    """With patches too, whose pixels are channels of the last convolution."""
    from gptface_jax.nn.vqgan import VQGANConfig
    from gptface_jax.systems.vqgan import system

    for patch in (1, 2):
        model = {**MODEL, "patch": patch, "attn_resolutions": ()}
        objective = vqgan.VQGANObjective()
        trainer = system._Trainer(VQGANConfig(**model), objective, 3, 9, None)
        params = nn.meta.unbox(jax.jit(trainer.init)(KEY))
        slope = jnp.sin(jnp.arange(IMAGE.size, dtype=jnp.float32)).reshape(IMAGE.shape)

        @jax.jit
        def both(params, trainer=trainer, slope=slope):
            *_, last = trainer.reconstruct(params, {"image": IMAGE}, sow=True)
            whole = jax.grad(
                lambda p: jnp.sum(trainer.reconstruct(p, {"image": IMAGE})[0] * slope)
            )(params)
            short = trainer.at_last_weights(params, last)(slope)
            return short, whole["decoder"]["conv_out"]["kernel"]

        short, whole = both(params)
        np.testing.assert_allclose(short, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_plain_weight_is_taken_as_it_is():
    system = build(adversary={**ADVERSARY, "adaptive": False})
    *_, means = phase_results(system.phases[0], initial(), system.init_state(), FULL)
    assert means["adaptive_weight"] == 0.5


@pytest.mark.slow
def test_gradient_penalty_is_added():
    plain, punished = (build(adversary={**ADVERSARY, "r1": r1}) for r1 in (0.0, 10.0))
    state = plain.init_state()
    first, *_ = phase_results(plain.phases[1], initial(), state, FULL)
    second, _, _, means = phase_results(punished.phases[1], initial(), state, FULL)
    assert means["r1"] > 0
    assert float(second) == pytest.approx(float(first) + 10 * means["r1"], rel=1e-4)


@pytest.mark.slow
def test_entropy_bonus_reaches_the_loss():
    system = build(adversary={}, entropy=2.0)
    plain = build(adversary={})
    own = {k: v for k, v in initial().items() if k != "discriminator"}
    first, *_ = phase_results(plain.phases[0], own, plain.init_state(), 0)
    second, _, _, means = phase_results(system.phases[0], own, system.init_state(), 0)
    assert float(second - first) == pytest.approx(2 * means["entropy"], rel=1e-4)


def test_l1_is_watched_from_the_start_on():
    adversary = build().init_state()["adversary"]
    from gptface_jax.systems.vqgan.adversarial import Adversary
    from gptface_jax.systems.vqgan.objective import AdversaryConfig

    watch = Adversary(AdversaryConfig(start=0.5), 40, (16, 16, 3)).watch_l1
    ratios = []
    for step in range(40):
        l1 = jnp.float32(0.2 if step <= 20 else 0.6)
        adversary, means = watch(adversary, l1, jnp.int32(step))
        ratios.append(float(means["l1_ratio"]))
    np.testing.assert_allclose(ratios[:21], 1.0)
    assert np.all(np.diff(ratios[20:]) > 0) and 2 < ratios[-1] < 3
    assert float(adversary["l1_before"]) == pytest.approx(0.2, rel=1e-5)


def test_alarms_name_the_value_and_the_remedy():
    alarm = build().alarm
    healthy = {"discriminator/loss_share": 0.4, "l1_ratio": 1.3}
    assert alarm(healthy) is None
    won = alarm({**healthy, "discriminator/loss_share": 0.0123})
    assert "discriminator has won" in won and "0.0123" in won and "peak_lr" in won
    ruined = alarm({**healthy, "l1_ratio": 3.25})
    assert "3.25 times" in ruined and "objective.adversary.weight" in ruined
    never = {**ADVERSARY, "won_below": 0.0, "ruined_above": 0.0}
    sick = {"discriminator/loss_share": 0.001, "l1_ratio": 99.0}
    assert build(adversary=never).alarm(sick) is None
    assert build(adversary={}).alarm is None


def doubled(params, image, target):
    return params["weight"] * jnp.mean(jnp.square(image - target), axis=(1, 2, 3))


PERCEPTUAL = vqgan.Perceptual("squares", {"weight": jnp.float32(2.0)}, doubled)


@pytest.mark.slow
def test_the_perceptual_distance_counts_under_its_own_name():
    options = {"adversary": {}, "perceptual": {"weight": 3.0, "path": "x"}}
    system = build(PERCEPTUAL, **options)
    state, constants = system.init_state(), system.constants
    assert constants == {"perceptual": {"weight": 2.0}} and "perceptual" not in state
    own = {k: v for k, v in initial().items() if k != "discriminator"}
    loss, _, _, means = phase_results(
        system.phases[0], own, state, 0, constants=constants
    )
    plain = build(adversary={})
    without, *_ = phase_results(plain.phases[0], own, plain.init_state(), 0)
    assert means["squares"] == pytest.approx(2 * means["l2"], rel=1e-5)
    assert float(loss - without) == pytest.approx(6 * means["l2"], rel=1e-4)
    with pytest.raises(ValueError, match="no perceptual network"):
        build(**options)
    with pytest.raises(ValueError, match="a perceptual network"):
        build(PERCEPTUAL)


def test_wrong_options_are_named():
    for change, said in (
        ({"loss": "wasserstein"}, "adversary.loss is 'wasserstein'"),
        ({"start": 30}, "adversary.start is 30.0; it is a fraction"),
    ):
        with pytest.raises(ValueError, match=said):
            build(adversary={**ADVERSARY, **change})
    model = {**MODEL, "quantizer": "gumbel"}
    config = {"model": model, "objective": {}, "batch_size": 3, "total_steps": 9}
    with pytest.raises(ValueError, match="only be imported"):
        vqgan.make_system(config)


def test_options_are_frozen_and_documented():
    from gptface_jax.systems.vqgan import objective

    for options in (objective.AdversaryConfig, objective.PerceptualConfig):
        for field in dataclasses.fields(options):
            assert field.name in options.__doc__
