"""3D morphable face models: meshes that are linear in a few coefficients (SPEC D.2)."""

from gptface_jax.data.facemodel.model import FaceModel
from gptface_jax.data.facemodel.opening import open_model

__all__ = ["FaceModel", "open_model"]
