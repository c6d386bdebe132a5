"""FaceGPT (arXiv 2406.07163): 3D faces in the token space, learnt by rendering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Evaluation, Feed, Phase, System
from gptface_jax.systems.facegpt import held_out, objective
from gptface_jax.systems.facegpt.model import FaceGPT, FaceGPTConfig
from gptface_jax.systems.facegpt.objective import ObjectiveConfig, Terms

__all__ = ["FaceGPT", "FaceGPTConfig", "ObjectiveConfig", "make_system"]


def make_system(
    config: Mapping[str, Any],
    basis: Mapping[str, Any],
    feeds: Mapping[str, int],
    image_size: int,
    encode: objective.Encode | None = None,
    constants: Mapping[str, Any] | None = None,
    module: FaceGPT | None = None,
) -> System:
    """The trainable system of an experiment config.

    Args:
      config: mapping with `model` (FaceGPTConfig), `objective` (ObjectiveConfig) and
        `total_steps`.
      basis: arrays of the face model, see `ops.morphable`.
      feeds: batch size of "rendered" (truth is known), and of "photos" where there are
        any.
      image_size: side of the pictures in batches.
      encode: pictures -> codes by `constants`, see `objective.Terms`; None where
        batches hold "image_ids".
      constants: of `encode`.
      module: the model, where a larger one has its parameters as well.
    """
    if module is None:
        module = FaceGPT(from_mapping(FaceGPTConfig, config["model"], "model."))
    model = module.config
    wanted = from_mapping(ObjectiveConfig, config["objective"], "objective.")
    _check(model, basis)
    terms = Terms(module, wanted, encode, config["total_steps"])
    floats = {
        "image": (image_size, image_size, 3), "landmarks": (68, 2),
        "landmark_mask": (68,), "known": (),
        "id_coeffs": (model.faces.identity,), "exp_coeffs": (model.faces.expression,),
        "albedo_coeffs": (model.faces.albedo,), "sh_light": (9, 3), "pose": (6,),
    }  # fmt: skip
    spec = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in floats.items()}
    words = {"text_ids": model.layout.max_text_tokens}
    if encode is None:
        words["image_ids"] = model.layout.num_image_tokens
    spec |= {n: jax.ShapeDtypeStruct((s,), jnp.int32) for n, s in words.items()}

    def init(key):
        tokens = jnp.zeros((1, model.layout.length), jnp.int32)
        return module.init(key, tokens, method="init_faces")["params"]

    return System(
        name="facegpt",
        init=init,
        feeds={name: Feed(spec, size) for name, size in feeds.items()},
        phases=(Phase("", ".*", objective.make_loss(terms, tuple(feeds))),),
        evaluations={"faces": Evaluation(held_out.make_eval(terms), spec)},
        constants={"basis": dict(basis), **(constants or {})},
        unit="images",
        resumable=("data.tokenizer", "model.layout.multiple_of"),
    )


def _check(model: FaceGPTConfig, basis: Mapping[str, Any]) -> None:
    """Refuses a face model of other sizes than the network's heads."""
    for name in ("identity", "expression", "albedo"):
        given, wanted = len(basis[name]), getattr(model.faces, name)
        if given != wanted:
            raise ValueError(
                f"the face model has {given} {name} modes and model.faces.{name} is "
                f"{wanted}; set it to {given}"
            )
