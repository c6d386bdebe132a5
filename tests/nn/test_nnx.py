"""A network of the project inside a program written with Flax NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from flax import nnx

from gptface_jax.core import trees


def in_nnx(module, params, *arguments, **options):
    """A Linen module with these parameters as an NNX one, as docs/guide.md says."""
    with nnx.use_eager_sharding(False):  # no mesh is known here
        wrapped = nnx.bridge.ToNNX(module, rngs=nnx.Rngs(0))
        wrapped.lazy_init(*arguments, **options)
    nnx.update(wrapped, jax.tree.map(jnp.asarray, params))
    return wrapped


class Gazing(nnx.Module):
    """A new head, written in NNX, on the transformer."""

    def __init__(self, body, width, rngs):
        self.body, self.head = body, nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, tokens):
        return self.head(self.body(tokens).mean(1))[:, 0]


@pytest.mark.slow
def test_an_nnx_program_trains_the_transformer_with_a_head_of_its_own():
    module, params = tiny.model()
    tokens, wanted = tiny.tokens(4), jnp.array([1.0, -1.0, 0.5, 0.0])
    body = in_nnx(module, params, tokens, method="init_all")
    paths = {"/".join(path) for path in nnx.to_flat_state(nnx.state(body)).paths}
    assert paths >= set(trees.flatten(params))  # the names are ours
    np.testing.assert_allclose(
        body(tokens), module.apply({"params": params}, tokens), atol=1e-6
    )
    model = Gazing(body, 16, nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, optax.sgd(0.01), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(
            lambda m: jnp.square(m(tokens) - wanted).mean()
        )(model)
        optimizer.update(model, grads)
        return loss

    def plain(params):
        hidden = module.apply({"params": params}, tokens).mean(1)
        head = model.head
        return jnp.square(head(hidden)[:, 0] - wanted).mean()

    # One step of the body is the step that Linen takes.
    expected, grads = jax.value_and_grad(plain)(params)
    first = step(model, optimizer)
    assert float(first) == pytest.approx(float(expected), rel=1e-5)
    table = nnx.state(model.body)["tokens"]
    for name, leaf in trees.flatten(params["tokens"]).items():
        ours = trees.flatten(nnx.to_pure_dict(table))[name]
        step_taken = leaf - 0.01 * trees.flatten(grads["tokens"])[name]
        np.testing.assert_allclose(ours, step_taken, atol=1e-5, err_msg=name)
    assert float(step(model, optimizer)) < float(first)
