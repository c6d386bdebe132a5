"""What the engine reads from a config, and what a resumed run may change."""

import ml_collections
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.train import settings


def test_reads_its_own_keys_from_a_config_dict():
    config = ml_collections.ConfigDict(
        {"system": "x", "total_steps": 7, "mesh": {"fsdp": 2}, "model": {"width": 3}}
    )
    read = settings.read_settings(config)
    assert read.total_steps == 7
    assert read.mesh == settings.MeshConfig(preset="data", fsdp=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"log_evry": 3}, "did you mean 'log_every'"),
        ({"mesh": {"fdsp": 2}}, "did you mean 'fsdp'"),
        ({"batch_sise": 8}, "did you mean 'batch_size'"),
        ({"keep": "many"}, "expected int"),
        ({"total_steps": 0}, "total_steps"),
        ({"grad_accum": 0}, "grad_accum"),
        ({"best_mode": "least"}, "'min' or 'max'"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_bad_values_are_explained(values, message):
    with pytest.raises(UserError, match=message):
        settings.read_settings(values)


def test_phases_may_override_the_optimiser():
    config = {
        "optim": {"peak_lr": 1.0, "b1": 0.5, "phases": {"disc": {"peak_lr": 2.0}}}
    }
    assert settings.read_optim(config, "main").peak_lr == 1.0
    disc = settings.read_optim(config, "disc")
    assert (disc.peak_lr, disc.b1) == (2.0, 0.5)
    with pytest.raises(UserError, match="optim.phases.disc.peek_lr"):
        settings.read_optim({"optim": {"phases": {"disc": {"peek_lr": 1}}}}, "disc")


def test_first_difference():
    saved = {
        "model": {"width": 16, "mlp": [1, 2]},
        "log_every": 1,
        "data": {"workers": 0},
    }
    same = {
        "model": {"width": 16, "mlp": (1, 2)},
        "log_every": 9,
        "data": {"workers": 2},
    }
    assert settings.first_difference(saved, same) is None
    other = {**same, "model": {"width": 32, "mlp": (1, 2)}}
    found = settings.first_difference(saved, other)
    assert found == "model.width is 16 there and 32 here"
    assert "seed is 'not set' there" in settings.first_difference(
        saved, {**same, "seed": 1}
    )
    assert settings.first_difference({**saved, "mesh": {"data": 8}}, saved) is None
    # Runs from before a key was added go on, as long as it says what they did.
    adamw, muon = ({**saved, "optim": {"method": m}} for m in ("adamw", "muon"))
    assert settings.first_difference(saved, adamw) is None
    assert "optim.method is 'adamw' there" in settings.first_difference(saved, muon)
    free = ("model.width",)  # what a system says
    assert settings.first_difference(saved, other, resumable=free) is None
