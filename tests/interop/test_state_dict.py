"""Files of named weights: written without torch and read; what is no such file."""

import io
import pickletools
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_files
from safetensors.numpy import save_file

from gptface_jax.core.errors import UserError
from gptface_jax.interop import state_dict

STATE = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 7,
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "scalar": np.array(2.5, np.float32),
    "none": np.zeros((0, 3), np.float32),
    "large": np.ones((300, 300), np.float32),
    "count": np.array(2**40, np.int64),
}


def same(read, wanted):
    assert list(read) == list(wanted)
    for name, array in wanted.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("suffix", state_dict.SUFFIXES)
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    state_dict.write(path, STATE)
    read = state_dict.read(path)
    same({name: read[name] for name in STATE}, STATE)
    first = path.read_bytes()
    state_dict.write(path, STATE)
    assert path.read_bytes() == first


def test_only_names_that_torch_allows_are_in_the_pickle(tmp_path):
    state_dict.write(tmp_path / "x.ckpt", STATE)
    with zipfile.ZipFile(tmp_path / "x.ckpt") as archive:
        index = archive.read("archive/data.pkl")
        kinds = {i.compress_type for i in archive.infolist()}
        assert archive.read("archive/version") == b"3\n"
    assert kinds == {zipfile.ZIP_STORED}
    codes = [(code.name, argument) for code, argument, _ in pickletools.genops(index)]
    names = {argument for code, argument in codes if code == "GLOBAL"}
    assert names == {
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
        "torch LongStorage",
        "collections OrderedDict",
    }
    pickletools.dis(index, io.StringIO())  # raises if the stack does not work out


def test_torch_reads_it(tmp_path):
    torch = pytest.importorskip("torch")
    state_dict.write(tmp_path / "x.ckpt", STATE)
    read = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    same({name: tensor.numpy() for name, tensor in read.items()}, STATE)


def test_bfloat16_in_safetensors(tmp_path):
    array = np.array([1.5, -3.0], ml_dtypes.bfloat16)
    save_file({"w": array}, tmp_path / "x.safetensors")
    read = state_dict.read(tmp_path / "x.safetensors")["w"]
    assert read.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(state_dict.as_float32(read, "w"), [1.5, -3.0])


def test_what_is_no_state_dict(tmp_path):
    def said(match, name="x.pt"):
        with pytest.raises(UserError, match=match) as error:
            state_dict.read(tmp_path / name)
        assert "\n" not in str(error.value)

    said("does not exist", "none.ckpt")
    said("do not exist", "none.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    said("is damaged", "x.safetensors")
    for value in (3, [1], {}, {"state_dict": 3}, {"state_dict": {}}):
        torch_files.write_zip(tmp_path / "x.pt", value, {})
        said("holds no state dict; save model.state_dict")
    for value in ({"epoch": 3}, {"state_dict": {"model": {}}}, {7: 1}):
        torch_files.write_zip(tmp_path / "x.pt", value, {})
        said("its entry '.*' is no tensor")


def test_whole_numbers_are_no_weights():
    with pytest.raises(UserError, match="weight 'w' is int8; give one of floats"):
        state_dict.as_float32(np.ones(3, np.int8), "w")


def test_differences_name_everything():
    wanted = {"a": (1, 2), "b": (3,)}
    assert state_dict.differences(wanted, wanted) == ""
    said = state_dict.differences({"a": (2, 1), "c": ()}, wanted)
    assert said == (
        "it lacks 1: b; it has 1 unknown: c; 1 have another shape: a is [2, 1], not "
        "[1, 2]"
    )
    assert state_dict.shortened("jihgfedcba") == "a, b, c, d, e, f, g, h, i, j"
    assert state_dict.shortened("abcdefghijkl").endswith("i, j and 2 more")
