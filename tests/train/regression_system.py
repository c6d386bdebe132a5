"""A System that is none of the real ones: regression with a critic, in float32.

Parameters `net/...` predict y from x; `critic/...` predicts the size of the
residual. `state` counts examples and averages the prediction.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptface_jax.core.types import Evaluation, Feed, Phase, System

WIDTH = 16


class Net(nn.Module):
    outputs: int = 2

    @nn.compact
    def __call__(self, x):
        def dense(size, names, name):
            init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), names)
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, names[1:])
            return nn.Dense(size, kernel_init=init, bias_init=zeros, name=name)

        h = jnp.tanh(dense(WIDTH, ("embed", "mlp"), "up")(x))
        h = nn.with_logical_constraint(h, ("batch", "mlp"))
        scale = nn.with_logical_partitioning(nn.initializers.ones, ("mlp",))
        bias = nn.with_logical_partitioning(nn.initializers.zeros, ("mlp",))
        h = nn.LayerNorm(scale_init=scale, bias_init=bias, name="norm")(h)
        return dense(self.outputs, ("mlp", "vocab"), "down")(h)


def make_system(
    *,
    two_phases: bool = True,
    dropout: float = 0.0,
    nan_at: int = -1,
    weighted: bool = False,
    post_update=None,
    held_out=None,
) -> System:
    net, critic = Net(outputs=2), Net(outputs=1)
    spec = {
        "x": jax.ShapeDtypeStruct((8,), jnp.float32),
        "y": jax.ShapeDtypeStruct((2,), jnp.float32),
        "weight": jax.ShapeDtypeStruct((), jnp.float32),
    }

    def init(key):
        first, second = jax.random.split(key)
        x = jnp.zeros((1, 8))
        params = {"net": net.init(first, x)["params"]}
        if two_phases:
            params["critic"] = critic.init(second, x)["params"]
        return params

    def errors(params, batch):
        return (
            (net.apply({"params": params["net"]}, batch["x"]) - batch["y"]) ** 2
        ).sum(-1)

    def fit(params, state, constants, batches, key, step):
        batch = batches["pairs"]
        error = errors(params, batch)
        if dropout:
            error = error * jax.random.bernoulli(key, 1 - dropout, error.shape)
        weight = batch["weight"] if weighted else jnp.ones_like(error)
        total, count = (weight * error).sum(), weight.sum()
        loss = total / count
        loss = jnp.where(step == nan_at, jnp.nan, loss)
        seen = state["seen"] + error.shape[0]
        new_state = {"seen": seen, "mean": 0.9 * state["mean"] + 0.1 * loss}
        return loss, (
            new_state,
            {"loss": (loss * count, count), "error": (total, count)},
        )

    def criticise(params, state, constants, batches, key, step):
        batch = batches["pairs"]
        target = jax.lax.stop_gradient(errors(params, batch))
        guess = critic.apply({"params": params["critic"]}, batch["x"])[:, 0]
        off = jnp.abs(guess - target)
        return off.mean(), (state, {"off": (off.sum(), off.size)})

    phases = [Phase("fit" if two_phases else "", "^net/", fit)]
    if two_phases:
        phases.append(Phase("critic", "^critic/", criticise))

    def evaluate(params, state, constants, batch, key):
        error = errors(params, batch)
        return {"loss": (error.sum(), error.size)}

    return System(
        name="tiny",
        init=init,
        feeds={"pairs": Feed(spec, 16)},
        phases=tuple(phases),
        evaluations={"held_out": Evaluation(evaluate, spec, held_out)},
        init_state=lambda: {"seen": jnp.int32(0), "mean": jnp.float32(0)},
        post_update=post_update,
    )


def make_batch(index: int, size: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([7, index])
    x = rng.normal(size=(size, 8)).astype(np.float32)
    y = np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2]], -1).astype(np.float32)
    weight = rng.integers(0, 5, size).astype(np.float32)
    return {"x": x, "y": y, "weight": weight}


def batches_fn(start: int, size: int = 16):
    index = start
    while True:
        yield {"pairs": make_batch(index, size)}
        index += 1


def config(**changes):
    base = {
        "system": "tiny",
        "seed": 3,
        "total_steps": 8,
        "batch_size": 16,
        "log_every": 1,
        "checkpoint_every": 4,
        "keep": 2,
        "optim": {"peak_lr": 1e-2, "start_lr": 1e-3, "warmup_fraction": 0.25},
    }
    return {**base, **changes}
