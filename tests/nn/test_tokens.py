import jax
import jax.numpy as jnp
import numpy as np
from compiled import apply
from flax import linen as nn

from gptface_jax.nn.tokens import JointEmbedding


def test_the_multiplier_scales_the_input_and_not_the_logits():
    tokens, match = jnp.array([[3, 1, 4], [1, 5, 0]]), jnp.array([0, 2])
    plain = JointEmbedding(6, 4, 8, 0.5, ("match", 3))
    params = nn.meta.unbox(plain.init(jax.random.key(0), tokens, match)["params"])
    louder = JointEmbedding(6, 4, 8, 0.5, ("match", 3), multiplier=3.0)
    x = apply(plain, {"params": params}, tokens, match)
    table, position = params["embedding"], params["position"]
    expected = np.asarray(table)[tokens] + np.asarray(position)[:3]
    expected[:, 0] += np.asarray(params["match"])[match]
    np.testing.assert_allclose(x, expected, atol=1e-6)
    np.testing.assert_allclose(
        apply(louder, {"params": params}, tokens, match), 3 * expected, atol=1e-6
    )
    logits = [
        m.apply({"params": params}, x, 2, 5, method="attend") for m in (plain, louder)
    ]
    np.testing.assert_array_equal(*logits)
    np.testing.assert_allclose(logits[0], x @ table[2:5].T, atol=1e-5)
