"""AdamW, or Muon, with warm-up and decay of the learning rate (SPEC A.7).

The paper's sentence "initialised with 2e-4 and linearly warmed up to 1e-3" is
read as: `start_lr` 2e-4 to `peak_lr` 1e-3 over `warmup_fraction` of the run,
then `schedule` down to `end_lr`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError, nearest

Schedule = Callable[[Any], Any]

# Parameters without weight decay: biases, scales, a class token, and whatever lies in a
# norm. By name alone: under `nn.scan` a bias has two axes.
NO_DECAY = r"(bias|scale|class_token)$|(^|[/_])(layer_?|group_?)?norm\w*/"

# Muon is for matrices between hidden states; embeddings and heads stay with Adam.
HIDDEN_MATRICES = r"(^|/)layers/.*kernel$"

# An update of Muon is as large as one of AdamW usually is (arXiv 2502.16982, 2.2).
_MUON_RMS = 0.2

METHODS = ("adamw", "muon")


@dataclasses.dataclass(frozen=True)
class GroupConfig:
    """Parameters that are treated in their own way.

    Attributes:
      match: regex searched in parameter paths; the first group that matches counts.
      lr_scale: factor on the learning rate.
      weight_decay: instead of the optimiser's; None = the same.
    """

    match: str
    lr_scale: float = 1.0
    weight_decay: float | None = None


REST = "rest"  # name of the group of what no group matches


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Options of one optimiser; the defaults are SPEC A.7.

    Attributes:
      method: "adamw", or "muon" (arXiv 2502.16982): updates of hidden matrices are made
        orthogonal, everything else is AdamW's; one learning rate serves both.
      muon_match: regex searched in parameter paths, the matrices of Muon; the last two
        axes are the matrix.
      muon_momentum: of its one moment.
      peak_lr, start_lr, end_lr: learning rate after the warm-up, at step 0 and
        at the last step.
      warmup_fraction: part of the run spent on the linear warm-up.
      schedule: decay after the warm-up: "cosine", "linear" or "constant".
      b1, b2, eps: Adam moments and the denominator's addend.
      bias_correction: Adam's division by 1 - b**t; off is the variant of the
        paper's code base, which wants a much lower peak.
      weight_decay: decoupled, on parameters whose path does not match `no_decay`.
      no_decay: regex searched in parameter paths; "(?!)" spares none.
      clip_norm: global gradient norm, 0 = no clipping.
      groups: name -> entries of `GroupConfig`. With groups, learning rate, weight
        decay and gradient norm of each are logged; without, the gradient norm of
        every top-level module.
    """

    method: str = "adamw"
    muon_match: str = HIDDEN_MATRICES
    muon_momentum: float = 0.95
    peak_lr: float = 1e-3
    start_lr: float = 2e-4
    end_lr: float = 1e-5
    warmup_fraction: float = 0.01
    schedule: str = "cosine"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = True
    weight_decay: float = 0.01
    no_decay: str = NO_DECAY
    clip_norm: float = 1.0
    groups: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.method not in METHODS:
            raise UserError(
                f"optim.method is {self.method!r}{nearest(self.method, METHODS)}; use "
                f"one of {', '.join(METHODS)}"
            )
        if not 0.0 <= self.warmup_fraction <= 1.0:
            raise UserError(
                f"optim.warmup_fraction is {self.warmup_fraction}; use 0 to 1"
            )
        for name, group in self.all_groups.items():
            try:
                re.compile(group.match)
            except re.error as error:
                raise UserError(
                    f"optim.groups.{name}.match {group.match!r} is no regex: {error}"
                ) from None

    @functools.cached_property
    def all_groups(self) -> dict[str, GroupConfig]:
        """Groups by name, in order; the last one takes what is left."""
        made = {}
        for name, values in self.groups.items():
            where = f"optim.groups.{name}."
            if "match" not in values or name == REST:
                raise UserError(f"{where}match is missing, or the name is '{REST}'")
            made[name] = from_mapping(GroupConfig, values, where)
        return {**made, REST: GroupConfig("")}

    def group_of(self, path: str) -> str:
        """Name of the group of a parameter."""
        groups = self.all_groups.items()
        return next(name for name, g in groups if re.search(g.match, path))


def make_schedule(config: OptimConfig, total_steps: int) -> Schedule:
    """A schedule, step int -> learning rate float32; ends at `end_lr`.

    Raises:
      UserError: an unknown `schedule`.
    """
    warmup = round(config.warmup_fraction * total_steps)
    decay = max(total_steps - warmup, 1)
    peak, end = config.peak_lr, config.end_lr
    decays = {
        "cosine": lambda t: end + (peak - end) * 0.5 * (1 + jnp.cos(jnp.pi * t)),
        "linear": lambda t: peak + (end - peak) * t,
        "constant": lambda t: jnp.full_like(t, peak),
    }
    if config.schedule not in decays:
        raise UserError(
            f"optim.schedule is {config.schedule!r}{nearest(config.schedule, decays)}; "
            f"use one of {', '.join(decays)}"
        )
    # Decay is counted from the end of the warm-up: at the peak the cosine begins.
    after = decays[config.schedule]

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rising = config.start_lr + (peak - config.start_lr) * step / max(warmup, 1)
        falling = after(jnp.clip((step - warmup) / decay, 0.0, 1.0))
        return jnp.where(step < warmup, rising, falling)

    return schedule


