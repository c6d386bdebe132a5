"""How targets are drawn (SPEC B.9)."""

from __future__ import annotations

import dataclasses

from gptface_jax.nn.prefix_lm import PrefixLMConfig

MODALITIES = ("image", "text")


@dataclasses.dataclass(frozen=True)
class GenerateConfig:
    """How targets are drawn.

    Attributes:
      modality: "image" draws image codes only and exactly as many as an image has;
        "text" draws words and [SEP], at which it stops.
      max_tokens: of a text, its [SEP] among them.
      temperature: that divides the logits; 0 takes the likeliest (greedy).
      density: of image codes, as of GPTFace's `DecodeConfig`: the temperature acts on
        probability per volume of the codebook's space; 0 turns it off.
      top_k, top_p: see `ops.sampling.keep_likely`; 0 for all. The released model's
        are 70 and 0.
      cached: False runs the whole sequence for every token: for tests and comparisons.
    """

    modality: str = "image"
    max_tokens: int = 64
    temperature: float = 1.0
    density: float = 0.0
    top_k: int = 70
    top_p: float = 0.0
    cached: bool = True

    def __post_init__(self):
        if self.modality not in MODALITIES:
            raise ValueError(
                f"modality {self.modality!r} is none of {', '.join(MODALITIES)}"
            )
        for name, least, most in (
            ("max_tokens", 1, None),
            ("temperature", 0, None),
            ("density", 0, None),
            ("top_k", 0, None),
            ("top_p", 0, 1),
        ):
            value = getattr(self, name)
            if not (least <= value and (most is None or value <= most)):
                limits = f"{least} to {most}" if most else f"from {least} on"
                raise ValueError(f"{name} is {value}; use a number {limits}")

    def length(self, model: PrefixLMConfig) -> int:
        """T, most tokens of a target."""
        return model.num_image_tokens if self.modality == "image" else self.max_tokens
