"""Checkpoints made by hand, of both formats; none can hurt the reader."""

import contextlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import Global, OldTensor, Tensor, dumps, write_legacy, write_zip

from gptface_jax.core.errors import UserError
from gptface_jax.interop.torch_pickle import load_torch


def test_tensors_views_and_unknown_classes(tmp_path):
    data = np.arange(12, dtype=np.float32)
    value = {
        "weight": Tensor("FloatStorage", "0", 12, 0, (3, 4), (4, 1)),
        "transposed": Tensor("FloatStorage", "0", 12, 0, (4, 3), (1, 4)),
        "tail": Tensor("FloatStorage", "0", 12, 10, (2,), (1,)),
        "empty": Tensor("FloatStorage", "0", 12, 0, (0, 5), (5, 1)),
        "step": 7,
    }
    read = load_torch(write_zip(tmp_path / "a.pt", value, {"0": data}))
    np.testing.assert_array_equal(read["weight"], data.reshape(3, 4))
    np.testing.assert_array_equal(read["transposed"], data.reshape(3, 4).T)
    np.testing.assert_array_equal(read["tail"], [10, 11])
    assert read["empty"].shape == (0, 5) and read["step"] == 7


def test_tensors_outside_their_storage_are_refused(tmp_path):
    data = np.arange(4, dtype=np.float32)
    for offset, size, stride in ((0, (5,), (1,)), (3, (2,), (1,)), (0, (2,), (-1,))):
        value = {"w": Tensor("FloatStorage", "0", 4, offset, size, stride)}
        with pytest.raises(UserError, match="outside its storage"):
            load_torch(write_zip(tmp_path / "b.pt", value, {"0": data}))


def test_views_are_no_storages(tmp_path):
    """One number seen as many by zero strides has no memory for other strides."""
    data = {"0": np.ones(1, np.float32), "1": np.array([3], np.int64)}
    wide = Tensor("FloatStorage", "0", 1, 0, (1000,), (0,))
    flat = Tensor("FloatStorage", "0", 1, 0, (1, 1), (1, 1))
    number = Tensor("LongStorage", "1", 1, 0, (), ())
    for storage, size, said in (
        (wide, (1000,), "is a view"),
        (flat, (1,), "without a storage"),
        (wide.pid, (number,), "integers"),
        (wide.pid, (1, 1), "integers"),
    ):
        tensor = Tensor("FloatStorage", "0", 1, 0, size, (1,))
        tensor.pid = storage
        with pytest.raises(UserError, match=said):
            load_torch(write_zip(tmp_path / "view.pt", {"w": tensor}, data))


def test_wrong_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_torch(tmp_path / "none.pt")
    for content in (b"", b"\x80\x02text", b"PK\x03\x04", pickle.dumps({"w": 1})):
        (tmp_path / "odd.pt").write_bytes(content)
        with pytest.raises(UserError, match="is no PyTorch checkpoint, or damaged"):
            load_torch(tmp_path / "odd.pt")
    with zipfile.ZipFile(tmp_path / "odd.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"not a pickle")
    with pytest.raises(UserError, match="damaged"):
        load_torch(tmp_path / "odd.pt")


def test_kinds_of_storage(tmp_path):
    arrays = {
        "HalfStorage": np.array([0.5, -2.0], np.float16),
        "BFloat16Storage": np.array([1.5, 3.0], ml_dtypes.bfloat16),
        "DoubleStorage": np.array([0.1], np.float64),
        "LongStorage": np.array([-3, 2**40], np.int64),
        "BoolStorage": np.array([True, False]),
    }
    value = {
        kind: Tensor(kind, kind, array.size, 0, array.shape, (1,))
        for kind, array in arrays.items()
    }
    read = load_torch(write_zip(tmp_path / "kinds.pt", value, arrays))
    for kind, array in arrays.items():
        assert read[kind].dtype == array.dtype, kind
        np.testing.assert_array_equal(read[kind], array)


def test_small_files_cannot_ask_for_much_memory(tmp_path):
    data = np.ones(1, np.float32)
    value = {"w": Tensor("FloatStorage", "0", 1, 0, (10**6, 10**6), (0, 0))}
    read = load_torch(write_zip(tmp_path / "wide.pt", value, {"0": data}))
    assert read["w"].shape == (10**6, 10**6) and not read["w"].flags.writeable
    value = {"w": Tensor("FloatStorage", "0", 10**12, 0, (1,), (1,))}
    with pytest.raises(UserError, match="too short"):
        load_torch(write_zip(tmp_path / "long.pt", value, {"0": data}))
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps(1) + b"0" * 10**6)
    with pytest.raises(UserError, match="compressed"):
        load_torch(tmp_path / "bomb.pt")


