"""Files crafted to execute code: what they ask for is refused or inert, never run."""

import collections
import contextlib
import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
from torch_files import Global, Tensor, dumps, save, write_legacy, write_zip

from gptface_jax.core.errors import UserError
from gptface_jax.interop import state_dict
from gptface_jax.interop.torch_pickle import load_torch


class Call:
    """Pickles as a call of a function, which unpickling makes."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def text(value: str) -> bytes:
    """Op code that pushes a string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# What runs `command` when a plain unpickler reads it.
PICKLES = {
    "os.system": lambda c: pickle.dumps(Call(os.system, c), 2),
    "protocol 0": lambda c: pickle.dumps(Call(os.system, c), 0),
    "protocol 5": lambda c: pickle.dumps(Call(os.system, c), 5),
    "Popen": lambda c: pickle.dumps(Call(subprocess.getoutput, c), 2),
    "eval": lambda c: pickle.dumps(Call(eval, f"__import__('os').system({c!r})"), 2),
    "exec": lambda c: pickle.dumps(Call(exec, f"import os; os.system({c!r})"), 2),
    "INST": lambda c: b"(" + text(c) + b"ios\nsystem\n.",
    "OBJ": lambda c: b"(cos\nsystem\n" + text(c) + b"o.",
    "getattr of a module": lambda c: (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(" + text("os") + b"tR"
        + text("system") + b"tR(" + text(c) + b"tR."
    ),
    "a dotted name": lambda c: (
        b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93(" + text(c) + b"tR."
    ),
    "a planted __setstate__": lambda c: (
        b"ccollections\nOrderedDict\n)R}" + text("__setstate__")
        + b"cos\nsystem\nsb" + text(c) + b"b."
    ),
}  # fmt: skip


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "executed"


@pytest.mark.parametrize("name", PICKLES)
def test_the_crafted_pickles_do_work(trace, name):
    with contextlib.suppress(Exception):
        pickle.loads(PICKLES[name](f"touch {trace}"))
    assert trace.exists()


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("name", PICKLES)
def test_nothing_runs(tmp_path, trace, name, write):
    path = write(tmp_path / "x.pt", None, {}, index=PICKLES[name](f"touch {trace}"))
    with contextlib.suppress(UserError):
        load_torch(path)
    assert not trace.exists()
    with pytest.raises(UserError):
        state_dict.read(path)
    assert not trace.exists()


@pytest.mark.parametrize("part", ["magic", "protocol", "system"])
def test_nothing_runs_at_the_head_of_the_old_format(tmp_path, trace, part):
    call = Call(os.system, f"touch {trace}")
    with pytest.raises(UserError):
        load_torch(write_legacy(tmp_path / "x.pt", {}, {}, **{part: call}))
    assert not trace.exists()


@pytest.mark.parametrize("content", [pickle.dumps, lambda x: b"PK\x03\x04" + dumps(x)])
def test_nothing_runs_in_a_bare_pickle(tmp_path, trace, content):
    (tmp_path / "x.ckpt").write_bytes(content(Call(os.system, f"touch {trace}")))
    with pytest.raises(UserError, match="no PyTorch checkpoint"):
        load_torch(tmp_path / "x.ckpt")
    assert not trace.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_are_read_past_hostile_neighbours(tmp_path, trace, legacy):
    weights = {"w": np.arange(3, dtype=np.float32)}

    def wrap(tensors):
        call = Call(os.system, f"touch {trace}")
        again = Call(collections.OrderedDict, state={"f": call})
        return {
            "optimizer_states": [{"state": {0: {"exp_avg": call}}, "betas": (call,)}],
            "callbacks": {call: again, Global("os", "system"): call},
            "lr_schedulers": Call(Call, call, state={"f": call}),
            "state_dict": tensors,
        }

    path = save(tmp_path / "x.ckpt", weights, legacy, wrap)
    read = state_dict.read(path)
    np.testing.assert_array_equal(read["w"], weights["w"])
    assert not trace.exists()


def test_a_call_in_place_of_a_tensor_or_of_its_parts(tmp_path, trace):
    call = Call(os.system, f"touch {trace}")
    storage = {"0": np.arange(3, dtype=np.float32)}
    values = {"w": call}, {"w": Tensor("FloatStorage", "0", 3, 0, (call,), (1,))}
    shadowed = Tensor("FloatStorage", "0", 3, 0, (3,), (1,))
    shadowed.pid = call
    for value in (*values, {"w": shadowed}, {call: 1}, call, [call]):
        with pytest.raises(UserError):
            state_dict.read(write_zip(tmp_path / "x.pt", value, storage))
    assert not trace.exists()


def test_a_state_dict_may_carry_attributes_and_none_is_believed(tmp_path):
    """PyTorch stores `_metadata` in this way; a file could store `items`."""
    weights = {"w": np.arange(3, dtype=np.float32)}

    def wrap(tensors):
        system = Global("os", "system")
        state = {"_metadata": {"": {"version": 1}}, "items": system, "keys": system}
        return Call(collections.OrderedDict, list(tensors.items()), state=state)

    read = state_dict.read(save(tmp_path / "x.pt", weights, wrap=wrap))
    np.testing.assert_array_equal(read["w"], weights["w"])
