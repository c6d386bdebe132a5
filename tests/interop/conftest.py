"""The reference's VQGAN: weights and recorded outputs."""

import json

import numpy as np
import pytest

from gptface_jax.interop import taming
from gptface_jax.interop.torch_pickle import load_torch_zip
from gptface_jax.nn.vqgan import VQGANConfig


@pytest.fixture(scope="session")
def golden(shared):
    folder = shared / "golden"
    options = json.loads((folder / "taming_vqgan.json").read_text())
    network = options["ddconfig"]
    config = VQGANConfig(
        resolution=network["resolution"],
        channels=network["ch"],
        channel_multipliers=tuple(network["ch_mult"]),
        num_res_blocks=network["num_res_blocks"],
        attn_resolutions=tuple(network["attn_resolutions"]),
        z_channels=network["z_channels"],
        embed_dim=options["embed_dim"],
        codebook_size=options["n_embed"],
    )
    state = load_torch_zip(folder / "taming_vqgan.ckpt")["state_dict"]
    arrays = dict(np.load(folder / "taming_vqgan.npz"))
    return config, state, taming.convert(state, config), arrays
