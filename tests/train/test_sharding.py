"""Rules to specs, and the same training on every mesh of eight devices."""

import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simulated_devices
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from gptface_jax.core.errors import UserError
from gptface_jax.train import sharding

HERE = os.path.dirname(os.path.abspath(__file__))

MESHES = """
import json, sys, tempfile
import jax, numpy as np
import regression_system as tiny
from gptface_jax.train.loop import train
from gptface_jax.train import checkpoint, sharding
from gptface_jax.core import trees
assert jax.device_count() == 8
losses, folders, specs = {}, {}, {}
everywhere = sharding.open_mesh
# 1x1x1 on a machine of eight devices: the mesh takes the first one only.
def one_device(config):
    return everywhere(config, jax.devices()[:1])
for shape in ((1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2)):
    sharding.open_mesh = one_device if shape == (1, 1, 1) else everywhere
    name = "x".join(map(str, shape))
    folders[name] = tempfile.mkdtemp(dir=sys.argv[1])
    mesh = dict(zip(sharding.AXES, shape))
    config = tiny.config(mesh=mesh, total_steps=4, grad_accum=2)
    held_out = [tiny.make_batch(90), tiny.make_batch(91, size=4)]
    final = train(config, tiny.make_system(weighted=True, held_out=held_out),
                  tiny.batches_fn, folders[name], progress=False)
    log = open(folders[name] + "/metrics.jsonl")
    lines = [json.loads(line) for line in log]
    losses[name] = [x.get("loss", x.get("eval/loss")) for x in lines]
    assert len(losses[name]) == 5
    kernel = final.params["net"]["up"]["kernel"]
    specs[name] = [str(kernel.sharding.spec), len(kernel.sharding.device_set),
                   list(kernel.addressable_shards[0].data.shape)]
    mu = final.opt_state["fit"][1].mu["net"]["up"]["kernel"]
    assert mu.sharding.is_equivalent_to(kernel.sharding, 2)
# A checkpoint of one mesh goes on on another.
sharding.open_mesh = everywhere
again = train(tiny.config(mesh={"data": 2, "fsdp": 4}, total_steps=4, grad_accum=2),
              tiny.make_system(weighted=True), tiny.batches_fn, folders["2x2x2"],
              progress=False)
moved = again.params["net"]["up"]["kernel"]
stored, _ = checkpoint.restore_params(folders["2x2x2"])
np.testing.assert_array_equal(np.asarray(moved), stored["net"]["up"]["kernel"])
shard = moved.addressable_shards[0].data
specs["moved"] = [str(moved.sharding.spec), 8, list(shard.shape)]
print("RESULT", json.dumps([losses, specs]))
"""


def one_mesh():
    return sharding.make_mesh(1, 1, 1)


class FakeMesh:
    shape = {"data": 2, "fsdp": 4, "tensor": 2}


def spec(names, shape):
    return sharding._spec(names, shape, FakeMesh(), sharding.RULES)


def test_rules_to_specs():
    assert spec(("embed", "mlp"), (8, 6)) == (P("fsdp", "tensor"), [])
    assert spec(("vocab", "embed"), (10, 4)) == (P("tensor", "fsdp"), [])
    assert spec(("layers", None, "heads"), (3, 5, 2)) == (P(None, None, "tensor"), [])
    assert spec(("batch", "embed"), (8, 8)) == (P(("data", "fsdp"), None), [])


def test_axes_that_do_not_divide_stay_whole_with_a_note():
    assert spec(("embed", "mlp"), (6, 6)) == (P(None, "tensor"), ["embed"])
    assert spec(("vocab",), (31,)) == (P(None), ["vocab"])


def test_unknown_axes_suggest_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'embed'"):
        spec(("embd",), (4,))


def test_boxes_come_off():
    boxed = {
        "a": nn.LogicallyPartitioned(jnp.ones((2, 3)), ("embed", "mlp")),
        "b": jnp.zeros(4),
    }
    shardings = sharding.param_shardings(boxed, one_mesh())
    assert shardings["a"].spec == P("fsdp", "tensor")
    assert shardings["b"].spec == P()
    assert sharding.unbox(boxed)["a"].shape == (2, 3)


