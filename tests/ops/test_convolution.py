"""`ops.convolution`: the gradients are those of JAX's own convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from gptface_jax.ops.convolution import convolve, depthwise


def plain(x, kernel, strides, padding, *dilations):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, *dilations, dimension_numbers=layout
    )


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(
    size=st.tuples(st.integers(7, 9), st.integers(7, 9)),
    kernel=st.sampled_from((1, 3, 4)),
    strides=st.sampled_from(((1, 1), (2, 2), (2, 1))),
    padding=st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    dilations=st.sampled_from((((1, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 2), (1, 2)))),
)
def test_first_and_second_derivatives(size, kernel, strides, padding, dilations):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    k = rng.normal(size=(kernel, kernel, 3, 4)).astype(np.float32)

    def slopes(run):
        def once(x, k):
            return jnp.sum(jnp.sin(run(x, k, strides, padding, *dilations)))

        def twice(x, k):
            return jnp.sum(jnp.square(jax.grad(once)(x, k)))

        return [jax.grad(f, (0, 1))(x, k) for f in (once, twice)]

    pairs = zip(*(jax.tree.leaves(slopes(run)) for run in (convolve, plain)))
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, atol=2e-3, rtol=2e-3)


def test_what_it_does_not_know_is_refused():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))
    with pytest.raises(ValueError, match="feature_group_count 2"):
        convolve(x, kernel, (1, 1), [(1, 1)] * 2, feature_group_count=2)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_elsewhere_it_is_the_usual_gradient(platform):
    def slopes(run):
        f = lambda x, k: jnp.sum(run(x, k, (2, 2), [(1, 1)] * 2) ** 2)  # noqa: E731
        lowered = jax.export.export(jax.jit(jax.grad(f, (0, 1))), platforms=[platform])
        text = lowered(jnp.ones((1, 8, 8, 2)), jnp.ones((4, 4, 2, 3))).mlir_module()
        return sorted(
            line.split("dim_numbers")[1].split(" loc(")[0]
            for line in text.splitlines()
            if "stablehlo.convolution" in line
        )

    assert slopes(convolve) == slopes(plain)


@settings(max_examples=8, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.sampled_from((1, 2, 3, 5)),
    stride=st.integers(1, 3),
)
def test_depthwise_is_the_grouped_convolution(size, window, stride):
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.normal(size=(2, *size, 3)))
    kernel = jnp.float32(rng.normal(size=(window, window, 3)))

    def grouped(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel[:, :, None], (stride,) * 2, "SAME", dimension_numbers=layout,
            feature_group_count=3,
        )  # fmt: skip

    def results(run):
        value, pull_back = jax.vjp(run, x, kernel)
        return value, *pull_back(jnp.cos(value))

    ours = jax.jit(lambda: results(lambda x, k: depthwise(x, k, stride)))()
    for found, expected in zip(ours, jax.jit(lambda: results(grouped))()):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_depthwise_by_hand():
    x = jnp.arange(8.0).reshape(1, 2, 2, 2)  # channels 0 2 / 4 6 and 1 3 / 5 7
    kernel = jnp.array([[1.0, 10.0], [100.0, 1000.0]])[..., None] * jnp.array([1.0, -1])
    # Of an even window the one row and column of zeros are behind.
    expected = [[[6420, -7531], [602, -703]], [[64, -75], [6, -7]]]
    np.testing.assert_allclose(depthwise(x, kernel)[0], expected)
    np.testing.assert_allclose(depthwise(x, kernel, 2)[0], [[expected[0][0]]])