def decay_mask(params: Any, no_decay: str = NO_DECAY) -> Any:
    """Tree of bool like `params`: True where weight decay applies."""

    def decays(path, _):
        return re.search(no_decay, trees.path_string(path)) is None

    return jax.tree_util.tree_map_with_path(decays, params)


def scale_by_uncorrected_adam(
    b1: float, b2: float, eps: float
) -> optax.GradientTransformation:
    """Adam's m / (sqrt(v) + eps) without the bias correction."""

    def init(params):
        zeros = optax.tree.zeros_like(params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(updates, state, params=None):
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
        scaled = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return scaled, optax.ScaleByAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(init, update)


def scale_by_muon(momentum: float) -> optax.GradientTransformation:
    """Muon's orthogonal updates of matrices [..., in, out], as large as AdamW's are.

    Newton and Schulz's iteration makes every singular value of the momentum about 1
    (0.7 to 1.2), so that directions that are rare in the gradient are learnt as well.
    """
    matrix = optax.contrib.MuonDimensionNumbers(-2, -1)
    orthogonal = optax.contrib.scale_by_muon(
        beta=momentum,
        weight_dimension_numbers=lambda tree: jax.tree.map(lambda _: matrix, tree),
    )

    def scaled(updates, params):
        del params
        return jax.tree.map(lambda x: x * _MUON_RMS * max(x.shape[-2:]) ** 0.5, updates)

    return optax.chain(orthogonal, optax.stateless(scaled))


def _methods(config: OptimConfig, params: Any) -> Any:
    """Tree like `params` of "muon" and "adam".

    Raises:
      UserError: a parameter of Muon's that is no matrix, or none is Muon's.
    """

    def method(path, x):
        name = trees.path_string(path)
        if not re.search(config.muon_match, name):
            return "adam"
        if x.ndim < 2:
            raise UserError(
                f"optim.muon_match {config.muon_match!r} matches '{name}' of shape "
                f"{x.shape}, which is no matrix; match kernels only"
            )
        return "muon"

    methods = jax.tree_util.tree_map_with_path(method, params)
    if "muon" not in jax.tree.leaves(methods):
        raise UserError(
            f"optim.muon_match {config.muon_match!r} matches no parameter; `gptface "
            "describe --depth 0` lists them, or use optim.method=adamw"
        )
    return methods


def make_optimizer(
    config: OptimConfig, total_steps: int
) -> tuple[optax.GradientTransformation, Schedule]:
    """Returns (tx, schedule): clip, Adam or Muon, decoupled decay, learning rate."""
    schedule = make_schedule(config, total_steps)
    scale_by_adam = (
        optax.scale_by_adam if config.bias_correction else scale_by_uncorrected_adam
    )
    direction = scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    if config.method == "muon":
        both = {"muon": scale_by_muon(config.muon_momentum), "adam": direction}
        direction = optax.partition(both, functools.partial(_methods, config))
    # Order matters: clipping comes before Adam sees the gradient, decay after it
    # (decoupled, not scaled by the second moment) and before the learning rate, which
    # scales both.
    chain = []
    if config.clip_norm > 0:
        chain.append(optax.clip_by_global_norm(config.clip_norm))
    chain.append(direction)
    for name in config.all_groups:
        if rate := weight_decay(config, name):
            chain.append(optax.add_decayed_weights(rate, _decayed(config, name)))
    chain.append(optax.scale_by_learning_rate(schedule))
    if any(group.lr_scale != 1 for group in config.all_groups.values()):
        chain.append(optax.stateless(functools.partial(_scaled, config)))
    return optax.chain(*chain), schedule


def weight_decay(config: OptimConfig, group: str) -> float:
    """The weight decay of a group."""
    own = config.all_groups[group].weight_decay
    return config.weight_decay if own is None else own


def _decayed(config: OptimConfig, group: str) -> Callable[[Any], Any]:
    """A mask for optax: params -> tree of bool, this group and no exempt ones."""

    def mask(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, decays: (
                decays and config.group_of(trees.path_string(path)) == group
            ),
            decay_mask(params, config.no_decay),
        )

    return mask


def _scaled(config: OptimConfig, updates: Any, params: Any) -> Any:
    del params

    def scale(path, update):
        group = config.all_groups[config.group_of(trees.path_string(path))]
        return update * group.lr_scale

    return jax.tree_util.tree_map_with_path(scale, updates)


def logged(
    config: OptimConfig, schedule: Schedule, grads: Mapping[str, jax.Array], step: Any
) -> dict[str, Any]:
    """Scalars of an optimiser to be logged.

    Args:
      config, schedule: of the optimiser.
      grads: parameter path -> gradient.
      step: updates done.

    Returns:
      {"lr": ..., "grad_norm/NAME": ..., and with groups "lr/NAME" and
      "weight_decay/NAME"}, NAME being a group, without groups a top-level module.
    """
    rate = schedule(step)
    found = {"lr": rate}
    members: dict[str, list[jax.Array]] = {}
    for path, grad in grads.items():
        name = config.group_of(path) if config.groups else path.split("/")[0]
        members.setdefault(name, []).append(grad)
    for name, its in members.items():
        if len(members) > 1:
            found[f"grad_norm/{name}"] = optax.global_norm(its)
        if config.groups:
            found[f"lr/{name}"] = rate * config.all_groups[name].lr_scale
            found[f"weight_decay/{name}"] = jnp.float32(weight_decay(config, name))
    return found
