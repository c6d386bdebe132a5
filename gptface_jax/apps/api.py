"""Edit a photo in a few lines; what `gptface_jax.load` returns."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from gptface_jax import __version__
from gptface_jax.apps import networks, pictures
from gptface_jax.apps.editing import Editor
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import image as images
from gptface_jax.data import regions
from gptface_jax.data.text import TextTokenizer
from gptface_jax.interop import directory
from gptface_jax.systems.gptface.decode import DecodeConfig

BUNDLED = pathlib.Path(__file__).parents[1] / "models"
Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Edit:
    """A finished edit.

    Attributes:
      image: the photo at its own resolution, edited; PIL image.
      before: the photo as decoded (orientation applied); PIL image.
      mask: bool [H,W], what was allowed to change.
      text: the sentence, "" for inpainting.
      itm_log_prob: log p(q=1) before each iteration (empty without guidance).
      final_log_prob: log p(q=1) of the finished tokens.
      details: what the sidecar holds: seed, options, model digest, ...
    """

    image: Image.Image
    before: Image.Image
    mask: np.ndarray
    text: str
    itm_log_prob: tuple[float, ...]
    final_log_prob: float
    details: Mapping[str, Any]

    def save(self, path: str | os.PathLike) -> list[pathlib.Path]:
        """Writes the picture, a before/mask/after strip and a JSON sidecar.

        The picture is marked as edited in its metadata. An earlier edit of the
        same name is replaced; nothing else is.

        Returns:
          The three paths: FILE.png, FILE.strip.png, FILE.json.

        Raises:
          UserError: the files cannot be written, or hold something else.
        """
        path, strip, sidecar = outputs(path)
        info = {"Comment": pictures.MARK, "gptface_jax": json.dumps(self.details)}
        pictures.save(np.asarray(self.image), path, info)
        after, before = np.asarray(self.image), np.asarray(self.before)
        shown = pictures.before_mask_after(before, self.mask, after, self.text)
        pictures.save(shown, strip, {"Comment": pictures.MARK})
        text = json.dumps(self.details, indent=2) + "\n"
        pictures.write(sidecar, lambda name: pathlib.Path(name).write_text(text))
        return [path, strip, sidecar]


def outputs(path: str | os.PathLike) -> tuple[pathlib.Path, ...]:
    """FILE.png -> FILE.png, FILE.strip.png, FILE.json, which `Edit.save` writes.

    Raises:
      UserError: FILE.json is no sidecar of an edit, or FILE exists without one.
    """
    path = pathlib.Path(path)
    strip, sidecar = path.with_suffix(".strip.png"), path.with_suffix(".json")
    try:
        ours = json.loads(sidecar.read_text())["edited"] is True
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    for taken in (sidecar, path, strip):
        if taken.exists() and not ours:
            raise UserError(
                f"'{taken}' exists and is not of an earlier edit; write to another name"
            )
    return path, strip, sidecar


def decode_options(values: Mapping[str, Any]) -> DecodeConfig:
    """Fields of `DecodeConfig`, the others at their defaults.

    Raises:
      UserError: an unknown option, or a value that makes no sense.
    """
    try:
        return from_mapping(DecodeConfig, values, "decode.")
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from None


class Model:
    """A VQGAN and a GPTFace that belong together."""

    def __init__(
        self,
        editor: Editor,
        digest: str,
        decode: DecodeConfig,
        card: str = "",
    ):
        self.editor, self.digest = editor, digest
        self.decode, self.card = decode, card

    def __repr__(self) -> str:
        return f"<gptface_jax.Model {self.digest}, {self.editor.size} px>"

    def reconstruct(self, image: images.Source) -> Image.Image:
        """The photo's central square through the VQGAN; [S,S] PIL image."""
        pixels = images.fit(images.decode(image), self.editor.size)[None]
        decoded = self.editor.vqgan.decode(self.editor.image_ids(pixels))
        return Image.fromarray(images.from_unit_range(decoded)[0])

    def edit(
        self,
        image: images.Source,
        text: str,
        mask: images.Source | None = None,
        *,
        box: Box | None = None,
        region: str | None = None,
        crop: Box | None = None,
        seed: int = 0,
        samples: int = 4,
        composite: bool = True,
        feather: int | None = None,
        grow: int = 0,
        **decode: Any,
    ) -> Edit:
        """Changes a region of a photo so that a sentence fits it.

        Args:
          image: path, encoded bytes, PIL image or uint8 array [H,W,3].
          text: the sentence.
          mask: picture of the photo's size, white = may change.
          box: (x0, y0, x1, y1) in pixels, instead of a mask.
          region: a name of `data.regions.REGIONS`, instead of a mask; needs a
            face that fills `crop` upright.
          crop: square (x0, y0, x1, y1) that the model sees; default the central
            square.
          seed: of the random choices; the same seed gives the same edit.
          samples: candidates; the one that fits the text best is returned.
          composite: paste the edit into the photo inside the mask only;
            otherwise the crop is the raw decode (the paper's way).
          feather: soft edge inside the mask, in pixels; default 1/32 of the crop.
          grow: tokens by which the mask is enlarged for the model (not for the
            compositing).
          **decode: fields of `DecodeConfig`, e.g. step_size=0.02, k=4.

        Raises:
          UserError: a picture, mask, text or option that cannot be used.
        """
        text = " ".join(str(text).split())
        if not text:
            raise UserError("the text is empty; say what to see, or use inpaint")
        slots = self.editor.gptface.config.layout.max_text_tokens
        ids = self.editor.tokenizer.encode([text], slots + 1)[0]
        words = ids[ids != self.editor.tokenizer.pad_id]
        if len(words) == 0 or (words == self.editor.tokenizer.unk_id).all():
            raise UserError(
                f"no word of the text '{text[:60]}' is known to this model; use plain "
                "English, e.g. 'a smiling woman with glasses'"
            )
        config = self.decode_config(decode)
        notes = []
        if len(words) > slots:
            notes.append(f"the text was cut to its first {slots} tokens")
        unknown = int((words == self.editor.tokenizer.unk_id).sum())
        if unknown:
            notes.append(f"{unknown} words of the text are unknown to the model")
        return self._run(
            image, text, (mask, box, region), crop, seed, samples, composite, feather,
            grow, config, notes,
        )  # fmt: skip

    def inpaint(
        self,
        image: images.Source,
        mask: images.Source | None = None,
        *,
        box: Box | None = None,
        region: str | None = None,
        crop: Box | None = None,
        seed: int = 0,
        composite: bool = True,
        feather: int | None = None,
        grow: int = 0,
        **decode: Any,
    ) -> Edit:
        """Fills a region without a text; arguments as for `edit`."""
        asked = decode.setdefault("guidance", "none")
        if asked != "none":
            raise UserError(
                f"guidance '{asked}' needs a text to follow; use edit, or inpaint "
                "without guidance"
            )
        config = self.decode_config(decode)
        return self._run(
            image, "", (mask, box, region), crop, seed, 1, composite, feather, grow,
            config, [],
        )  # fmt: skip

    def decode_config(self, changes: Mapping[str, Any]) -> DecodeConfig:
        """The model's decoder options with changes.

        Raises:
          UserError: an unknown option, or a value that makes no sense.
        """
        return decode_options({**dataclasses.asdict(self.decode), **changes})

    def _run(
        self, image, text, where, crop, seed, samples, composite, feather, grow,
        config, notes,
    ) -> Edit:  # fmt: skip
        if samples < 1:
            raise UserError(f"samples is {samples}; use 1 or more")
        if not 0 <= seed < 2**32:
            raise UserError(f"seed is {seed}; use 0 to {2**32 - 1}")
        if config.side != "image":
            raise UserError(f"side is '{config.side}'; a picture's edit has 'image'")
        photo = images.decode(image)
        x0, y0, x1, y1 = _crop_box(crop, photo.shape[:2])
        mask, said = _mask(where, photo.shape[:2], (x0, y0, x1, y1))
        size = self.editor.size
        inside = mask[y0:y1, x0:x1]
        small_mask = images.pixels_to_tokens(inside, (size, size))
        small = images.shrink_hidden(photo[y0:y1, x0:x1], inside, (size, size))
        batch = self.editor.edit(
            small[None],
            small_mask[None],
            [text],
            config,
            jax.random.key(seed)[None],
            samples=samples,
            grow=grow,
        )
        side = x1 - x0
        patch = images.resize(batch.images[0], (side, side))
        edited = photo.copy()
        if composite:
            feather = max(1, side // 32) if feather is None else feather
            patch = images.composite(photo[y0:y1, x0:x1], patch, inside, feather)
        edited[y0:y1, x0:x1] = patch
        scores = batch.itm_log_prob[0]
        scores = tuple(round(float(s), 6) for s in scores[~np.isnan(scores)])
        details = {
            "edited": True,
            "software": f"gptface_jax {__version__}",
            "model": self.digest,
            "text": text,
            "seed": seed,
            "samples": samples,
            "mask": {**said, "pixels": int(mask.sum())},
            "crop": [x0, y0, x1, y1],
            "tokens": int(batch.open_tokens[0].sum()),
            "iterations": int(batch.num_iterations[0]),
            "itm_log_prob": list(scores),
            "final_log_prob": round(float(batch.final_log_prob[0]), 6),
            "composite": composite,
            "decode": dataclasses.asdict(config),
            "notes": notes,
        }
        return Edit(
            image=Image.fromarray(edited),
            before=Image.fromarray(photo),
            mask=mask,
            text=text,
            itm_log_prob=scores,
            final_log_prob=float(batch.final_log_prob[0]),
            details=details,
        )


def _crop_box(crop: Box | None, size: tuple[int, int]) -> Box:
    height, width = size
    if crop is None:
        side = min(height, width)
        x0, y0 = (width - side) // 2, (height - side) // 2
        return x0, y0, x0 + side, y0 + side
    x0, y0, x1, y1 = crop = _box(crop, "crop")
    regions.box_mask(crop, size)  # refuses a box that does not fit
    if x1 - x0 != y1 - y0:
        raise UserError(
            f"crop {x0},{y0},{x1},{y1} is {x1 - x0} x {y1 - y0}; give a square"
        )
    return crop


def _box(values: Any, name: str) -> Box:
    box = tuple(values)
    if len(box) != 4 or not all(isinstance(v, (int, np.integer)) for v in box):
        raise UserError(f"{name} is {values!r}; give (x0, y0, x1, y1), whole numbers")
    return box


def _mask(where, size, crop) -> tuple[np.ndarray, dict[str, Any]]:
    """The mask in the photo's pixels, and how it was given."""
    mask, box, region = where
    given = [w for w in where if w is not None]
    if len(given) != 1:
        raise UserError(
            f"{len(given)} of mask, box and region are given; give exactly one"
        )
    x0, y0, x1, y1 = crop
    if region is not None:
        result = np.zeros(size, bool)
        result[y0:y1, x0:x1] = regions.region_mask(region, x1 - x0)
        said: dict[str, Any] = {"region": region}
    elif box is not None:
        box = _box(box, "box")
        result, said = regions.box_mask(box, size), {"box": [int(v) for v in box]}
    else:
        result = images.decode_mask(mask, size)
        said = {"picture": hashlib.sha256(np.packbits(result)).hexdigest()[:16]}
        if isinstance(mask, (str, os.PathLike)):
            said["file"] = pathlib.Path(mask).name
    inside = result[y0:y1, x0:x1]
    if result.sum() != inside.sum():
        raise UserError(
            f"{int(result.sum() - inside.sum())} masked pixels lie outside the square "
            f"{x0},{y0},{x1},{y1} that the model sees; mask less or give --crop"
        )
    if not inside.any():
        raise UserError(
            f"region '{region}' holds no pixel of a square of {x1 - x0}; give a larger "
            "photo"
        )
    if inside.all():
        raise UserError(
            "the mask covers the whole picture; leave something for the model to fit "
            "the edit to"
        )
    return result, said


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    if not BUNDLED.is_dir():
        return []
    return sorted(p.name for p in BUNDLED.iterdir() if (p / "config.json").is_file())


def _locate(source: str | os.PathLike) -> pathlib.Path:
    name = os.fspath(source)
    if name in bundled():
        return BUNDLED / name
    path = pathlib.Path(name).expanduser()
    if path.is_dir():
        return path
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        try:
            from huggingface_hub import snapshot_download

            return pathlib.Path(snapshot_download(name))
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"'{name}' is no folder here, and as a hub id it cannot be fetched "
                f"({reason}); check the name and the network"
            ) from None
    known = bundled()
    raise UserError(
        f"model '{name}' not found{nearest(name, known)}; bundled: "
        f"{', '.join(known) or 'none'}; or give a model directory, a training run or a "
        "hub id"
    )


