"""Configs of taming, read and written."""

import copy
import dataclasses

import pytest
import yaml

from gptface_jax.core.errors import UserError
from gptface_jax.interop import taming_config
from gptface_jax.nn.adversary import DiscriminatorConfig
from gptface_jax.nn.vqgan import VQGANConfig

# The published face configuration (f = 16); dropout and double_z as in its YAML.
FACES = """
model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: 256
    n_embed: 1024
    ddconfig:
      double_z: false
      z_channels: 256
      resolution: 256
      in_channels: 3
      out_ch: 3
      ch: 128
      ch_mult: [1, 1, 2, 2, 4]
      num_res_blocks: 2
      attn_resolutions: [16]
      dropout: 0.0
    lossconfig:
      target: taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator
data: {}
"""


def faces(**changes):
    """`params` of the YAML above; a None removes the key of ddconfig."""
    params = copy.deepcopy(yaml.safe_load(FACES)["model"]["params"])
    params["ddconfig"] |= changes
    params["ddconfig"] = {k: v for k, v in params["ddconfig"].items() if v is not None}
    return params


def test_the_published_yaml(tmp_path):
    (tmp_path / "x.yaml").write_text(FACES)
    read = taming_config.read(tmp_path / "x.yaml")
    assert read.model == VQGANConfig(codebook_size=1024)  # our defaults are taming's
    assert read.quantizer == "nearest" and read.never_met == ()
    assert taming_config.read(yaml.safe_load(FACES)) == read
    assert taming_config.read(faces()).quantizer is None


def test_the_gumbel_yaml():
    changes = {"ch_mult": [1, 1, 2, 4], "attn_resolutions": [32]}
    params = {**faces(**changes), "n_embed": 8192, "kl_weight": 1e-8}
    target = "taming.models.vqgan.GumbelVQ"
    read = taming_config.read({"model": {"target": target, "params": params}})
    assert read.quantizer == read.model.quantizer == "gumbel"
    assert read.model.factor == 8 and read.model.codebook_size == 8192


def test_attention_that_taming_never_meets_is_dropped_and_told():
    read = taming_config.read(faces(attn_resolutions=[8, 16]))
    assert read.never_met == (8,) and read.model.attn_resolutions == (16,)
    read = taming_config.read(faces(resolution=336))
    assert read.never_met == (16,) and read.model.attn_resolutions == ()


def test_taming_s_own_defaults():
    read = taming_config.read(faces(ch_mult=None, dropout=None, double_z=None))
    assert read.model.channel_multipliers == (1, 2, 4, 8)
    assert read.model.dropout == 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"double_z": True}, "ddconfig.double_z is True; only networks with False"),
        ({"resamp_with_conv": False}, "resamp_with_conv is False; only networks with"),
        ({"attn_type": "vanilla"}, "unknown key 'ddconfig.attn_type'; known:"),
        ({"ch_mults": [1]}, "unknown key 'ddconfig.ch_mults' .did you mean 'ch_mult'"),
        ({"ch": None, "out_ch": None}, "ddconfig lacks out_ch, ch"),
        ({"ch": "128"}, "ddconfig.ch is '128', not a whole number above 0"),
        ({"ch": 0}, "ddconfig.ch is 0, not a whole"),
        ({"num_res_blocks": True}, "num_res_blocks is True, not a whole"),
        ({"ch_mult": 4}, "ch_mult is 4, not a list"),
        ({"ch_mult": []}, "ch_mult is empty"),
        ({"ch_mult": [1, 1.5]}, "ch_mult is 1.5, not a whole"),
        ({"dropout": "no"}, "dropout is 'no', not a number"),
        ({"resolution": 100}, "resolution 100 is no multiple of f = 16"),
    ],
)
def test_values_that_make_no_sense(changes, said):
    with pytest.raises(UserError, match=said) as error:
        taming_config.read(faces(**changes))
    assert "\n" not in str(error.value)


def test_wrong_files_and_mappings(tmp_path):
    def said(match, config):
        with pytest.raises(UserError, match=match) as error:
            taming_config.read(config)
        assert "\n" not in str(error.value)

    path = tmp_path / "x.yaml"
    said("does not exist; give the model's YAML", path)
    path.write_text("model: [1\n  :")
    said("x.yaml' is no YAML", path)
    path.write_bytes(b"\xff\xfe\xff")
    said("x.yaml' is no YAML", path)
    endless = "model: &a {model: *a}"
    shallow = "model: {params: {n_embed: 3}}"
    for content in ("", "3", shallow, "ddconfig: [1]", endless):
        path.write_text(content)
        said("x.yaml' has no 'ddconfig'", path)
    said("embed_dim is None, not a whole number", {"ddconfig": faces()["ddconfig"]})
    other = {**faces(), "target": "ldm.models.autoencoder.AutoencoderKL"}
    said("'ldm.models.autoencoder.AutoencoderKL' is no VQGAN of taming; known", other)


def test_a_yaml_that_would_execute_code_is_refused(tmp_path):
    trace = tmp_path / "executed"
    (tmp_path / "x.yaml").write_text(
        f"model: !!python/object/apply:os.system ['touch {trace}']\n"
    )
    with pytest.raises(UserError, match="is no YAML"):
        taming_config.read(tmp_path / "x.yaml")
    assert not trace.exists()


@pytest.mark.parametrize("quantizer", ["nearest", "gumbel"])
def test_what_is_written_is_read(quantizer):
    config = VQGANConfig(codebook_size=512, dropout=0.1, quantizer=quantizer)
    text = taming_config.write(config, DiscriminatorConfig(channels=32, num_layers=2))
    written = yaml.safe_load(text)
    assert taming_config.read(written).model == config
    model = written["model"]
    assert model["target"].endswith("GumbelVQ" if quantizer == "gumbel" else "VQModel")
    scheduler = "temperature_scheduler_config" in model["params"]
    assert scheduler == (quantizer == "gumbel")
    loss = model["params"]["lossconfig"]
    assert loss["params"]["disc_ndf"] == 32 and loss["params"]["disc_num_layers"] == 2
    text = taming_config.write(config, None)
    assert "DummyLoss" in text and "disc_" not in text


def test_explicit_widths_become_multipliers():
    config = VQGANConfig(level_channels=(32, 32, 128, 256), attn_resolutions=(32,))
    params = yaml.safe_load(taming_config.write(config, None))["model"]["params"]
    assert params["ddconfig"]["ch"] == 32
    assert params["ddconfig"]["ch_mult"] == [1, 1, 4, 8]
    again = taming_config.read(params).model
    assert again.widths == config.widths and again.first_width == config.first_width


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"level_channels": (64, 96)}, "multiples of the first, 64; 96 .* is none"),
        ({"groups": 16}, "GroupNorm has 32 groups, this VQGAN's 16"),
        ({"channels": 48}, "which do not divide the level width 48"),
        ({"quantizer": "gumbel", "z_channels": 64}, "needs embed_dim = z_channels"),
    ],
)
def test_networks_that_taming_cannot_build(changes, said):
    config = dataclasses.replace(VQGANConfig(attn_resolutions=()), **changes)
    with pytest.raises(UserError, match=said):
        taming_config.write(config, None)


def test_discriminators_that_taming_cannot_build():
    with pytest.raises(UserError, match="has batch norms, not 'group'"):
        taming_config.write(VQGANConfig(), DiscriminatorConfig(norm="group"))
