"""One step: phases, accumulation, non-finite losses, averaging, post_update."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import regression_system as tiny

from gptface_jax.train import sharding, state, step
from gptface_jax.train.optim import OptimConfig, logged, make_optimizer

OPTIM = OptimConfig(peak_lr=0.05, start_lr=0.05, warmup_fraction=0.0, clip_norm=0.5)


def build(system, **options):
    mesh = sharding.make_mesh(1, 1, 1)
    keys = [state.phase_key(p) for p in system.phases]
    pairs = {k: make_optimizer(OPTIM, 10) for k in keys}
    optimizers = {k: p[0] for k, p in pairs.items()}
    told = {k: functools.partial(logged, OPTIM, p[1]) for k, p in pairs.items()}
    ema = options.get("ema_decay", 0) > 0
    created, shardings = state.create(system, optimizers, mesh, seed=3, ema=ema)
    step_fn, packer = step.make_step(
        system, optimizers, told, shardings, mesh, seed=3, **options
    )

    def run(train_state, batch):
        with jax.set_mesh(mesh):
            batches = {"pairs": sharding.put_batch(batch, mesh)}
            new, packed = step_fn(train_state, {}, batches)
        return new, packer.unpack(packed)

    return created, run


def numpy_tree(tree):
    return jax.tree.map(np.array, tree)


def assert_close(a, b, tolerance=1e-6):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance),
        a,
        b,
    )


def test_accumulation_equals_the_large_batch():
    system = tiny.make_system(weighted=True)
    batch = tiny.make_batch(0)
    whole, run_whole = build(system)
    parts, run_parts = build(system, grad_accum=4)
    for index in range(3):
        whole, values = run_whole(whole, tiny.make_batch(index))
        parts, values_parts = run_parts(parts, tiny.make_batch(index))
    assert_close(numpy_tree(whole.params), numpy_tree(parts.params), 2e-6)
    # Microbatches have different counts, so unweighted means would differ.
    counts = batch["weight"].reshape(4, 4).sum(0)
    assert len(set(counts)) > 1
    for name in ("fit/loss", "fit/error", "critic/off", "fit/grad_norm"):
        np.testing.assert_allclose(values[name], values_parts[name], rtol=1e-5)
    assert int(parts.state["seen"]) == 3 * 16


def test_each_phase_trains_its_own_parameters_with_its_own_optimiser():
    system = tiny.make_system()
    created, _ = build(system)
    paths = {
        k: set(jax.tree.leaves(jax.tree.map(lambda x: x.shape, v[1].mu)))
        for k, v in created.opt_state.items()
    }
    assert set(paths) == {"fit", "critic"}
    assert set(created.opt_state["fit"][1].mu) == {"net"}
    assert set(created.opt_state["critic"][1].mu) == {"critic"}


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_bad_last_phase_undoes_the_first(skip_bad):
    system = tiny.make_system(
        post_update=lambda params, state, key, step: (params, state)
    )
    first, second = system.phases

    def spoilt(*arguments):
        loss, rest = second.loss(*arguments)
        return loss * jnp.nan, rest

    bad = dataclasses.replace(second, loss=spoilt)
    created, run = build(
        dataclasses.replace(system, phases=(first, bad)), ema_decay=0.9,
        skip_bad=skip_bad,
    )  # fmt: skip
    before = numpy_tree(created)
    after, values = run(created, tiny.make_batch(0))
    assert np.isnan(values["critic/loss"][0]) and np.isfinite(values["fit/loss"]).all()
    assert int(after.step) == skip_bad
    assert_equal(before.replace(step=after.step), numpy_tree(after))


def test_frozen_parameters_do_not_move():
    system = tiny.make_system(two_phases=False)
    phase = system.phases[0].__class__("", "/down/", system.phases[0].loss)
    system = system.__class__(**{**vars(system), "phases": (phase,)})
    created, run = build(system)
    before = numpy_tree(created.params)
    after = numpy_tree(run(created, tiny.make_batch(0))[0].params)
    assert_equal(before["net"]["up"], after["net"]["up"])
    assert np.any(before["net"]["down"]["kernel"] != after["net"]["down"]["kernel"])


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_non_finite_loss_leaves_everything_as_it_was():
    system = tiny.make_system(nan_at=1)
    created, run = build(system)
    good, _ = run(created, tiny.make_batch(0))
    before = numpy_tree(good)
    bad, values = run(good, tiny.make_batch(1))
    assert_equal(before, numpy_tree(bad))
    assert np.isnan(values["fit/loss"][0]) and int(bad.step) == 1


def test_a_metric_that_is_not_finite_holds_the_update_back():
    system = tiny.make_system(two_phases=False)
    inner = system.phases[0].loss

    def loss(*arguments):
        value, (new_state, metrics) = inner(*arguments)
        return value, (new_state, {**metrics, "share": (jnp.inf, 1)})

    phase = system.phases[0].__class__("", ".*", loss)
    created, run = build(system.__class__(**{**vars(system), "phases": (phase,)}))
    before = numpy_tree(created)
    after, values = run(created, tiny.make_batch(0))
    assert_equal(before, numpy_tree(after))
    assert np.isinf(values["share"][0]) and np.isfinite(values["loss"][0])


def test_a_weakly_typed_state_compiles_once():
    system = tiny.make_system(two_phases=False)
    phase, traced = system.phases[0], []

    def loss(*arguments):
        traced.append(True)
        return phase.loss(*arguments)

    changed = {
        "phases": (phase.__class__("", ".*", loss),),
        "init_state": lambda: {"seen": jnp.int32(0), "mean": jnp.full((), 0.0)},
    }
    train_state, run = build(system.__class__(**{**vars(system), **changed}))
    for index in range(2):
        train_state, _ = run(train_state, tiny.make_batch(index))
    assert len(traced) == 1


def test_metrics_hold_norm_before_clipping_and_rate():
    created, run = build(tiny.make_system(two_phases=False))
    _, values = run(created, tiny.make_batch(0))
    assert values["grad_norm"][0] > 0.5
    np.testing.assert_allclose(values["lr"][0], 0.05)
    assert set(values) == {"loss", "error", "grad_norm", "lr"}


def test_post_update_runs_after_the_update():
    def post_update(params, state, key, step):
        kernel = params["net"]["up"]["kernel"]
        params = {
            **params,
            "net": {
                **params["net"],
                "up": {
                    **params["net"]["up"],
                    "kernel": jnp.full_like(kernel, step + 7.0),
                },
            },
        }
        return params, {**state, "mean": jnp.float32(5)}

    created, run = build(tiny.make_system(post_update=post_update))
    new, _ = run(created, tiny.make_batch(0))
    assert np.all(np.asarray(new.params["net"]["up"]["kernel"]) == 7.0)
    assert float(new.state["mean"]) == 5.0


def test_average_by_hand():
    created, run = build(tiny.make_system(), ema_decay=0.05)
    old = numpy_tree(created.params)["net"]["up"]["kernel"]
    new, _ = run(created, tiny.make_batch(0))
    now = np.asarray(new.params["net"]["up"]["kernel"])
    # step 0: decay min(0.05, 1/10) = 0.05
    expected = 0.05 * old + 0.95 * now
    np.testing.assert_allclose(
        np.asarray(new.ema["net"]["up"]["kernel"]), expected, rtol=1e-6
    )
    assert new.eval_params is new.ema


def test_keys_differ_by_step_and_not_by_call():
    system = tiny.make_system(dropout=0.5)
    losses = []
    for _ in range(2):
        created, run = build(system)
        _, values = run(created, tiny.make_batch(0))
        losses.append(values["fit/loss"])
    assert losses[0] == losses[1]
    created, run = build(system)
    later = created.replace(step=created.step + 1)
    assert run(later, tiny.make_batch(0))[1]["fit/loss"] != losses[0]


def test_a_phase_that_trains_nothing_is_an_error():
    system = tiny.make_system(two_phases=False)
    phase = system.phases[0].__class__("", "^nothing/", system.phases[0].loss)
    system = system.__class__(**{**vars(system), "phases": (phase,)})
    with pytest.raises(ValueError, match="no parameter matches"):
        build(system)


def test_evaluation_names():
    assert step.eval_names({"a": ["loss", "x"], "b": ["x"]}) == {
        "a": {"loss": "eval/loss", "x": "eval/a/x"},
        "b": {"x": "eval/b/x"},
    }


def test_a_phase_that_pauses_keeps_parameters_and_moments():
    """Only the learning rate goes on in its schedule."""
    tx = make_optimizer(OptimConfig(peak_lr=0.1, weight_decay=0.1), 10)[0]
    params = {"kernel": jnp.ones((2, 2))}
    opt_state = tx.init(params)
    for learns in (1.0, 0.0, 1.0):
        updates, after = tx.update({"kernel": jnp.ones((2, 2))}, opt_state, params)
        new = {"kernel": params["kernel"] + updates["kernel"]}, after
        old, count = (params, opt_state), optax.tree_utils.tree_get(after, "mu")
        params, opt_state = step._paused(new, old, jnp.bool_(learns))
        if not learns:
            np.testing.assert_array_equal(params["kernel"], old[0]["kernel"])
            kept = optax.tree_utils.tree_get(opt_state, "mu")["kernel"]
            assert (kept != count["kernel"]).all()
    counted = optax.ScaleByAdamState, optax.ScaleByScheduleState
    counts = {
        type(x).__name__: int(x.count)
        for x in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, counted))
        if isinstance(x, counted)
    }
    assert counts == {"ScaleByAdamState": 2, "ScaleByScheduleState": 3}
