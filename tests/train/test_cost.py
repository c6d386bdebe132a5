"""FLOPs by hand, bytes of shards, times of the roofline, topologies."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import regression_system as tiny
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from gptface_jax.core.errors import UserError
from gptface_jax.nn import attention
from gptface_jax.train import program, sharding
from gptface_jax.train.planning import collectives, cost, hardware


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def test_flops_of_products_and_convolutions_by_hand():
    flops = cost.count_flops
    assert flops(jnp.dot, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
    batched = "bij,bjk->bik"
    found = flops(
        lambda a, b: jnp.einsum(batched, a, b), shape(4, 3, 5), shape(4, 5, 7)
    )
    assert found == 2 * 4 * 3 * 5 * 7

    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    found = flops(convolve, shape(2, 8, 8, 3), shape(3, 3, 3, 10))
    assert found == 2 * (2 * 4 * 4 * 10) * (3 * 3 * 3)


def test_flops_of_loops_branches_and_gradients():
    square = shape(4, 4)
    once = 2 * 4**3

    def loop(x):
        return lax.scan(lambda c, _: (jax.jit(jnp.dot)(c, x), None), x, length=6)[0]

    assert cost.count_flops(loop, square) == 6 * once

    def branch(x):
        return lax.cond(x.sum() > 0, lambda: x @ x @ x, lambda: x @ x)

    assert cost.count_flops(branch, square) == 2 * once
    # Backward: one product each for the two factors.
    grad = jax.grad(lambda a, b: (a @ b).sum(), (0, 1))
    assert cost.count_flops(grad, square, square) == 2 * once + once
    # Recomputed products count again.
    deep = lambda a: jnp.sin(jnp.sin(a @ a) @ a).sum()  # noqa: E731
    plain = cost.count_flops(jax.grad(deep), square)
    again = cost.count_flops(jax.grad(jax.checkpoint(deep)), square)
    assert plain == 6 * once and again == 8 * once


def test_flops_of_kernels_and_of_what_every_device_does():
    b, length, heads, width = 2, 256, 3, 64
    arrays = [shape(b, length, heads, width)] * 3
    mask = jax.ShapeDtypeStruct((b, 1, 1, length), bool)

    def flash(query, key, value, mask):
        return attention.attend(query, key, value, mask, "flash")

    both_products = 2 * (2 * b * heads * length * length * width)
    assert cost.count_flops(flash, *arrays, mask) == both_products
    auto = (AxisType.Auto,) * 2  # from JAX 0.11 on the default is Explicit
    mesh = AbstractMesh((2, 4), ("x", "y"), axis_types=auto)
    rows = PartitionSpec("x", None)
    each = jax.shard_map(
        lambda a: a @ jnp.ones((4, 5)), mesh=mesh, in_specs=rows, out_specs=rows
    )
    # Four devices each do the same half.
    assert cost.count_flops(each, shape(6, 4)) == 4 * (2 * 6 * 4 * 5)


def test_bytes_are_those_of_the_shards():
    mesh = AbstractMesh((2, 4), ("data", "fsdp"))

    def array(dtype, *spec):
        where = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct((8, 16), dtype, sharding=where)

    tree = {
        "split": array(jnp.float32, "data", "fsdp"),
        "half": array(jnp.bfloat16, "data"),
        "whole": array(jnp.int8),
    }
    assert cost.bytes_on_a_device(tree) == 4 * 4 * 4 + 2 * 4 * 16 + 8 * 16


def test_times_and_mfu_by_hand():
    gather = collectives.Collective("all-gather", ("fsdp",), 4, "", 4000, 3, "")
    reduce = collectives.Collective("all-reduce", ("data",), 2, "", 1000, 1, "")
    found = cost.Cost(
        mesh={"data": 2, "fsdp": 4, "tensor": 1},
        parameters=1,
        model_flops=6e6,
        counted_flops=8e6,
        compiled_flops=1.0,
        memory=cost.Memory(1, 2, 3, 4, 5, 6),
        collectives=(gather, reduce),
    )
    device = hardware.Accelerator("x", 1e6, 100, 1, 1e3, 1e2, "")
    assert found.devices == 8 and found.memory.total == 21
    times = found.times(device)
    assert times == pytest.approx({"compute": 1.0, "links": 9 + 1, "network": 0})
    slow = found.times(device, slow_axes=("data",))
    assert slow["links"] == pytest.approx(9) and slow["network"] == pytest.approx(10)
    assert found.mfu(device, 1.5) == pytest.approx(6 / 8 / 1.5)


def test_topologies_are_read():
    device, sizes = hardware.parse("v5e:16x16")
    assert device.name == "v5e" and sizes == (16, 16)
    assert hardware.parse("h200:8")[1] == (8,)
    with pytest.raises(
        UserError, match="'v5' is unknown; did you mean|'v5' is unknown"
    ):
        hardware.parse("v5:2x4")
    with pytest.raises(UserError, match="has no shape"):
        hardware.parse("v5e")
    with pytest.raises(UserError, match="has no shape"):
        hardware.parse("v5e:2x")


def test_more_devices_than_there_are():
    jax.devices()  # JAX has started
    with pytest.raises(UserError, match="4096 devices asked for"):
        hardware.simulated(4096)


def test_the_cost_of_a_small_step():
    system = tiny.make_system(weighted=True)
    mesh, rules = sharding.open_mesh(sharding.MeshConfig(), jax.devices()[:1])
    with sharding.in_force(mesh, rules):
        planned = program.Program(tiny.config(ema_decay=0.9), system, mesh, rules)
        found = cost.of_program(planned)
    # 8 -> 16 -> 2 for the prediction, 8 -> 16 -> 1 for its error.
    products = 16 * (8 * 16 + 16 * 2), 16 * (8 * 16 + 16 * 1)
    # The second phase compares with the first one's prediction, which has no backward
    # pass there; and first layers have no gradient of their input.
    forward = cost.forward_flops(system, planned)
    assert forward == 2 * (2 * products[0] + products[1])
    gradients = products[0] + 16 * 16 * 2, products[1] + 16 * 16 * 1
    counted = 2 * (products[0] + gradients[0] + sum(products) + gradients[1])
    assert found.counted_flops == counted < 3 * forward
    assert found.model_flops == counted
    parameters = sum((8 + 1) * 16 + 2 * 16 + (16 + 1) * n for n in (2, 1))
    assert found.parameters == parameters
    memory = found.memory
    assert memory.params == memory.ema == 4 * parameters
    assert 2 * memory.params <= memory.optimizer <= 2 * memory.params + 64
    assert memory.other == 4 + 4 + 4  # step, examples seen, mean
    assert memory.batch == 16 * (8 + 2 + 1) * 4
    assert memory.temporary > 0 and not found.collectives


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", [["--mesh", "2x2x2"], ["--topology", "v5e:2x4", "--mesh", "fsdp"]]
)
def test_describe_compiles_for_devices_that_are_not_there(where, root):
    if "--topology" in where:
        pytest.importorskip("libtpu")
    config = "configs/gptface/faces64.py:tiny"
    command = [sys.executable, "-m", "gptface_jax.cli.main", "describe", "--config"]
    done = subprocess.run(
        [*command, config, *where, "--config.batch_size=16"],
        capture_output=True, text=True, cwd=root, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "8 devices: data=" in done.stdout and "all-gather" in done.stdout
    assert ("of v5e's peak" in done.stdout) == ("--topology" in where)
