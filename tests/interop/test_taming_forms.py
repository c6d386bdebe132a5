"""Every form of checkpoint, made up; what does not fit is named."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch_files
import yaml
from compiled import apply
from flax import linen as nn
from safetensors.numpy import save_file

from gptface_jax.core.errors import UserError
from gptface_jax.experiments import opening
from gptface_jax.interop import state_dict, taming
from gptface_jax.nn.adversary import Discriminator, DiscriminatorConfig
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig

SMALL = VQGANConfig(
    resolution=16, channels=32, channel_multipliers=(1, 2), num_res_blocks=1,
    attn_resolutions=(8,), z_channels=8, embed_dim=8, codebook_size=16, dropout=0.25,
)  # fmt: skip
GUMBEL = dataclasses.replace(SMALL, quantizer="gumbel")
YAML = {
    "n_embed": 16,
    "embed_dim": 8,
    "ddconfig": {
        "double_z": False, "z_channels": 8, "resolution": 16, "in_channels": 3,
        "out_ch": 3, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1,
        "attn_resolutions": [8], "dropout": 0.25,
    },
}  # fmt: skip


def filled(shapes, seed: int = 0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def random_params(config):
    return filled(opening.expected_shapes("vqgan", config))


def saved(folder, config, discriminator=None):
    """The state dict that `save` writes."""
    path = folder / "made.ckpt"
    taming.save(path, config, random_params(config), discriminator)
    return state_dict.read(path)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def gumbel_state(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("gumbel"), GUMBEL)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def same(params, config):
    jax.tree.map(np.testing.assert_array_equal, params, random_params(config))


@pytest.mark.parametrize("config", [SMALL, GUMBEL], ids=["nearest", "gumbel"])
@pytest.mark.parametrize(
    "suffix", [pytest.param("ckpt", marks=pytest.mark.slow), "pt", "safetensors"]
)
def test_there_and_back_is_exact(tmp_path, config, suffix):
    params = random_params(config)
    yaml_path = taming.save(tmp_path / f"x.{suffix}", config, params)
    again, read = taming.load(tmp_path / f"x.{suffix}", yaml_path)
    assert again == config
    same(read, config)
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(read))


def test_kernels_and_names_by_hand(state):
    params = random_params(SMALL)
    kernel = params["encoder"]["down_0_block_0"]["conv1"]["kernel"]
    theirs = state["encoder.down.0.block.0.conv1.weight"]
    assert theirs[5, 3, 0, 2] == kernel[0, 2, 3, 5]
    shortcut = state["decoder.up.0.block.0.nin_shortcut.weight"]
    assert shortcut.shape == (32, 64, 1, 1)
    assert "encoder.down.0.downsample.conv.bias" in state
    assert "decoder.up.1.attn.1.proj_out.weight" in state
    np.testing.assert_array_equal(
        state["decoder.norm_out.weight"], params["decoder"]["norm_out"]["scale"]
    )
    np.testing.assert_array_equal(
        state["quantize.embedding.weight"], params["codebook"]
    )


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [None, lambda s: {"state_dict": s, "epoch": 7}])
def test_lightning_checkpoints_and_plain_state_dicts(tmp_path, state, legacy, wrap):
    path = torch_files.save(tmp_path / "x.ckpt", state, legacy, wrap)
    config, params = taming.load(path, YAML)
    assert config == SMALL
    same(params, SMALL)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_load_as_float32(tmp_path, state, dtype):
    half = {name: array.astype(dtype) for name, array in state.items()}
    torch_files.save(tmp_path / "x.ckpt", half)
    paths = [tmp_path / "x.ckpt"]
    if dtype != np.float64:
        save_file(half, tmp_path / "x.safetensors")
        paths.append(tmp_path / "x.safetensors")
    wanted = jax.tree.map(
        lambda x: x.astype(dtype).astype(np.float32), random_params(SMALL)
    )
    for path in paths:
        _, params = taming.load(path, YAML)
        assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))
        jax.tree.map(np.testing.assert_array_equal, params, wanted)


def test_inside_a_transformer(tmp_path, state):
    inside = {f"first_stage_model.{name}": array for name, array in state.items()}
    number = np.zeros(2, np.float32)
    around = {
        "transformer.pos_emb": number,
        "transformer.head.weight": number,
        **{f"cond_stage_model.{name}": array for name, array in state.items()},
        "permuter.forward_shuffle_idx": np.arange(4),
        "first_stage_model.loss.perceptual_loss.lin0.model.1.weight": number,
        "first_stage_model.quantize.used": np.arange(4),
    }
    config = {
        "model": {
            "target": "taming.models.cond_transformer.Net2NetTransformer",
            "params": {
                "transformer_config": {"target": "mingpt.GPT", "params": {}},
                "first_stage_config": {
                    "target": "taming.models.vqgan.VQModel",
                    "params": YAML,
                },
            },
        }
    }
    path = torch_files.save(tmp_path / "x.ckpt", {**inside, **around})
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(config))
    found = taming.read(path, tmp_path / "x.yaml")
    assert found.config == SMALL and found.matched == len(state)
    same(found.params, SMALL)
    assert found.ignored == {
        "transformer": 2,
        "conditioning model": len(state),
        "order of the codes": 1,
        "perceptual loss": 1,
        "renumbering of the codes": 1,
    }
    stray = {**inside, "encoder.conv_in.weight": number}
    with pytest.raises(UserError, match="1 unknown: encoder.conv_in.weight$"):
        taming.load(torch_files.save(tmp_path / "y.ckpt", stray), YAML)


def test_gumbel_codes_are_the_largest_logits(tmp_path, gumbel_state):
    path = torch_files.save(tmp_path / "x.ckpt", gumbel_state)
    config, params = taming.load(
        path, {**YAML, "target": "taming.models.vqgan.GumbelVQ"}
    )
    assert config == GUMBEL
    module, variables = VQGAN(config), {"params": params}
    image = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)), "f4")
    z = np.asarray(apply(module, variables, image, method="latents"))
    weight = gumbel_state["quantize.proj.weight"][:, :, 0, 0]
    logits = np.einsum("bhwc,kc->bhwk", z, weight) + gumbel_state["quantize.proj.bias"]
    codes = np.asarray(apply(module, variables, image, method="encode"))
    np.testing.assert_array_equal(codes, logits.argmax(-1))
    assert len(np.unique(codes)) > 1
    z_q = apply(module, variables, image)[1]["z_q"]
    np.testing.assert_array_equal(z_q, gumbel_state["quantize.embed.weight"][codes])


def test_what_the_names_say_and_the_config_denies(tmp_path, state, gumbel_state):
    nearest = torch_files.save(tmp_path / "nearest.ckpt", state)
    gumbel = torch_files.save(tmp_path / "gumbel.ckpt", gumbel_state)
    assert taming.load(gumbel, YAML)[0] == GUMBEL  # no target: the names decide
    for path, target in ((nearest, "GumbelVQ"), (gumbel, "VQModel")):
        with pytest.raises(UserError, match="target is a class with .* codes"):
            taming.load(path, {**YAML, "target": f"taming.models.vqgan.{target}"})
    both = torch_files.save(tmp_path / "both.ckpt", {**state, **gumbel_state})
    with pytest.raises(UserError, match="holds both 'quantize.embedding.weight' and"):
        taming.load(both, YAML)
    neither = torch_files.save(tmp_path / "x.ckpt", {"a.weight": np.ones(2, "f4")})
    with pytest.raises(UserError, match="holds neither .* is no checkpoint of a VQGAN"):
        taming.load(neither, YAML)
    narrow = {**YAML, "embed_dim": 4}
    with pytest.raises(UserError, match="GumbelVQ needs embed_dim = z_channels"):
        taming.load(gumbel, narrow)


def test_every_difference_is_named(tmp_path, state):
    def said(changed, config=YAML):
        path = torch_files.save(tmp_path / "x.ckpt", changed)
        with pytest.raises(UserError) as error:
            taming.load(path, config)
        message = str(error.value)
        assert "\n" not in message and "and its config do not fit" in message
        return message

    less = {k: v for k, v in state.items() if not k.startswith("quant_conv")}
    assert "it lacks 2: quant_conv.bias, quant_conv.weight" in said(less)
    more = {**state, "model_ema.decay": np.ones(1, "f4"), "loss.x": np.ones(1, "f4")}
    assert "it has 2 unknown: loss.x, model_ema.decay" in said(more)
    many = {**state, **{f"other.{i:02}": np.ones(1, "f4") for i in range(13)}}
    assert "13 unknown: other.00, other.01" in said(many)
    assert "other.09 and 3 more" in said(many)
    wider = said(state, {**YAML, "n_embed": 32, "embed_dim": 4})
    assert "quantize.embedding.weight is [16, 8], not [32, 4]" in wider
    assert "quant_conv.weight is [8, 8, 1, 1], not [4, 8, 1, 1]" in wider
    whole = {**state, "quantize.embedding.weight": np.ones((16, 8), np.int64)}
    path = torch_files.save(tmp_path / "x.ckpt", whole)
    with pytest.raises(UserError, match="'quantize.embedding.weight' is int64"):
        taming.load(path, YAML)


def made_discriminator(**changes):
    config = DiscriminatorConfig(**{"channels": 4, "num_layers": 2, **changes})
    image = jnp.zeros((1, 128, 128, config.in_channels))
    init = Discriminator(config).init
    shapes = nn.meta.unbox(jax.eval_shape(init, jax.random.key(0), image))
    variables = filled(shapes, 1)
    return config, variables["params"], variables["batch_stats"]


@pytest.mark.parametrize("num_layers", [1, 2, 4, 5])
def test_a_discriminator_of_any_size(tmp_path, num_layers):
    made = made_discriminator(num_layers=num_layers, in_channels=2)
    state = saved(tmp_path, SMALL, made)
    config, params, statistics = taming.load_discriminator(tmp_path / "made.ckpt")
    assert config == made[0]
    jax.tree.map(np.testing.assert_array_equal, (params, statistics), made[1:])
    counters = [n for n in state if n.endswith("num_batches_tracked")]
    assert len(counters) == num_layers
    assert taming.load(tmp_path / "made.ckpt", YAML)[0] == SMALL


def test_discriminators_that_are_not(tmp_path, state):
    path = torch_files.save(tmp_path / "x.ckpt", state)
    with pytest.raises(UserError, match="holds no discriminator"):
        taming.load_discriminator(path)
    (tmp_path / "made").mkdir()
    made = saved(tmp_path / "made", SMALL, made_discriminator())
    start = "loss.discriminator.main."
    actnorm = {
        n.replace("3.weight", "3.scale").replace("3.bias", "3.loc"): a
        for n, a in made.items()
        if not re.search("main.*(running|tracked)", n)
    }
    path = torch_files.save(tmp_path / "y.ckpt", actnorm)
    with pytest.raises(UserError, match=f"unknown: {start}3.loc, {start}3.scale"):
        taming.load_discriminator(path)


def test_nothing_is_overwritten_and_wrong_parameters_are_refused(tmp_path):
    params = random_params(SMALL)
    (tmp_path / "x.yaml").write_text("mine")
    with pytest.raises(UserError, match="x.yaml' already exists"):
        taming.save(tmp_path / "x.ckpt", SMALL, params)
    assert names(tmp_path) == ["x.yaml"]
    with pytest.raises(UserError, match="should end in one of .ckpt"):
        taming.save(tmp_path / "y.zip", SMALL, params)
    del params["codebook"]
    with pytest.raises(UserError, match="not the config's parameters: it lacks 1: cod"):
        taming.save(tmp_path / "y.ckpt", SMALL, params)
    assert names(tmp_path) == ["x.yaml"]
