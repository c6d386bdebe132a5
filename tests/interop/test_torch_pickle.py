"""A checkpoint made by hand, byte for byte as torch writes it; and a hostile one."""

import collections
import contextlib
import io
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.core.errors import UserError
from gptface_jax.interop.torch_pickle import load_torch_zip


class Global:
    """Pickles as a reference to a global name."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):  # pickle wants reduce targets to be callable
        raise AssertionError


class Pickler(pickle._Pickler):
    def persistent_id(self, obj):
        return obj[1] if isinstance(obj, tuple) and obj[:1] == ("pid",) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
            return
        super().save(obj, save_persistent_id)


class Tensor:
    def __init__(self, kind, key, count, offset, size, stride):
        storage = Global("torch", kind)
        self.pid = ("pid", ("storage", storage, key, "cpu", count))
        self.rest = (offset, size, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return Global("torch._utils", "_rebuild_tensor_v2"), (self.pid, *self.rest)


def write(path, value, storages):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", buffer.getvalue())
        for key, array in storages.items():
            archive.writestr(f"x/data/{key}", array.tobytes())
    return path


def test_tensors_views_and_unknown_classes(tmp_path):
    data = np.arange(12, dtype=np.float32)
    value = {
        "weight": Tensor("FloatStorage", "0", 12, 0, (3, 4), (4, 1)),
        "transposed": Tensor("FloatStorage", "0", 12, 0, (4, 3), (1, 4)),
        "tail": Tensor("FloatStorage", "0", 12, 10, (2,), (1,)),
        "empty": Tensor("FloatStorage", "0", 12, 0, (0, 5), (5, 1)),
        "step": 7,
    }
    read = load_torch_zip(write(tmp_path / "a.pt", value, {"0": data}))
    np.testing.assert_array_equal(read["weight"], data.reshape(3, 4))
    np.testing.assert_array_equal(read["transposed"], data.reshape(3, 4).T)
    np.testing.assert_array_equal(read["tail"], [10, 11])
    assert read["empty"].shape == (0, 5) and read["step"] == 7


def test_tensors_outside_their_storage_are_refused(tmp_path):
    data = np.arange(4, dtype=np.float32)
    for offset, size, stride in ((0, (5,), (1,)), (3, (2,), (1,)), (0, (2,), (-1,))):
        value = {"w": Tensor("FloatStorage", "0", 4, offset, size, stride)}
        with pytest.raises(UserError, match="outside its storage"):
            load_torch_zip(write(tmp_path / "b.pt", value, {"0": data}))


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
            load_torch_zip(write(tmp_path / "view.pt", {"w": tensor}, data))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_nothing_in_the_file_is_executed(tmp_path):
    trace = tmp_path / "executed"
    buffer = io.BytesIO()
    pickle.dump({"w": Evil(trace), "ok": 1}, buffer, protocol=2)
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("x/data.pkl", buffer.getvalue())
    read = load_torch_zip(tmp_path / "evil.pt")
    assert read["ok"] == 1 and not trace.exists()


def test_wrong_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_torch_zip(tmp_path / "none.pt")
    (tmp_path / "old.pt").write_bytes(b"\x80\x02old format")
    with pytest.raises(UserError, match="no zip-format"):
        load_torch_zip(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "odd.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"not a pickle")
    with pytest.raises(UserError, match="damaged"):
        load_torch_zip(tmp_path / "odd.pt")


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
    read = load_torch_zip(write(tmp_path / "kinds.pt", value, arrays))
    for kind, array in arrays.items():
        assert read[kind].dtype == array.dtype, kind
        np.testing.assert_array_equal(read[kind], array)


def test_small_files_cannot_ask_for_much_memory(tmp_path):
    data = np.ones(1, np.float32)
    value = {"w": Tensor("FloatStorage", "0", 1, 0, (10**6, 10**6), (0, 0))}
    read = load_torch_zip(write(tmp_path / "wide.pt", value, {"0": data}))
    assert read["w"].shape == (10**6, 10**6) and not read["w"].flags.writeable
    value = {"w": Tensor("FloatStorage", "0", 10**12, 0, (1,), (1,))}
    with pytest.raises(UserError, match="too short"):
        load_torch_zip(write(tmp_path / "long.pt", value, {"0": data}))
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps(1) + b"0" * 10**6)
    with pytest.raises(UserError, match="compressed"):
        load_torch_zip(tmp_path / "bomb.pt")


def test_the_reader_cannot_be_altered(tmp_path):
    """A state set on one of the reader's own names is refused or lost."""
    good = {"w": Tensor("FloatStorage", "0", 2, 0, (2,), (1,))}
    data = {"0": np.array([1.0, 2.0], np.float32)}
    state = pickle.dumps(({}, {"__defaults__": (1, 2)}), protocol=0)[:-1]
    for name in (b"torch._utils\n_rebuild_tensor_v2", b"torch\nFloatStorage"):
        with zipfile.ZipFile(tmp_path / "alter.pt", "w") as archive:
            archive.writestr("x/data.pkl", b"c" + name + b"\n" + state + b"b.")
        with contextlib.suppress(UserError):
            load_torch_zip(tmp_path / "alter.pt")
        read = load_torch_zip(write(tmp_path / "good.pt", good, data))
        np.testing.assert_array_equal(read["w"], [1.0, 2.0])


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_a_user_error_or_a_value(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.pt"
    value = {"w": Tensor("FloatStorage", "0", 6, 0, (2, 3), (3, 1)), "step": 3}
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    index = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(index) - 1))
        # Op codes r and j set memo slots up to 2^32, which take real memory.
        byte = data.draw(st.integers(0, 255).filter(lambda b: b not in b"rj"))
        index[place] = byte
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", bytes(index))
        archive.writestr("x/data/0", np.zeros(6, np.float32).tobytes())
    with contextlib.suppress(UserError):
        load_torch_zip(path)
