"""What a VQGAN is trained for: options, and the losses that need no adversary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.nn.adversary import DiscriminatorConfig
from gptface_jax.ops import adversarial, pictures, quantize


@dataclasses.dataclass(frozen=True)
class PerceptualConfig:
    """A distance in the feature space of a trained network.

    Attributes:
      weight: of the distance in the loss; 0 for none.
      network: "lpips": VGG-16 with the heads of Zhang et al. 2018, whose weights
        `path` names in one of their usual forms; "classifier": the features of a
        classifier trained by this project (`configs/judge`), `path` is its run;
        "efficientnet_lite0": a small classifier of ImageNet, whose weights the extra
        `features` installs (`path` is a file of them instead).
      path: where the weights are.
      depths: how much the feature maps count, from the shallowest on; all alike by
        default. Not of "lpips", which has learnt that.
      dtype: of the network's activations.
    """

    weight: float = 0.0
    network: str = "classifier"
    path: str = ""
    depths: tuple[float, ...] = ()
    dtype: str = "float32"

    def __post_init__(self):
        if self.depths and (min(self.depths) < 0 or not any(self.depths)):
            raise ValueError(
                f"objective.perceptual.depths are {self.depths}; use numbers from 0 "
                "on, at least one above it"
            )


@dataclasses.dataclass(frozen=True)
class FaceMapConfig:
    """Parts of a face that count more than the rest in comparisons of pictures.

    Needs records with 68 landmarks, as `gptface prepare --upright` and drawn faces have
    them; in a picture without any, all pixels count alike. See `ops.face_map`.

    Attributes:
      eyes, mouth, brows: how many times they count; 1, 1, 1 for no map.
      radius: around each landmark, as a share of the distance between the eyes.
    """

    eyes: float = 1.0
    mouth: float = 1.0
    brows: float = 1.0
    radius: float = 0.12

    def __post_init__(self):
        if min(self.eyes, self.mouth, self.brows) < 1.0 or self.radius <= 0.0:
            raise ValueError(
                f"objective.face_map is {dataclasses.asdict(self)}; eyes, mouth and "
                "brows count 1 time or more, and the radius is above 0"
            )

    def __bool__(self) -> bool:
        return max(self.eyes, self.mouth, self.brows) > 1.0


@dataclasses.dataclass(frozen=True)
class HolesConfig:
    """Masks that a decoder with `condition_channels` is trained with; see `ops.holes`.

    Where records have no 68 landmarks, no hole is a part of the face.

    Attributes:
      inside: how many times hidden pixels count beside known ones.
      everything: share of the pictures of which nothing is known, as in plain decoding.
      brightness, contrast, colour, sharpness: by how much, at most, the picture whose
        codes are decoded differs within the hole from the one to be painted.
      drawn: share of the pictures whose codes in the hole the transformer draws.
      model: its run or model directory.
      temperature: at which it draws.
    """

    inside: float = 5.0
    everything: float = 0.2
    brightness: float = 0.25
    contrast: float = 0.35
    colour: float = 0.12
    sharpness: float = 1.0
    drawn: float = 0.0
    model: str = ""
    temperature: float = 0.5

    def __post_init__(self):
        if self.inside <= 0 or not 0 <= self.everything <= 1 >= self.drawn >= 0:
            raise ValueError(
                f"objective.holes has inside {self.inside}, everything "
                f"{self.everything} and drawn {self.drawn}; the first is above 0, the "
                "others are shares from 0 to 1"
            )


@dataclasses.dataclass(frozen=True)
class AdversaryConfig:
    """The discriminator's part. Fractions are of the whole run.

    Attributes:
      weight: how steep the adversarial slope is beside the reconstruction's at the
        decoder's last weights (0.8 as published); 0 for no discriminator.
      adaptive: whether `weight` means that, or is the plain weight of the loss.
      loss: "hinge" or "vanilla".
      start: from here on the generator is trained against the discriminator.
      ramp: over this fraction the adversarial weight grows to its full value.
      warmup: for this long before `start` the discriminator learns alone.
      hold_below: the discriminator pauses while its average loss is below this share
        of its loss at chance, until the decoder has caught up; 0 for never.
      r1: weight of the gradient penalty on photographs.
      won_below: the run stops when the discriminator's average loss falls below
        this share of its loss at chance; 0 for never.
      ruined_above: the run stops when the average L1 is above this multiple of what
        it was at `start`; 0 for never.
      discriminator: the network.
    """

    weight: float = 0.0
    adaptive: bool = True
    loss: str = "hinge"
    start: float = 0.3
    ramp: float = 0.05
    warmup: float = 0.02
    hold_below: float = 0.0
    r1: float = 0.0
    won_below: float = 0.03
    ruined_above: float = 1.5
    discriminator: DiscriminatorConfig = DiscriminatorConfig()

    def __post_init__(self):
        if self.loss not in adversarial.LOSSES:
            raise ValueError(
                f"objective.adversary.loss is {self.loss!r}; use one of "
                f"{adversarial.LOSSES}"
            )
        for name in ("start", "ramp", "warmup"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"objective.adversary.{name} is {getattr(self, name)}; it is a "
                    "fraction of the run, 0 to 1"
                )


@dataclasses.dataclass(frozen=True)
class VQGANObjective:
    """Weights of the losses and the care of the codebook.

    Attributes:
      trainable: "all", or "decoder": encoder and codebook stay as they are
        (`init_from` of the config says whose), and so do the codes of every picture,
        token caches, and transformers trained on them.
      l1, l2: of pixel differences in [-1,1].
      gradient: of differences of finite differences, mean over `scales`.
      scales: pyramid levels of the gradient term (each halves the picture).
      codebook: of the codebook loss.
      beta, beta_on_codebook: see `ops.quantize.codebook_loss`.
      entropy, entropy_temperature: bonus on the use of all codes, see
        `ops.quantize.entropy_loss`.
      code_gradient: how the slope at a code reaches the latent that it stands for:
        "straight_through" as it is, or by "rotation" with the latent (arXiv
        2410.06424); see `ops.quantize`.
      perceptual: distance in a feature space.
      face_map: what of a face these and the terms of pixels count more.
      holes: what a decoder learns that sees photographs.
      adversary: the discriminator and when it counts.
      usage_decay: of the moving average of code counts.
      revive_every: steps between revivals of unused codes; 0 for never.
      revive_from, revive_until: fractions of the run in which codes are revived.
      revive_threshold: codes with a smaller share of the mean usage are moved.
      num_candidates: encoder outputs of a batch kept for revival.
    """

    trainable: str = "all"
    l1: float = 1.0
    l2: float = 0.0
    gradient: float = 0.5
    scales: int = 3
    codebook: float = 1.0
    beta: float = 0.25
    beta_on_codebook: bool = False
    entropy: float = 0.0
    entropy_temperature: float = 0.01
    code_gradient: str = "straight_through"
    perceptual: PerceptualConfig = PerceptualConfig()
    face_map: FaceMapConfig = FaceMapConfig()
    holes: HolesConfig = HolesConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    usage_decay: float = 0.98
    revive_every: int = 0
    revive_from: float = 0.0
    revive_until: float = 0.8
    revive_threshold: float = 0.03
    num_candidates: int = 1024

    def __post_init__(self):
        if self.trainable not in ("all", "decoder"):
            raise ValueError(
                f"objective.trainable is {self.trainable!r}; use 'all' or 'decoder'"
            )
        if self.code_gradient not in quantize.GRADIENTS:
            raise ValueError(
                f"objective.code_gradient is {self.code_gradient!r}; use one of "
                f"{tuple(quantize.GRADIENTS)}"
            )
        if self.trainable == "decoder" and self.revive_every:
            raise ValueError(
                f"objective.revive_every is {self.revive_every} and would move codes; "
                "set it to 0 where only the decoder is trained"
            )


@dataclasses.dataclass(frozen=True)
class Painter:
    """A frozen transformer that draws codes.

    Attributes:
      params: its weights, a constant of the System: read again at every start, and
        never saved.
      draw: (params, image_ids int32 [B,h,w], is_open bool [B,h,w], key) -> image_ids
        whose open tokens are drawn anew.
    """

    params: Any
    draw: Callable[..., jax.Array]


@dataclasses.dataclass(frozen=True)
class Perceptual:
    """A frozen network that compares pictures.

    Attributes:
      name: of the distance in logs: "lpips", "face_features" or the network's own.
      params: its weights, a constant of the System: read again at every start, and
        never saved.
      distance: (params, image, target [B,H,W,3] in [-1,1]) -> float32 [B]; with a face
        map behind them [B,H,W], by what that counts.
    """

    name: str
    params: Any
    distance: Callable[..., jax.Array]


def picture_losses(
    objective: VQGANObjective,
    perceptual: Perceptual | None,
    perceptual_params: Any,
    reconstruction: jax.Array,
    image: jax.Array,
    counts: jax.Array | None = None,
    paste: Callable[[jax.Array], jax.Array] = lambda image: image,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The losses that compare the reconstruction with the photograph.

    Args:
      counts: [B,H,W], how much each pixel counts, 1 on average; all alike by default.
      paste: reconstruction -> the picture that people see, whose features count.

    Returns:
      (weighted sum, {"l1", "l2", "gradient", the perceptual distance's name}).
    """
    difference = reconstruction - image
    more = () if counts is None else (counts,)

    def mean(values):
        return jnp.mean(values if counts is None else values * counts[..., None])

    parts = {
        "l1": mean(jnp.abs(difference)),
        "l2": mean(jnp.square(difference)),
        "gradient": pictures.gradient_loss(
            reconstruction, image, objective.scales, *more
        ),
    }
    loss = sum(getattr(objective, name) * value for name, value in parts.items())
    if perceptual is not None:
        seen = paste(reconstruction)
        distance = perceptual.distance(perceptual_params, seen, image, *more)
        parts[perceptual.name] = jnp.mean(distance)
        loss += objective.perceptual.weight * parts[perceptual.name]
    return loss, parts
