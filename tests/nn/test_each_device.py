"""Loops over a batch, split over the devices of a mesh."""

import simulated_devices

CODE = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from gptface_jax.nn.each_device import over_batch
from gptface_jax.train import sharding

mesh, rules = sharding.open_mesh(sharding.MeshConfig(data=8))

def looped(batch, shared):
    one = lambda row: jnp.sort(row["x"])[::-1] * row["y"] + shared
    return jax.lax.map(one, batch)

def split(batch, shared):
    return over_batch(looped, batch, shared)

for rows, whole in ((16, False), (6, True)):
    rng = np.random.default_rng(rows)
    batch = {"x": rng.normal(size=(rows, 5)), "y": rng.normal(size=(rows, 1))}
    batch = jax.tree.map(jnp.float32, batch)
    expected = looped(batch, jnp.arange(5.0))
    if not whole:
        batch = jax.device_put(batch, NamedSharding(mesh, P("data")))
    with sharding.in_force(mesh, rules):
        compiled = jax.jit(split).lower(batch, jnp.arange(5.0)).compile()
        np.testing.assert_allclose(compiled(batch, jnp.arange(5.0)), expected)
        if not whole:  # each device has what it needs
            assert "all-gather" not in compiled.as_text()
            plain = jax.jit(looped).lower(batch, jnp.arange(5.0)).compile()
            assert "all-gather" in plain.as_text()
print("RESULT", 1)
"""


def test_a_loop_over_a_batch_stays_on_its_device():
    assert simulated_devices.run("-c", CODE, path=".") == 1
