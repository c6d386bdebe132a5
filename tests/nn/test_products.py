"""Products with weights: against `lax`, and what rounding their operands does."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.nn import platforms, products
from gptface_jax.nn.transformer import Transformer, TransformerConfig

KEY = jax.random.key(0)


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_a_product_is_that_of_lax(shape):
    x, kernel = jax.random.normal(KEY, shape), jax.random.normal(KEY, (6, 4))
    dims = (((x.ndim - 1,), (0,)), ((), ()))
    axes = "embed", "mlp"
    found = products.dense_product(axes, "float32", x, kernel, dims)
    np.testing.assert_allclose(found, jax.lax.dot_general(x, kernel, dims), rtol=1e-6)
    none = products.dense_product(axes, "float32", x[:0], kernel, dims)
    assert none.shape == (0, *shape[1:-1], 4)


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


def test_operands_are_rounded_and_sums_are_not():
    # 1 + 2^-10 is 1 in bfloat16; a thousand times 2^-9 would be lost in its sums.
    x, kernel = jnp.full((1, 2), 1 + 2.0**-10), jnp.ones((2, 1))
    assert products.multiply(x, kernel)[0, 0] == 2 + 2.0**-9
    assert products.multiply(x, kernel, "bfloat16")[0, 0] == 2
    many = jnp.concatenate([jnp.ones((1, 1)), jnp.full((1, 1000), 2.0**-9)], 1)
    found = products.multiply(many, jnp.ones((1001, 1)), "bfloat16")
    assert float(found[0, 0]) == pytest.approx(1 + 1000 / 512, rel=1e-6)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_gradients_are_of_rounded_operands(platform):
    keys = jax.random.split(KEY, 3)
    shapes = (2, 5, 6), (6, 4), (2, 5, 4)
    x, kernel, slope = map(jax.random.normal, keys, shapes)
    with platforms.compiling_for(platform):
        _, pull = jax.vjp(lambda *ops: products.multiply(*ops, "bfloat16"), x, kernel)
        by_x, by_kernel = pull(slope)
    for found, equation, one, other in (
        (by_x, "blf,df->bld", slope, kernel),
        (by_kernel, "bld,blf->df", x, slope),
    ):
        wanted = jnp.einsum(equation, rounded(one), rounded(other))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
        assert np.abs(found - jnp.einsum(equation, one, other)).max() > 1e-4


def test_gradients_of_one_picture_at_a_time():
    x, slope = jax.random.normal(KEY, (2, 3, 5, 6)), jnp.ones((3, 5, 4))
    kernel = jax.random.normal(KEY, (6, 4))

    def gradient(x):
        return jax.vjp(lambda k: products.multiply(x, k, "bfloat16"), kernel)[1](slope)

    alone = jnp.stack([gradient(one)[0] for one in x])
    together = jax.jit(jax.vmap(gradient))(x)[0]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_bfloat16_activations_are_multiplied_as_they_are():
    x, kernel = jnp.ones((3, 2), jnp.bfloat16), jnp.ones((2, 4), jnp.bfloat16)
    assert products.multiply(x, kernel, "bfloat16").dtype == jnp.bfloat16


@pytest.mark.slow
def test_a_network_computes_nearly_the_same():
    small = {"num_layers": 2, "width": 32, "num_heads": 2, "mlp_width": 64}
    x, mask = jax.random.normal(KEY, (2, 7, 32)), jnp.ones((1, 1, 7, 7), bool)
    exact = Transformer(TransformerConfig(**small))
    other = Transformer(TransformerConfig(**small, matmul_dtype="bfloat16"))
    params = exact.init(KEY, x, mask)

    def outputs(module):
        found, pull = jax.vjp(lambda p: module.apply(p, x, mask), params)
        slopes, _ = jax.flatten_util.ravel_pytree(pull(x))
        return found, slopes

    for one, two in zip(outputs(exact), outputs(other)):
        assert 0 < jnp.linalg.norm(one - two) < 0.01 * jnp.linalg.norm(one)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="matmul_dtype 'float16' is none of float32"):
        TransformerConfig(matmul_dtype="float16")


@pytest.mark.parametrize(("platform", "rank"), [("cpu", 2), ("gpu", 3), ("tpu", 3)])
def test_rows_become_one_axis_on_cpus_alone(platform, rank):
    # TPUs pay for it: to have the rows apart again their compiler copies the result.
    x, kernel = jnp.ones((2, 5, 6)), jnp.ones((6, 4))
    with platforms.compiling_for(platform):
        equations = jax.make_jaxpr(lambda *ops: products.multiply(*ops))(x, kernel).eqns
    (product,) = [e for e in equations if e.primitive.name == "dot_general"]
    assert product.invars[0].aval.ndim == rank
