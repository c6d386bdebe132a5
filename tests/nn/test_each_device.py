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

# A kernel that XLA cannot split: each device runs its own, as the TPU compiler allows.
import functools
from jax.sharding import Mesh
from gptface_jax.nn import attention, each_device

def attended(params, rows):
    query, mask = rows
    return attention.attend(query, query * params, query, mask, "flash")

mesh = Mesh(np.array(jax.devices()[:2]), ("batch",))
rows = jnp.ones((4, 128, 2, 64)), jnp.ones((4, 1, 1, 128), bool)
rows = jax.device_put(rows, NamedSharding(mesh, P("batch")))
traced = each_device.rows_apart.trace(mesh, attended, jnp.float32(2), rows)
assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).as_text()
try:
    plain = jax.jit(attended).trace(jnp.float32(2), rows)
    plain.lower(lowering_platforms=("tpu",))
except NotImplementedError as error:
    assert "cannot be automatically partitioned" in str(error)
else:
    raise AssertionError("kernels are split by now: rows_apart may not be needed")

# Loops end on each device by itself; results are those of one device.
def halved(params, rows):
    step = lambda x: (jnp.where(x > params, x / 2, x))
    return jax.lax.while_loop(lambda x: jnp.any(x > params), step, rows)

rows = jnp.arange(8.0) ** 3
split = jax.device_put(rows, NamedSharding(mesh, P("batch")))
found = each_device.rows_apart(mesh, halved, jnp.float32(1), split)
np.testing.assert_array_equal(found, halved(1.0, rows))
print("RESULT", 1)
"""


def test_a_loop_over_a_batch_stays_on_its_device():
    assert simulated_devices.run("-c", CODE, path=".") == 1
