"""Whole pictures out of nothing, or out of a sentence (SPEC A.12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.pipelines.editing_model import EditingModel
from gptface_jax.pipelines.results import Samples
from gptface_jax.pipelines.user_input import key_of


def sample(
    model: EditingModel, count: int, text: str, seed: int, decode: Mapping[str, Any]
) -> Samples:
    """`count` pictures after a sentence, or after none for "".

    Raises:
      UserError: an option that cannot be used.
    """
    if count < 1:
        raise UserError(f"count is {count}; use 1 or more")
    config = model.decode_config(decode) if text else model.unsteered_config(decode)
    root = key_of(seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(np.arange(count))
    drawn = model.editor.sample([text] * count, config, keys)
    details = model.details(False, text, seed, config)
    details |= {"mask": {"whole": True}, "grid": list(model.grid)}
    return Samples([Image.fromarray(x) for x in drawn], details)
