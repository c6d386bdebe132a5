"""Transformers of TencentPretrain: golden vectors, strict reading, the way back."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.interop import state_dict, tencent
from gptface_jax.nn.prefix_lm import PrefixLM
from gptface_jax.systems.talk2face.model import logits

OPTIONS = {
    "hidden_size": 8,
    "heads_num": 2,
    "layers_num": 2,
    "feedforward_size": 12,
    "vocab_size": 20,
    "codebook_size": 6,
    "max_seq_length": 16,
    "grid": [2, 2],
}


def build(seed: int = 0, **changes):
    config = tencent.read_config({**OPTIONS, **changes})
    init = jax.jit(lambda key: PrefixLM(config).init(key, TOKENS, method="init_all"))
    from flax import linen as nn

    return config, nn.meta.unbox(init(jax.random.key(seed))["params"])


TOKENS = np.array([[5, 1, 7, 14, 15, 16, 17, 0]], np.int32)
SEGMENTS = np.array([[1, 1, 1, 2, 2, 2, 2, 0]], np.int32)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["talk2face_dense", "prenorm_glu"])
def test_golden(shared, name, tmp_path):
    folder = shared / "golden"
    options = json.loads((folder / f"{name}.json").read_text())
    config, params = tencent.load(folder / f"{name}.bin", options)
    arrays = np.load(folder / f"{name}.npz")
    tokens, segments = (arrays[n].astype(np.int32) for n in ("tokens", "segments"))
    found = jax.jit(logits, static_argnums=0)(config, params, tokens, segments)
    real = segments > 0
    np.testing.assert_allclose(
        np.asarray(found)[real], arrays["logits"][real], atol=2e-4
    )
    hidden = jax.jit(
        lambda p, *a: PrefixLM(config).apply({"params": p}, *a, method="sequence")
    )(params, tokens, segments)
    np.testing.assert_allclose(
        np.asarray(hidden)[real], arrays["hidden"][real], atol=2e-4
    )
    if "loss" in arrays:
        said = np.asarray(jax.nn.log_softmax(found))
        nll = -np.take_along_axis(said, arrays["target"][..., None], -1)[..., 0]
        np.testing.assert_allclose(nll[segments == 2].mean(), arrays["loss"], atol=2e-4)
    tencent.save(tmp_path / "back.bin", config, params)
    theirs, ours = (
        state_dict.read(p) for p in (folder / f"{name}.bin", tmp_path / "back.bin")
    )
    assert set(theirs) == set(ours)
    for key, array in theirs.items():
        np.testing.assert_array_equal(ours[key], array, err_msg=key)


def test_a_released_checkpoint_has_198_tensors_of_134_299_392_values():
    config = tencent.read_config(
        {
            "hidden_size": 768,
            "heads_num": 12,
            "layers_num": 12,
            "feedforward_size": 3072,
            "vocab_size": 31546,
        }
    )
    weights = list(tencent._weights(config))
    assert len(weights) == 198
    assert sum(np.prod(shape) for _, _, shape, _ in weights) == 134_299_392
    assert config.vocab.text_size == 30522 and config.vocab.codebook_size == 1024


@pytest.mark.parametrize("changes", [{}, {"feed_forward": "gated", "mask": "causal"}])
@pytest.mark.parametrize("variant", ["untied", "tied", "bias"])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_round_trip_is_exact(tmp_path, changes, variant, suffix):
    config, params = build(**changes)
    if variant == "tied":
        config = dataclasses.replace(config, tied_output=True)
        params["tokens"].pop("output")
    if variant == "bias":
        config = dataclasses.replace(config, output_bias=True)
        params["tokens"]["output_bias"] = np.arange(20, dtype=np.float32)
    path = tmp_path / f"model{suffix}"
    tencent.save(path, config, params)
    again, back = tencent.load(path, tencent.their_config(config))
    assert again == dataclasses.replace(config, length=again.length)
    flat, expected = trees.flatten(back), trees.flatten(params)
    assert set(flat) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(flat[name], array, err_msg=name)
    second = tmp_path / f"again{suffix}"
    tencent.save(second, again, back)
    assert second.read_bytes() == path.read_bytes()


def test_torch_loads_what_was_written(tmp_path):
    torch = pytest.importorskip("torch")
    config, params = build()
    tencent.save(tmp_path / "m.bin", config, params)
    state = torch.load(tmp_path / "m.bin", weights_only=True)
    kernel = params["transformer"]["layers"]["attention"]["key"]["kernel"][1]
    name = "encoder.transformer.1.self_attn.linear_layers.1.weight"
    np.testing.assert_array_equal(state[name].numpy(), np.asarray(kernel).T)


def test_every_name_and_shape_must_be_right(tmp_path):
    config, params = build()
    state = tencent.to_state_dict(config, params)
    path = tmp_path / "m.bin"

    def reading(**changes):
        state_dict.write(path, {**state, **changes}, key="")
        return tencent.load(path, OPTIONS)

    with pytest.raises(UserError, match="1 unknown: target.lm.extra"):
        reading(**{"target.lm.extra": np.zeros(3, np.float32)})
    name = "encoder.layer_norm.gamma"
    with pytest.raises(
        UserError, match=r"encoder.layer_norm.gamma is \[3\], not \[8\]"
    ):
        reading(**{name: np.zeros(3, np.float32)})
    state.pop(name)
    with pytest.raises(UserError, match="lacks 1: encoder.layer_norm.gamma"):
        reading()


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"mask": "sparse"}, "mask is 'sparse'; built here are prefix"),
        ({"layernorm_positioning": "post"}, "layernorm_positioning is 'post'"),
        ({"embedding": ["word"]}, "embedding is"),
        ({"hidden_size": "wide"}, "hidden_size is 'wide'"),
        ({"heads_num": 3}, "width 8 is not divisible by num_heads 3"),
        ({"codebook_size": 20}, "codebook_size is 20"),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'"),
        ({"grid": 16}, "grid is 16"),
    ],
)
def test_what_is_not_built_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tencent.read_config({**OPTIONS, **changes})


def test_what_theirs_cannot_be_is_not_exported(tmp_path):
    config, params = build()
    standard = dataclasses.replace(config.transformer, norm="standard")
    with pytest.raises(UserError, match="transformer.norm is 'standard'"):
        tencent.save(
            tmp_path / "m.bin",
            dataclasses.replace(config, transformer=standard),
            params,
        )
    assert not (tmp_path / "m.bin").exists()


def test_a_config_that_is_no_config(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        tencent.read_config(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("[1")
    with pytest.raises(UserError, match="is no JSON"):
        tencent.read_config(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match="no JSON object"):
        tencent.read_config(tmp_path / "list.json")
    with pytest.raises(UserError, match="lacks heads_num"):
        tencent.read_config({"hidden_size": 8, "layers_num": 1, "feedforward_size": 8,
                             "vocab_size": 9})  # fmt: skip
