"""A trained GPTFace opened for inference, and what it takes over from its run."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any, TypeVar

from gptface_jax.core.errors import UserError
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import opening
from gptface_jax.interop import directory
from gptface_jax.pipelines import networks
from gptface_jax.pipelines.editing_model import EditingModel, decode_options
from gptface_jax.pipelines.editor import Editor

Model = TypeVar("Model", bound=EditingModel)


def open_model(
    kind: type[Model], path: pathlib.Path, tokenizer: Any, dtype: str | None
) -> Model:
    """A GPTFace with its tokenizer from a folder.

    Args:
      kind: the class that they are opened as.
      path: a model directory, or the work folder of a run.
      tokenizer, dtype: see `apps.api.load`.

    Raises:
      UserError: damaged files, or networks that do not belong together.
    """
    gptface = opening.open_network(path, "gptface")
    if not networks.is_run(path):
        vqgan = opening.open_network(path, "vqgan")
        text = TextTokenizer.from_vocab_text(directory.read_vocab(path))
        decode = decode_options(gptface.meta.get("decode", {}))
        card = path / "README.md"
        described = card.read_text("utf-8") if card.is_file() else ""
        digest = f"{vqgan.digest}-{gptface.digest}"
        editor = Editor(vqgan, gptface, text, dtype=dtype)
        said = (gptface.meta.get(key) for key in ("frame", "attributes"))
        return kind(editor, digest, decode, described, *said)
    vqgan = vqgan_of_run(gptface, tokenizer, path)
    files = gptface.meta["extra_files"]
    text = TextTokenizer.from_vocab_text(files["vocab.txt"].decode())
    digest = f"{vqgan.digest}-{gptface.digest}"
    editor = Editor(vqgan, gptface, text, dtype=dtype)
    decode = decode_options(learnt_options(gptface))
    return kind(editor, digest, decode, frame=learnt_frame(gptface))


def learnt_frame(gptface: networks.Network) -> Any:
    """The frame of the pictures of a run's token cache, or None.

    Of a FaceGPT that of the pairs, in which it edits.
    """
    manifest = gptface.meta["extra_files"].get("manifest.json")
    known = json.loads(manifest) if manifest else {}
    return known.get("pairs_frame", known.get("frame"))


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


def with_learnt_options(gptface: networks.Network) -> networks.Network:
    """The part of a larger model, which decodes as suits its training.

    Args:
      gptface: as `opening.as_part` gives it.
    """
    meta = gptface.meta
    if "training" not in meta or "decode" in meta:
        return gptface
    run = dataclasses.replace(gptface, meta={"config": meta["training"]["gptface"]})
    return dataclasses.replace(gptface, meta={**meta, "decode": learnt_options(run)})


def vqgan_of_run(network: networks.Network, given: Any, path: Any) -> networks.Network:
    """The VQGAN of a run's codes.

    Args:
      network: of the run.
      given: where it is; default what the run's config says (`data.tokenizer`).
      path: of the run, for messages.

    Raises:
      UserError: neither says, or it is another one.
    """
    given = given or network.meta["config"]["data"].get("tokenizer")
    if not given:
        raise UserError(
            f"'{path}' is a training run of the transformer alone; give its VQGAN as "
            "tokenizer= (--tokenizer)"
        )
    vqgan = opening.open_network(given, "vqgan")
    check_pair(vqgan, network, path)
    return vqgan


def check_pair(vqgan, gptface, path) -> None:
    """Refuses a GPTFace run whose token cache another tokenizer made."""
    manifest = gptface.meta["extra_files"].get("manifest.json")
    made_by = json.loads(manifest)["tokenizer_digest"] if manifest else None
    if made_by != vqgan.codes_digest:
        if made_by is None:
            raise UserError(
                f"'{path}' was trained on no VQGAN's ids, as :tiny is without a token "
                "cache: nothing draws them; train on what `gptface tokenize` wrote"
            )
        raise UserError(
            f"'{path}' was trained on ids of tokenizer {made_by}, not "
            f"{vqgan.codes_digest}; give the tokenizer that made its token cache"
        )