def test_the_reader_cannot_be_altered(tmp_path):
    """A state set on one of the reader's own names is refused or lost."""
    good = {"w": Tensor("FloatStorage", "0", 2, 0, (2,), (1,))}
    data = {"0": np.array([1.0, 2.0], np.float32)}
    state = pickle.dumps(({}, {"__defaults__": (1, 2)}), protocol=0)[:-1]
    for name in (b"torch._utils\n_rebuild_tensor_v2", b"torch\nFloatStorage"):
        with zipfile.ZipFile(tmp_path / "alter.pt", "w") as archive:
            archive.writestr("x/data.pkl", b"c" + name + b"\n" + state + b"b.")
        with contextlib.suppress(UserError):
            load_torch(tmp_path / "alter.pt")
        read = load_torch(write_zip(tmp_path / "good.pt", good, data))
        np.testing.assert_array_equal(read["w"], [1.0, 2.0])


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_a_user_error_or_a_value(tmp_path_factory, data_strategy):
    path = tmp_path_factory.getbasetemp() / "fuzz.pt"
    write = data_strategy.draw(st.sampled_from([write_zip, write_legacy]))
    view = (None,) if write is write_legacy else ()
    tensor = Tensor("FloatStorage", "0", 6, 0, (2, 3), (3, 1), view)
    value = {"w": tensor, "step": 3}
    index = bytearray(dumps(value))
    for _ in range(data_strategy.draw(st.integers(1, 3))):
        place = data_strategy.draw(st.integers(0, len(index) - 1))
        # Op codes r and j set memo slots up to 2^32, which take real memory.
        byte = data_strategy.draw(st.integers(0, 255).filter(lambda b: b not in b"rj"))
        index[place] = byte
    data = {"0": np.zeros(6, np.float32)}
    with contextlib.suppress(UserError):
        load_torch(write(path, None, data, bytes(index)))


def legacy(kind, key, count, offset, size, stride, view=None):
    return Tensor(kind, key, count, offset, size, stride, (view,))


def test_the_format_before_zip(tmp_path):
    data = {
        "10": np.arange(12, dtype=np.float32),
        "9": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "8": np.zeros(0, np.float32),
    }
    value = {
        "state_dict": {
            "weight": legacy("FloatStorage", "10", 12, 0, (3, 4), (4, 1)),
            "transposed": legacy("FloatStorage", "10", 12, 0, (4, 3), (1, 4)),
            "view": legacy("FloatStorage", "10", 12, 1, (2,), (1,), ("11", 8, 4)),
            "half": legacy("BFloat16Storage", "9", 2, 0, (2,), (1,)),
            "empty": legacy("FloatStorage", "8", 0, 0, (0, 3), (3, 1)),
        },
        "epoch": 3,
    }
    read = load_torch(write_legacy(tmp_path / "old.pth", value, data))
    state = read["state_dict"]
    np.testing.assert_array_equal(state["weight"], data["10"].reshape(3, 4))
    np.testing.assert_array_equal(state["transposed"], data["10"].reshape(3, 4).T)
    assert np.shares_memory(state["weight"], state["transposed"])
    np.testing.assert_array_equal(state["view"], [9, 10])
    np.testing.assert_array_equal(state["half"].astype(np.float32), [1.5, -2])
    assert state["half"].dtype == ml_dtypes.bfloat16
    assert state["empty"].shape == (0, 3) and read["epoch"] == 3
    old = OldTensor("FloatStorage", "10", 12, 4, (4,), (1,), (None,))
    read = load_torch(
        write_legacy(tmp_path / "0.3.pth", {"w": old}, {"10": data["10"]})
    )
    np.testing.assert_array_equal(read["w"], [4, 5, 6, 7])


def test_a_whole_model_of_the_format_before_zip_is_inert(tmp_path):
    """Its classes come with their source code, which nobody runs."""
    trace = tmp_path / "executed"
    source = f"open({str(trace)!r}, 'w')"
    module = ("pid", ("module", Global("torch.nn", "Conv2d"), "conv.py", source))
    value = {"model": module, "epoch": 4}
    assert load_torch(write_legacy(tmp_path / "x.pt", value, {}))["epoch"] == 4
    assert not trace.exists()


def test_damaged_files_of_the_format_before_zip(tmp_path):
    path, data = tmp_path / "old.pth", {"0": np.arange(4, dtype=np.float32)}

    def said(match, value, storages=data, **changes):
        with pytest.raises(UserError, match=match):
            load_torch(write_legacy(path, value, storages, **changes))

    good = {"w": legacy("FloatStorage", "0", 4, 0, (4,), (1,))}
    assert load_torch(write_legacy(path, good, data))["w"][3] == 3
    said("does not begin as", good, magic=7)
    said("protocol 1002 is unknown", good, protocol=1002)
    said("big-endian", good, system={"little_endian": False})
    said("not those of its tensors", good, {**data, "1": data["0"]})
    said("'0' has another size", good, {"0": data["0"][:3]})
    huge = {"w": legacy("FloatStorage", "0", 10**12, 0, (1,), (1,))}
    said("'0' is too short", huge)
    for view in ((0, 3, 2), (0, -1, 2), (0, 2, -1)):
        outside = {"w": legacy("FloatStorage", "0", 4, 0, (1,), (1,), view)}
        said("a view reaches outside", outside)
    two = {**good, "x": legacy("HalfStorage", "0", 4, 0, (4,), (1,))}
    said("'0' has two dtypes", two)
    write_legacy(path, good, data)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="'0' has another size"):
        load_torch(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_itself_writes(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    base = torch.randn(3, 4)
    state = {
        "w": base,
        "transposed": base.t(),
        "part": base[1:, ::2],
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "parameter": torch.nn.Parameter(base[0]),
        "empty": torch.zeros(0, 2),
        "count": torch.tensor(3),
    }
    optimizer = torch.optim.Adam([state["parameter"]])
    checkpoint = {
        "state_dict": state,
        "optimizer_states": [optimizer.state_dict()],
        "callbacks": {torch.nn.Linear: {"best": base}},
    }
    path = tmp_path / "torch.ckpt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    read = load_torch(path)["state_dict"]
    for name, tensor in state.items():
        wanted = tensor.detach().to(torch.float64).numpy()
        np.testing.assert_array_equal(read[name].astype(np.float64), wanted)
    assert np.shares_memory(read["w"], read["transposed"])
    assert read["bfloat16"].dtype == ml_dtypes.bfloat16
