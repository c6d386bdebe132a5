"""Depthwise convolutions as sums of shifted products."""

import jax
import numpy as np
import pytest
from jax import lax

from gptface_jax.ops.convolution import depthwise


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_as_a_grouped_convolution_padded_same(size, stride):
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (2, 8, 12, 4))
    kernel = jax.random.normal(keys[1], (size, size, 4))
    wanted = lax.conv_general_dilated(
        x,
        kernel[:, :, None],
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=4,
    )
    np.testing.assert_allclose(depthwise(x, kernel, stride), wanted, atol=1e-5)
