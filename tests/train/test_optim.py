"""Schedules by hand, the weight-decay mask, Adam's variants."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.train import optim

BASE = {"peak_lr": 1e-3, "start_lr": 2e-4, "end_lr": 1e-5, "warmup_fraction": 0.1}


def rates(schedule, steps, total=100):
    config = optim.OptimConfig(**BASE, schedule=schedule)
    fn = optim.make_schedule(config, total)
    return [float(fn(s)) for s in steps]


def test_warm_up_is_linear_from_start_to_peak():
    # 10 warm-up steps: 2e-4 + 8e-4 * step / 10
    got = rates("cosine", [0, 1, 5, 10])
    np.testing.assert_allclose(got, [2e-4, 2.8e-4, 6e-4, 1e-3], rtol=1e-6)


def test_decays_by_hand():
    # 90 decay steps: half way at step 55, the end at step 100
    middle = (1e-3 + 1e-5) / 2
    np.testing.assert_allclose(rates("cosine", [55, 100]), [middle, 1e-5], rtol=1e-5)
    np.testing.assert_allclose(rates("linear", [55, 100]), [middle, 1e-5], rtol=1e-5)
    np.testing.assert_allclose(rates("constant", [55, 100]), [1e-3, 1e-3], rtol=1e-6)
    # cosine at a third: end + (peak - end) * (1 + cos(pi / 3)) / 2
    third = 1e-5 + 9.9e-4 * 0.75
    np.testing.assert_allclose(rates("cosine", [40]), [third], rtol=1e-5)


def test_no_warm_up_starts_at_the_peak():
    config = optim.OptimConfig(peak_lr=0.5, warmup_fraction=0.0)
    assert float(optim.make_schedule(config, 10)(0)) == 0.5


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        optim.make_schedule(optim.OptimConfig(schedule="cosin"), 10)
    with pytest.raises(UserError, match="did you mean 'peak_lr'"):
        from_mapping(optim.OptimConfig, {"peek_lr": 1.0}, "optim.")


def test_weight_decay_mask():
    params = {
        "block": {
            "attention": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((3, 2))},
            "attention_norm": {"weird": jnp.ones((2, 2))},
            "norm_1": {"scale": jnp.ones((3, 2)), "bias": jnp.ones(2)},
            "LayerNorm_0": {"other": jnp.ones((2, 2))},
            "normal_dense": {"kernel": jnp.ones((2, 2))},
        },
        "embedding": jnp.ones((5, 2)),
        "class_token": jnp.ones(4),
    }
    mask = optim.decay_mask(params)
    block = mask["block"]
    assert block["attention"] == {"kernel": True, "bias": False}
    assert block["attention_norm"] == {"weird": False}
    assert block["norm_1"] == {"scale": False, "bias": False}
    assert mask["embedding"] and not mask["class_token"]
    # Vectors too where nothing is to be spared, as Faceptor's release has it.
    assert all(jax.tree.leaves(optim.decay_mask(params, "(?!)")))


def test_decay_moves_only_masked_parameters():
    config = optim.OptimConfig(
        peak_lr=0.1, warmup_fraction=0.0, schedule="constant", weight_decay=0.5
    )
    tx, _ = optim.make_optimizer(config, 10)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    updates, _ = tx.update(zeros, tx.init(params), params)
    new = optax.apply_updates(params, updates)
    np.testing.assert_allclose(new["kernel"], 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(new["bias"], params["bias"])


@pytest.mark.parametrize("corrected", [True, False])
def test_first_adam_step_by_hand(corrected):
    config = optim.OptimConfig(
        peak_lr=1.0,
        warmup_fraction=0.0,
        schedule="constant",
        weight_decay=0.0,
        clip_norm=0.0,
        eps=0.0,
        b1=0.9,
        b2=0.99,
        bias_correction=corrected,
    )
    tx, _ = optim.make_optimizer(config, 10)
    params = {"kernel": jnp.zeros((1, 2))}
    grads = {"kernel": jnp.asarray([[3.0, -4.0]])}
    updates, _ = tx.update(grads, tx.init(params), params)
    # corrected: g/|g|; without: 0.1 g / (sqrt(0.01) |g|) = g/|g| as well, so
    # look at the second step, where m = 0.19 g and v = 0.0199 g^2
    np.testing.assert_allclose(updates["kernel"], [[-1.0, 1.0]], rtol=1e-5)
    _, state = tx.update(grads, tx.init(params), params)
    updates, _ = tx.update(grads, state, params)
    size = 1.0 if corrected else 0.19 / np.sqrt(0.0199)
    np.testing.assert_allclose(updates["kernel"], [[-size, size]], rtol=1e-5)


def muon(**values):
    return optim.OptimConfig(
        method="muon", peak_lr=0.1, warmup_fraction=0.0, schedule="constant",
        clip_norm=0.0, weight_decay=0.0, **values,
    )  # fmt: skip


def test_muon_makes_updates_of_hidden_matrices_orthogonal():
    """Each layer of a stack by itself; what is no hidden matrix is AdamW's."""
    tx, _ = optim.make_optimizer(muon(), 10)
    rng = np.random.default_rng(0)
    shapes = {
        "layers": {"kernel": (3, 16, 40), "bias": (3, 40)},
        "tokens": {"embedding": (9, 16)},
    }
    draw = lambda s: jnp.asarray(rng.normal(size=s), jnp.float32)  # noqa: E731
    params, grads = (
        jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))
        for _ in range(2)
    )
    # A direction fifty times weaker than the others is learnt as fast.
    u, s, vt = np.linalg.svd(grads["layers"]["kernel"], full_matrices=False)
    s[:, -1] = s[:, 0] / 50
    grads["layers"]["kernel"] = jnp.asarray((u * s[:, None]) @ vt)
    updates, _ = tx.update(grads, tx.init(params), params)
    found = np.linalg.svd(updates["layers"]["kernel"], compute_uv=False)
    size = 0.1 * 0.2 * 40**0.5
    assert (found < 1.25 * size).all() and (found > 0.6 * size).all()
    for values, grad in (
        (updates["layers"]["bias"], grads["layers"]["bias"]),
        (updates["tokens"]["embedding"], grads["tokens"]["embedding"]),
    ):
        np.testing.assert_allclose(values, -0.1 * np.sign(grad), atol=1e-3)


