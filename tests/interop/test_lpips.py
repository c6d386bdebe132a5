"""LPIPS from every form in which its weights lie about; weights made by formula."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from safetensors.numpy import save_file

from gptface_jax.core.errors import UserError
from gptface_jax.interop import lpips
from gptface_jax.nn.perceptual import LPIPS

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
HEADS = (64, 128, 256, 512, 512)
# Of the convolutions in torchvision's sequence, and in the five slices of the package.
PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
SLICES = (1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5)


def formula():
    """Convolutions [(OIHW weight, bias)] and heads [C], as in the golden vectors."""
    convolutions, heads, before = [], [], 3
    for c, width in enumerate(WIDTHS):
        i = np.arange(9 * before * width, dtype=np.float64)
        weight = np.sin(12.9898 * i + 78.233 * c) * np.sqrt(2 / (9 * before))
        weight = (weight * np.sqrt(2)).reshape(width, before, 3, 3)
        bias = 0.01 * np.cos(np.arange(width) + c)
        convolutions.append((weight.astype(np.float32), bias.astype(np.float32)))
        before = width
    for k, width in enumerate(HEADS):
        head = np.abs(np.sin(0.7 * np.arange(width) + k)) / width
        heads.append(head.astype(np.float32))
    return convolutions, heads


@pytest.fixture(scope="module")
def made():
    return formula()


@pytest.fixture(scope="module")
def vgg(made):
    """As torchvision names them, with a piece of the classifier."""
    state = {"classifier.0.weight": np.ones((2, 2), np.float32)}
    for place, (weight, bias) in zip(PLACES, made[0]):
        state |= {f"features.{place}.weight": weight, f"features.{place}.bias": bias}
    return state


@pytest.fixture(scope="module")
def heads(made):
    """As in vgg.pth of the package."""
    return {
        f"lin{k}.model.1.weight": head.reshape(1, -1, 1, 1)
        for k, head in enumerate(made[1])
    }


@pytest.fixture(scope="module")
def whole(made, heads):
    """The state dict of the package's module; it has the heads twice."""
    state = {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32), **heads}
    for place, slice_, (weight, bias) in zip(PLACES, SLICES, made[0]):
        state[f"net.slice{slice_}.{place}.weight"] = weight
        state[f"net.slice{slice_}.{place}.bias"] = bias
    again = {n.replace("lin", "lins.", 1): a for n, a in heads.items()}
    return state | again


