"""The shipped weights are those of the original files."""

import numpy as np
import pytest

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.interop import mediapipe

FILES = {"blazeface": "blazeface_short.tflite", "face_mesh": "face_mesh_468.tflite"}


@pytest.mark.shared
@pytest.mark.parametrize("name", FILES)
def test_the_conversion_gives_what_is_shipped(shared, name):
    pytest.importorskip("tflite")
    flat = mediapipe.from_tflite(shared / "models" / FILES[name], name)
    shipped = trees.flatten(mediapipe.read(name))
    assert flat.keys() == shipped.keys()
    for path, value in flat.items():
        assert value.dtype == np.float16
        np.testing.assert_array_equal(value, shipped[path], err_msg=path)


@pytest.mark.shared
def test_another_network_is_refused(shared):
    pytest.importorskip("tflite")
    with pytest.raises(UserError, match="not the network 'face_mesh'"):
        mediapipe.from_tflite(shared / "models" / FILES["blazeface"], "face_mesh")


def test_missing_or_foreign_weights_are_refused(tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    monkeypatch.setattr(mediapipe, "FOLDER", tmp_path)
    with pytest.raises(UserError, match="is missing; install"):
        mediapipe.read("blazeface")
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "blazeface.safetensors")
    with pytest.raises(UserError, match="holds another network"):
        mediapipe.read("blazeface")


def test_licence_and_origin_come_with_the_weights():
    assert "Apache License" in (mediapipe.FOLDER / "LICENSE").read_text()
    assert "MediaPipe" in (mediapipe.FOLDER / "README.md").read_text()