def test_a_mesh_that_does_not_fit_is_explained():
    count = jax.device_count()
    with pytest.raises(UserError, match=f"does not fit {count} devices"):
        sharding.make_mesh(count, 3, 1)
    with pytest.raises(UserError, match="one of them may be -1"):
        sharding.make_mesh(-1, -1, 1)
    assert dict(sharding.make_mesh().shape) == {"data": count, "fsdp": 1, "tensor": 1}


def test_every_mesh_of_eight_devices_trains_alike(tmp_path):
    losses, specs = simulated_devices.run("-c", MESHES, str(tmp_path), path=HERE)
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses["1x1x1"], rtol=1e-5, err_msg=name)
    shards = {name: entry[2] for name, entry in specs.items()}
    assert shards == {
        "1x1x1": [8, 16],
        "8x1x1": [8, 16],
        "1x8x1": [1, 16],
        "2x2x2": [4, 8],
        "moved": [2, 16],
    }


def test_presets_give_sizes_that_can_be_changed():
    config = sharding.MeshConfig(preset="mixed", tensor=4)
    assert [config.size(n) for n in ("data", "fsdp", "tensor")] == [-1, 2, 4]
    assert sharding.MeshConfig(preset="two_slices").size("slices") == 2
    with pytest.raises(UserError, match="did you mean 'fsdp'"):
        sharding.MeshConfig(preset="fdsp")
    with pytest.raises(UserError, match="did you mean 'length'"):
        sharding.MeshConfig(rules={"lenght": "tensor"})
    with pytest.raises(UserError, match="use data, fsdp, tensor"):
        sharding.MeshConfig(rules={"length": "model"})


def test_slices_must_divide_the_data_axis():
    with pytest.raises(UserError, match=r"mesh\.slices 2 does not divide"):
        sharding.make_mesh(data=1, fsdp=jax.device_count(), slices=2)


def machines(*slices, platform="gpu"):
    """Stand-ins of two devices for each slice."""
    return [
        types.SimpleNamespace(platform=platform, slice_index=s, id=i)
        for s in slices
        for i in range(2)
    ]


def test_a_rack_of_gpus_is_some_hosts():
    groups = sharding._groups(machines(0, 1, 2, 3), 2)
    assert [[d.slice_index for d in g] for g in groups] == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert len(sharding._groups(machines(0, 0), 2)) == 1  # one host: no slow network
    for devices in (machines(0, 1, 2), machines(0, 1, 2, 3, platform="tpu")):
        with pytest.raises(UserError, match="but there are [34] slices"):
            sharding._groups(devices, 2)
    with pytest.raises(UserError, match=r"hold \[4, 2\] devices"):
        sharding._groups(machines(0, 0, 1), 2)


def test_large_arrays_that_stay_whole_are_told_with_the_remedy(caplog):
    def boxed(rows):
        shape = jax.ShapeDtypeStruct((rows, 128), jnp.float32)
        return {"table": nn.LogicallyPartitioned(shape, ("vocab", None))}

    for rows, told in ((1025, 1), (1024, 0), (13, 0)):
        caplog.clear()
        mesh = jax.sharding.AbstractMesh((1, 1, 2), sharding.AXES)
        shardings = sharding.param_shardings(boxed(rows), mesh)
        assert len(caplog.records) == told
        assert (shardings["table"].spec[0] == "tensor") == (rows == 1024)
    sharding.param_shardings(boxed(1025), mesh)
    assert "[1025, 128]" in caplog.text and "model.vocab.multiple_of" in caplog.text


@pytest.mark.parametrize(
    "held, process, share",
    [
        ({0: {0, 1}, 1: {2, 3}}, 1, (1, 2)),
        ({0: {0, 2}, 1: {1, 3}}, 1, (1, 2)),  # not side by side
        ({0: {0}, 1: {0}}, 1, (0, 1)),  # `tensor` spans both
        ({0: {0}, 1: {1}, 2: {0}, 3: {1}}, 2, (0, 2)),
    ],
)
def test_processes_that_hold_the_same_examples_give_the_same_share(
    held, process, share
):
    assert sharding.number_of_share(held, process) == share


def test_processes_that_share_some_examples_are_refused():
    for held in ({0: {0, 1}, 1: {1, 2}}, {0: {0}, 1: {1, 2}}):
        with pytest.raises(UserError, match="choose a mesh.tensor that divides"):
            sharding.number_of_share(held, 0)