def test_muon_of_no_matrices_is_refused():
    params = {"layers": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    for match, said in (("nowhere", "matches no parameter"), ("bias", "no matrix")):
        tx, _ = optim.make_optimizer(muon(muon_match=match), 10)
        with pytest.raises(UserError, match=said):
            tx.init(params)
    with pytest.raises(UserError, match="did you mean 'muon'"):
        optim.OptimConfig(method="muom")


def test_clipping_scales_the_global_norm():
    config = optim.OptimConfig(clip_norm=1.0)
    tx = optax.clip_by_global_norm(config.clip_norm)
    updates, _ = tx.update({"a": jnp.asarray([3.0]), "b": jnp.asarray([4.0])}, ())
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [0.6, 0.8])


GROUPS = {
    "table": {"match": "^tokens/", "lr_scale": 0.1, "weight_decay": 0.0},
    "late": {"match": "layer_1", "lr_scale": 2.0},
}


def test_groups_scale_rate_and_decay():
    values = {"clip_norm": 0.0, "weight_decay": 0.5, "b1": 0.0, "eps": 0.0}
    config = optim.OptimConfig(
        peak_lr=0.1, warmup_fraction=0.0, schedule="constant", groups=GROUPS, **values
    )
    names = ("tokens/embedding", "layer_0/kernel", "layer_1/kernel", "layer_1/bias")
    params = {n: jnp.full((2, 2) if "bias" not in n else (2,), 3.0) for n in names}
    grads = {n: jnp.full_like(p, 4.0) for n, p in params.items()}
    tx, schedule = optim.make_optimizer(config, 10)
    updates, _ = tx.update(grads, tx.init(params), params)
    # Adam's first step is the sign; decay adds 0.5 * 3 where it applies.
    expected = dict(zip(names, (-0.01, -0.1 * 2.5, -0.2 * 2.5, -0.2)))
    for name, update in updates.items():
        np.testing.assert_allclose(update, expected[name], rtol=1e-5, err_msg=name)
    found = optim.logged(config, schedule, grads, 0)
    assert set(found) == {"lr"} | {
        f"{word}/{group}"
        for word in ("grad_norm", "lr", "weight_decay")
        for group in ("table", "late", "rest")
    }
    np.testing.assert_allclose(found["lr/late"], 0.2, rtol=1e-6)
    np.testing.assert_allclose(found["grad_norm/late"], np.sqrt(6 * 16.0), rtol=1e-6)
    np.testing.assert_allclose(
        [found["weight_decay/table"], found["weight_decay/rest"]], [0.0, 0.5]
    )


def test_without_groups_modules_have_their_norms():
    config = optim.OptimConfig()
    grads = {"a/kernel": jnp.array([3.0]), "a/bias": jnp.array([4.0])}
    found = optim.logged(config, lambda step: 0.1, grads, 0)
    assert set(found) == {"lr"}
    grads["b/kernel"] = jnp.array([2.0])
    found = optim.logged(config, lambda step: 0.1, grads, 0)
    assert {k: float(v) for k, v in found.items() if k != "lr"} == {
        "grad_norm/a": 5.0,
        "grad_norm/b": 2.0,
    }


def test_bad_groups_are_explained():
    with pytest.raises(UserError, match="groups.a.*did you mean 'match'"):
        optim.OptimConfig(groups={"a": {"match": "x", "mtch": "y"}})
    with pytest.raises(UserError, match="is no regex"):
        optim.OptimConfig(groups={"a": {"match": "("}})
    with pytest.raises(UserError, match="match is missing"):
        optim.OptimConfig(groups={"rest": {"match": "x"}})
