"""Model directories: complete or not at all, readable, and what they say they are."""

import json
import os
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gptface_jax.core.errors import UserError
from gptface_jax.interop import directory

PARAMS = {"a": {"kernel": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3)}}
CONFIG = {"vqgan": {"width": 3, "shape": (2, 3)}, "note": "a test"}
SHAPES = jax.eval_shape(lambda: PARAMS)
FILES = {"vocab.txt": b"[PAD]\na\nb\n", "README.md": b"# A model\n"}


@pytest.fixture
def folder(tmp_path):
    directory.write(tmp_path / "model", CONFIG, {"vqgan": PARAMS}, FILES)
    return tmp_path / "model"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_is_written_is_read(tmp_path, dtype):
    target = tmp_path / "deep" / "model"
    directory.write(target, CONFIG, {"vqgan": PARAMS}, FILES, dtype)
    read = directory.read_network(target, "vqgan", lambda: SHAPES)["a"]["kernel"]
    stored = np.asarray(jnp.asarray(PARAMS["a"]["kernel"], dtype), np.float32)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, stored)
    # The digest is of what is stored, so that whoever reads it finds the same.
    config = directory.read_config(target)
    found = directory.digest({"a": {"kernel": read}}, config["vqgan"])
    assert config["digests"]["vqgan"] == found
    rounded = directory.digest(PARAMS, config["vqgan"]) != found
    assert rounded == (dtype == "bfloat16")
    assert directory.read_vocab(target) == "[PAD]\na\nb\n"
    assert (target / "README.md").read_bytes() == FILES["README.md"]
    assert os.listdir(target.parent) == ["model"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_are_as_readable_as_their_folder(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        directory.write(tmp_path / "model", CONFIG, {"vqgan": PARAMS}, FILES)
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o777 & ~mask
    for path in (tmp_path / "model").iterdir():
        assert path.stat().st_mode & 0o777 == mode, path


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    large = {"a": {"kernel": np.ones((100, 300), np.float32)}}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Writes beyond 20 kB now fail, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cannot write .*File too large; free"):
            directory.write(tmp_path / "model", CONFIG, {"vqgan": large}, FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept(folder):
    with pytest.raises(UserError, match="already exists"):
        directory.write(folder, CONFIG, {"vqgan": PARAMS}, FILES)
    with pytest.raises(UserError, match="dtype 'float16' is unknown"):
        directory.write(folder / "new", CONFIG, {}, {}, "float16")
    (folder.parent / "empty").mkdir()
    directory.write(folder.parent / "empty", CONFIG, {"vqgan": PARAMS}, FILES)
    assert directory.read_config(folder.parent / "empty")["note"] == "a test"


def test_other_weights_than_config_names_are_refused(folder):
    path = folder / "vqgan.safetensors"
    weights = load_file(path)
    weights["a/kernel"][1, 2] += 1
    save_file(weights, path)
    said = "vqgan.safetensors' is not the file that config.json names .* get or export"
    with pytest.raises(UserError, match=said):
        directory.read_network(folder, "vqgan", lambda: SHAPES)


def test_another_config_of_the_network_is_refused(folder):
    config = directory.read_config(folder)
    config["vqgan"]["width"] = 4
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="not the file that config.json names"):
        directory.read_network(folder, "vqgan", lambda: SHAPES)


def test_a_permuted_vocabulary_is_refused(folder):
    (folder / "vocab.txt").write_text("[PAD]\nb\na\n")
    with pytest.raises(UserError, match="vocab.txt' is not the file that config.json"):
        directory.read_vocab(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match="has no vocab.txt"):
        directory.read_vocab(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[]", r"holds \[\] and no JSON object; export"),
        (b"null", "holds None and no JSON object"),
        (b"\xff\xfe{}", "is no JSON .*utf-8.* export"),
        (b'{"format": ', "is no JSON"),
        (b"{}", "has format None; expected 'gptface-model/1'"),
    ],
)
def test_a_damaged_config_is_one_line(folder, content, said):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        directory.read_config(folder)
    assert "\n" not in str(error.value)


def test_damaged_weights_are_one_line(folder):
    path = folder / "vqgan.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="is damaged"):
        directory.read_network(folder, "vqgan", lambda: SHAPES)
    path.unlink()
    with pytest.raises(UserError, match="has no vqgan.safetensors"):
        directory.read_network(folder, "vqgan", lambda: SHAPES)


def test_weights_of_another_shape_are_named(folder):
    other = {"a": {"kernel": jax.ShapeDtypeStruct((2, 4), jnp.float32)}}
    with pytest.raises(
        UserError, match=r"'a/kernel' is \[2, 3\], .* asks for \[2, 4\]"
    ):
        directory.read_network(folder, "vqgan", lambda: other)
    with pytest.raises(UserError, match="lacks weight 'b'"):
        more = {"b": SHAPES["a"]["kernel"], **SHAPES}
        directory.read_network(folder, "vqgan", lambda: more)


def test_shapes_are_asked_for_unless_this_version_vouches(folder):
    asked = []

    def shapes():
        asked.append(True)
        return SHAPES

    def read(version):
        directory.read_network(folder, "vqgan", shapes, version)
        return len(asked)

    assert read("1.2") == 1  # config.json names no version
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "library_version": "1.2"}
    path.write_text(json.dumps(config))
    assert read("1.2") == 1
    assert read("1.3") == 2
    del config["digests"]["vqgan"]
    path.write_text(json.dumps(config))
    assert read("1.2") == 3
