"""The VQGAN tokenizer: objective and training (SPEC A.2.1)."""

from gptface_jax.systems.vqgan.objective import (
    HolesConfig,
    Painter,
    Perceptual,
    PerceptualConfig,
    VQGANObjective,
)
from gptface_jax.systems.vqgan.system import (
    DISCRIMINATOR,
    make_system,
    without_discriminator,
)

__all__ = [
    "DISCRIMINATOR",
    "HolesConfig",
    "Painter",
    "Perceptual",
    "PerceptualConfig",
    "VQGANObjective",
    "make_system",
    "without_discriminator",
]
