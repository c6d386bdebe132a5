"""What inference takes over from a GPTFace run: frame, options, its tokenizer's ids."""

from __future__ import annotations

import json
from typing import Any

from gptface_jax.core.errors import UserError
from gptface_jax.pipelines import networks


def learnt_frame(gptface: networks.Network) -> Any:
    """The frame of the pictures of a run's token cache, or None."""
    manifest = gptface.meta["extra_files"].get("manifest.json")
    return json.loads(manifest).get("frame") if manifest else None


def learnt_options(gptface: networks.Network) -> dict[str, Any]:
    """The decoder options that suit what a training run has learnt.

    One that saw pictures without texts is steered by classifier-free guidance, which
    beats the gradient at equal cost (docs/results.md); another by the gradient.
    """
    config = gptface.meta["config"]
    captions = config["data"].get("captions", {})
    without = captions.get("empty_fraction") or config["objective"].get("null_fraction")
    steered = {"guidance": "none", "cfg": 2.0} if without else {}
    return {"match_token": gptface.config.match_token, **steered}


def check_pair(vqgan, gptface, path) -> None:
    """Refuses a GPTFace run whose token cache another tokenizer made."""
    manifest = gptface.meta["extra_files"].get("manifest.json")
    made_by = json.loads(manifest)["tokenizer_digest"] if manifest else None
    if made_by != vqgan.codes_digest:
        raise UserError(
            f"'{path}' was trained on ids of tokenizer {made_by}, not "
            f"{vqgan.codes_digest}; give the tokenizer that made its token cache"
        )
