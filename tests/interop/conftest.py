"""The reference's VQGAN: weights and recorded outputs."""

import json

import numpy as np
import pytest

from gptface_jax.interop import state_dict, taming


@pytest.fixture(scope="session")
def golden_files(shared):
    """(checkpoint, its config)."""
    folder = shared / "golden"
    config = json.loads((folder / "taming_vqgan.json").read_text())
    return folder / "taming_vqgan.ckpt", config


@pytest.fixture(scope="session")
def golden(shared, golden_files):
    """(config, state dict, parameters, recorded arrays)."""
    checkpoint, _ = golden_files
    config, params = taming.load(*golden_files)
    arrays = dict(np.load(shared / "golden" / "taming_vqgan.npz"))
    return config, state_dict.read(checkpoint), params, arrays
