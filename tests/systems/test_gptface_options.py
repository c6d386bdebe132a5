"""Options of the decoder: flat names outside, groups inside."""

import dataclasses

import jax
import pytest
import tiny

from gptface_jax.systems.gptface import options
from gptface_jax.systems.gptface.options import DecodeConfig

# Public: --decode, jobs, Python and config.json say these.
NAMES = """
    k guidance step_size num_steps form update_set last_blocks at_once kl_max fusion
    eta_growth restore eq6 match_token cfg cfg_end side select temperature
    temperature_end density confidence_noise raw_confidence confidence remask refresh
    prune_at trace watermark watermark_key watermark_left
"""


def test_the_flat_names_are_those_of_the_groups():
    names = [f.name for f in dataclasses.fields(DecodeConfig)]
    assert sorted(names) == sorted(NAMES.split())
    grouped = [f.name for g in options._GROUPS for f in dataclasses.fields(g)]
    assert grouped == names  # each in one group


@pytest.mark.parametrize(
    "given,said",
    [
        ({"k": 0}, "k is 0"),
        ({"side": "left"}, "side 'left' is none of image, text, both"),
        ({"cfg_end": -1.0}, "cfg_end is -1.0"),
        ({"watermark": float("nan")}, "watermark is nan"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"update_set": "("}, "no regular expression"),
        ({"fusion": 2.0}, "fusion is 2.0"),
        ({"cfg": 2.0, "eq6": True}, "cfg compares codes"),
    ],
)
def test_every_group_checks_its_own(given, said):
    with pytest.raises(ValueError, match=said):
        DecodeConfig(**given)


def test_auto_is_settled_by_sizes_and_platform_alone(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: pytest.fail("asked the device"))
    config, model = DecodeConfig(), tiny.config()
    with pytest.raises(ValueError, match="use config.settled"):
        config.low_rank  # noqa: B018
    # 4 * 19^2 * 2 / 16 = 181 operations a weight against 2 * 19 + 24 * 6 or 24 * 100.
    assert config.settled(model, "cpu").form == "low_rank"
    wide = dataclasses.replace(
        model, layout=dataclasses.replace(model.layout, max_text_tokens=6)
    )
    assert config.settled(wide, "cpu").form == "explicit"  # 200 against 184
    assert config.settled(wide, "gpu").form == "low_rank"
    adding = DecodeConfig(restore=False)
    assert adding.settled(model, "cpu").form == "explicit"
    explicit = DecodeConfig(form="explicit")
    assert explicit.settled(model, "gpu") is explicit