def check(params, made):
    assert set(params) == {f"conv_{c}" for c in range(13)} | {
        f"lin_{k}" for k in range(5)
    }
    for c, (weight, bias) in enumerate(made[0]):
        kernel = params[f"conv_{c}"]["kernel"]
        assert kernel.dtype == np.float32
        np.testing.assert_array_equal(kernel, weight.transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(params[f"conv_{c}"]["bias"], bias)
    for k, head in enumerate(made[1]):
        np.testing.assert_array_equal(params[f"lin_{k}"], head)


def test_two_files_of_torch_s_old_format(tmp_path, made, vgg, heads):
    """As the published vgg16-397923af.pth and vgg.pth."""
    torch_files.save(tmp_path / "vgg16.pth", vgg, legacy=True, old=True)
    torch_files.save(tmp_path / "vgg.pth", heads, legacy=True)
    check(lpips.load(f"{tmp_path}/vgg16.pth, {tmp_path}/vgg.pth"), made)


def test_a_folder_with_both(tmp_path, made, vgg, heads):
    save_file(vgg, tmp_path / "model.safetensors")
    torch_files.save(tmp_path / "vgg.pt", heads)
    (tmp_path / "README.md").write_text("notes")
    check(lpips.load(tmp_path), made)


def test_the_package_s_module(tmp_path, made, whole):
    save_file(whole, tmp_path / "x.safetensors")
    check(lpips.load(tmp_path / "x.safetensors"), made)


@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_inside_a_vqgan(tmp_path, made, whole, prefix):
    start = f"{prefix}loss.perceptual_loss."
    inside = {start + name: a for name, a in whole.items() if "lins" not in name}
    other = {f"{prefix}encoder.conv_in.weight": np.ones(3, np.float32)}
    path = tmp_path / "last.ckpt"
    torch_files.save(path, {**other, **inside}, wrap=lambda s: {"state_dict": s})
    check(lpips.load(path), made)


def test_half_precision_is_widened(tmp_path, made, vgg, heads):
    half = {n: a.astype(np.float16) for n, a in {**vgg, **heads}.items()}
    torch_files.save(tmp_path / "x.pth", half)
    params = lpips.load(tmp_path / "x.pth")
    assert params["conv_0"]["kernel"].dtype == params["lin_4"].dtype == np.float32
    weight = half["features.28.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["conv_12"]["kernel"], weight)


@pytest.mark.shared
def test_distances_of_the_reference(shared, tmp_path, vgg, heads):
    arrays = np.load(shared / "golden" / "lpips.npz")
    save_file({**vgg, **heads}, tmp_path / "x.safetensors")
    params = lpips.load(tmp_path / "x.safetensors")
    images = jnp.asarray(arrays["image_a"]), jnp.asarray(arrays["image_b"])
    found = jax.jit(LPIPS().apply)({"params": params}, *images)
    np.testing.assert_allclose(found, arrays["distance"], rtol=1e-3)


def test_what_is_missing_or_wrong_is_named(tmp_path, vgg, heads):
    path = tmp_path / "x.safetensors"

    def said(match, state=None, where=path):
        if state is not None:
            save_file(state, path)
        with pytest.raises(UserError, match=match) as error:
            lpips.load(where)
        assert "\n" not in str(error.value)

    # Without memory for the large ones: shapes are compared first.
    said("lacks 5: lin0.model.1.weight, .*looked for as net.slice1.0", vgg)
    said(r"lacks 26: features.0.bias, .* and 16 more", heads)
    few = {k: v for k, v in vgg.items() if k != "features.5.weight"}
    said("lacks 1: features.5.weight ", {**few, **heads})
    wrong = {**few, **heads, "features.5.weight": np.ones((3, 64, 3, 3), np.float32)}
    said(r"features.5.weight is \[3, 3, 64, 3\], not \[3, 3, 64, 128\]", wrong)
    normed = {**heads, "features.1.running_mean": np.ones(64, np.float32)}
    said("holds 1 weights that are neither .*features.1.running_mean", normed)
    save_file({"lin0.model.1.weight": np.ones((1, 64, 1, 1), "f4")}, tmp_path / "b.bin")
    save_file(heads, tmp_path / "b.safetensors")
    other = {"lin0.model.0.weight": np.ones((1, 64, 1, 1), np.float32)}
    save_file(other, tmp_path / "c.safetensors")
    both = f"{tmp_path}/b.safetensors,{tmp_path}/c.safetensors"
    said(
        "c.safetensors' has a second 'lin0.model.1.weight' with other values",
        where=both,
    )
    (tmp_path / "empty").mkdir()
    said("holds no weights", where=tmp_path / "empty")
    said("do not exist", where=tmp_path / "none.safetensors")
    said("does not exist", where="weights/vgg.pth")
    said("names no file", where="")
    said("names no file", where=f"{path},")


def test_hub_ids(tmp_path, monkeypatch, made, vgg, heads):
    repository = tmp_path / "snapshot"
    repository.mkdir()
    save_file(vgg, repository / "model.safetensors")
    save_file(heads, tmp_path / "heads.safetensors")
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append((name, tuple(allow_patterns)))
        if name != "timm/vgg16.tv_in1k":
            raise ConnectionError("no\nnetwork")
        return str(repository)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    check(lpips.load(f"timm/vgg16.tv_in1k,{tmp_path}/heads.safetensors"), made)
    ((name, patterns),) = asked
    assert name == "timm/vgg16.tv_in1k" and "*.safetensors" in patterns
    with pytest.raises(
        UserError, match="'a/b' is no file here, .*no network.*give the"
    ):
        lpips.load("a/b")
