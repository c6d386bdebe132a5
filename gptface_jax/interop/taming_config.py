"""Configs of CompVis/taming-transformers: ddconfig, n_embed, embed_dim <-> VQGANConfig.

    model:
      target: taming.models.vqgan.VQModel
      params:
        embed_dim: 256
        n_embed: 1024
        ddconfig: {resolution: 256, ch: 128, ch_mult: [1, 1, 2, 2, 4], ...}

In the YAML of a Net2NetTransformer these stand under `first_stage_config`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.nn.adversary import DiscriminatorConfig
from gptface_jax.nn.vqgan import VQGANConfig

GROUPS = 32  # of every GroupNorm in taming
# Class in `target` -> our quantizer.
TARGETS = {"VQModel": "nearest", "VQNoDiscModel": "nearest", "GumbelVQ": "gumbel"}
_TO_OURS = {
    "resolution": "resolution",
    "in_channels": "in_channels",
    "out_ch": "out_channels",
    "ch": "channels",
    "ch_mult": "channel_multipliers",
    "num_res_blocks": "num_res_blocks",
    "attn_resolutions": "attn_resolutions",
    "z_channels": "z_channels",
    "dropout": "dropout",
}
_OPTIONAL = {"ch_mult": (1, 2, 4, 8), "dropout": 0.0}  # taming's defaults
_FIXED = {"double_z": False, "resamp_with_conv": True}


@dataclasses.dataclass(frozen=True)
class TamingConfig:
    """A config of taming-transformers, as far as it concerns the VQGAN.

    Attributes:
      model: the VQGAN; its quantizer is `quantizer`, or "nearest".
      quantizer: of the class in `target`; None if there is no target.
      never_met: sides in attn_resolutions that the network does not visit; taming
        ignores them, and so does `model`.
    """

    model: VQGANConfig
    quantizer: str | None
    never_met: tuple[int, ...]


def read(config: str | os.PathLike | Mapping[str, Any]) -> TamingConfig:
    """The config of a taming checkpoint, as ours.

    Args:
      config: YAML file, or a mapping with `ddconfig`, `n_embed` and `embed_dim`,
        possibly `target`, possibly at taming's depth.

    Raises:
      UserError: no such file, a missing or unknown key, or a value that makes no
        sense.
    """
    target, values = _innermost(config)
    quantizer = None
    if target is not None:
        name = str(target).rsplit(".", 1)[-1]
        if name not in TARGETS:
            raise UserError(
                f"config: target '{target}' is no VQGAN of taming; known classes: "
                f"{', '.join(TARGETS)}"
            )
        quantizer = TARGETS[name]
    theirs = _checked(values["ddconfig"])
    sides = [theirs["resolution"] >> i for i in range(len(theirs["ch_mult"]))]
    never_met = tuple(s for s in theirs["attn_resolutions"] if s not in sides)
    theirs["attn_resolutions"] = tuple(
        s for s in theirs["attn_resolutions"] if s in sides
    )
    try:
        model = VQGANConfig(
            **{_TO_OURS[k]: v for k, v in theirs.items()},
            embed_dim=_whole(values.get("embed_dim"), "embed_dim"),
            codebook_size=_whole(values.get("n_embed"), "n_embed"),
            quantizer=quantizer or "nearest",
            groups=GROUPS,
        )
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"config: {error}") from None
    return TamingConfig(model, quantizer, never_met)


def write(config: VQGANConfig, discriminator: DiscriminatorConfig | None) -> str:
    """YAML from which taming builds the same network.

    Raises:
      UserError: a network that taming cannot build.
    """
    base = config.first_width
    if uneven := [w for w in config.widths if w % base]:
        raise UserError(
            f"taming's level widths are multiples of the first, {base}; {uneven[0]} "
            f"(of {config.widths}) is none; export with --format directory"
        )
    if config.groups != GROUPS:
        raise UserError(
            f"taming's GroupNorm has {GROUPS} groups, this VQGAN's {config.groups}; "
            "export with --format directory"
        )
    check(config)
    if discriminator and discriminator.norm != "batch":
        raise UserError(
            f"taming's discriminator has batch norms, not {discriminator.norm!r}; "
            "leave it out"
        )
    theirs = {k: getattr(config, ours) for k, ours in _TO_OURS.items()}
    theirs |= {"ch": base, "ch_mult": [w // base for w in config.widths]}
    theirs["attn_resolutions"] = list(config.attn_resolutions)
    params = {
        "embed_dim": config.embed_dim,
        "n_embed": config.codebook_size,
        "ddconfig": {**theirs, **_FIXED},
        "lossconfig": _loss(discriminator),
    }
    if config.quantizer == "gumbel":
        # Its constructor asks for one; it matters in training only.
        params["temperature_scheduler_config"] = {
            "target": "taming.lr_scheduler.LambdaWarmUpCosineScheduler",
            "params": {
                "warm_up_steps": 0,
                "max_decay_steps": 1_000_001,
                "lr_start": 0.9,
                "lr_max": 0.9,
                "lr_min": 1e-6,
            },
        }
    name = "GumbelVQ" if config.quantizer == "gumbel" else "VQModel"
    model = {"target": f"taming.models.vqgan.{name}", "params": params}
    model = {"base_learning_rate": 4.5e-6, **model}
    return yaml.safe_dump({"model": model}, sort_keys=False)


def check(config: VQGANConfig) -> None:
    """Raises a UserError for a network that taming cannot build."""
    if config.patch > 1:
        raise UserError(
            f"taming's VQGAN begins with single pixels, not with patches of "
            f"{config.patch} x {config.patch}; export with --format directory"
        )
    if config.condition_channels:
        raise UserError(
            f"taming's decoder sees no photograph, and this one has condition_channels "
            f"{config.condition_channels}; export with --format directory"
        )
    if config.pixel_map != "single":
        raise UserError(
            f"this VQGAN's encoder is given pixels by pixel_map '{config.pixel_map}', "
            "which taming's config cannot say; export with --format directory"
        )
    for width in (config.first_width, *config.widths):
        if width % GROUPS:
            raise UserError(
                f"taming's GroupNorm has {GROUPS} groups, which do not divide the "
                f"level width {width} (widths {config.widths})"
            )
    if config.quantizer == "gumbel" and config.embed_dim != config.z_channels:
        raise UserError(
            f"taming's GumbelVQ needs embed_dim = z_channels, not {config.embed_dim} "
            f"and {config.z_channels}"
        )


def _loss(discriminator: DiscriminatorConfig | None) -> dict[str, Any]:
    module = "taming.modules.losses.vqperceptual"
    if discriminator is None:
        return {"target": f"{module}.DummyLoss"}
    return {
        "target": f"{module}.VQLPIPSWithDiscriminator",
        "params": {
            "disc_conditional": False,
            "disc_in_channels": discriminator.in_channels,
            "disc_ndf": discriminator.channels,
            "disc_num_layers": discriminator.num_layers,
            "disc_start": 0,
        },
    }


def _innermost(config: Any) -> tuple[Any, Mapping[str, Any]]:
    """(target or None, the mapping that holds `ddconfig`)."""
    where = "the config"
    if isinstance(config, str | os.PathLike):
        where, path = f"'{config}'", pathlib.Path(config)
        if not path.is_file():
            raise UserError(f"config {where} does not exist; give the model's YAML")
        try:
            config = yaml.safe_load(path.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            said = " ".join(str(error).split())
            raise UserError(f"{where} is no YAML ({said})") from None
    target, values = None, config
    for _ in range(5):  # top, model, params, first_stage_config, params
        if not isinstance(values, Mapping):
            break
        target = values.get("target", target)
        if isinstance(values.get("ddconfig"), Mapping):
            return target, values
        inner = [k for k in ("model", "first_stage_config", "params") if k in values]
        target = None if "first_stage_config" in inner else target  # a transformer's
        values = values[inner[0]] if inner else None
    raise UserError(
        f"{where} has no 'ddconfig' (at the top, under model.params or under "
        "model.params.first_stage_config.params); give the YAML of a VQGAN"
    )


def _checked(ddconfig: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `_TO_OURS` with the right types."""
    known = [*_TO_OURS, *_FIXED]
    for key in ddconfig:
        if key not in known:
            raise UserError(
                f"config: unknown key 'ddconfig.{key}'{nearest(str(key), known)}; "
                f"known: {', '.join(known)}"
            )
    for key, value in _FIXED.items():
        if ddconfig.get(key, value) is not value:
            raise UserError(
                f"config: ddconfig.{key} is {ddconfig[key]!r}; only networks with "
                f"{value} are VQGANs that can be imported"
            )
    values = {**_OPTIONAL, **{k: v for k, v in ddconfig.items() if k not in _FIXED}}
    if missing := [k for k in _TO_OURS if k not in values]:
        raise UserError(f"config: ddconfig lacks {', '.join(missing)}")
    for key in ("ch_mult", "attn_resolutions"):
        if isinstance(values[key], str) or not isinstance(values[key], Sequence):
            raise UserError(f"config: ddconfig.{key} is {values[key]!r}, not a list")
        values[key] = tuple(_whole(v, f"ddconfig.{key}") for v in values[key])
    if not values["ch_mult"]:
        raise UserError("config: ddconfig.ch_mult is empty; name a level at least")
    dropout = values.pop("dropout")
    if isinstance(dropout, bool) or not isinstance(dropout, int | float):
        raise UserError(f"config: ddconfig.dropout is {dropout!r}, not a number")
    lists = ("ch_mult", "attn_resolutions")
    whole = {k: _whole(v, f"ddconfig.{k}") for k, v in values.items() if k not in lists}
    return {**values, **whole, "dropout": float(dropout)}


def _whole(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"config: {key} is {value!r}, not a whole number above 0")
    return value