def load(
    source: str | os.PathLike = "demo", *, tokenizer: str | os.PathLike | None = None
) -> Model:
    """Opens a model.

    Args:
      source: a bundled name, a model directory, the work folder of a GPTFace
        training run, or a hub id.
      tokenizer: for a training run, the VQGAN's run or model directory.

    Raises:
      UserError: nothing there, damaged files, or networks that do not belong
        together.
    """
    path = _locate(source)
    gptface = networks.open_network(path, "gptface")
    if not networks.is_run(path):
        vqgan = networks.open_network(path, "vqgan")
        text = TextTokenizer.from_vocab_text(directory.read_vocab(path))
        decode = decode_options(gptface.meta.get("decode", {}))
        card = path / "README.md"
        described = card.read_text("utf-8") if card.is_file() else ""
        digest = f"{vqgan.digest}-{gptface.digest}"
        return Model(Editor(vqgan, gptface, text), digest, decode, described)
    if tokenizer is None:
        raise UserError(
            f"'{path}' is a training run of the transformer alone; give its VQGAN as "
            "tokenizer= (--tokenizer)"
        )
    vqgan = networks.open_network(tokenizer, "vqgan")
    check_pair(vqgan, gptface, path)
    files = gptface.meta["extra_files"]
    text = TextTokenizer.from_vocab_text(files["vocab.txt"].decode())
    match = gptface.config.match_token
    digest = f"{vqgan.digest}-{gptface.digest}"
    return Model(Editor(vqgan, gptface, text), digest, DecodeConfig(match_token=match))


def check_pair(vqgan, gptface, path) -> None:
    """Refuses a GPTFace run whose token cache another tokenizer made."""
    manifest = gptface.meta["extra_files"].get("manifest.json")
    made_by = json.loads(manifest)["tokenizer_digest"] if manifest else None
    if made_by != vqgan.codes_digest:
        raise UserError(
            f"'{path}' was trained on ids of tokenizer {made_by}, not "
            f"{vqgan.codes_digest}; give the tokenizer that made its token cache"
        )
