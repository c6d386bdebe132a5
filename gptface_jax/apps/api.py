"""Edit a photo in a few lines; what `gptface_jax.load` returns."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import importlib
import inspect
import json
import math
import os
import pathlib
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from gptface_jax import __version__
from gptface_jax.core import arguments, compiled, files
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.data import blending, image_io, tone
from gptface_jax.data import damage as defects
from gptface_jax.data import image as images
from gptface_jax.data import photo as photos
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import opening, registry
from gptface_jax.interop import directory
from gptface_jax.pipelines import (
    captioning,
    framing,
    networks,
    pictures,
    provenance,
    region_proposal,
)
from gptface_jax.pipelines import faces as face_finding
from gptface_jax.pipelines.editor import Batch, Editor, Request
from gptface_jax.pipelines.faces import Face
from gptface_jax.systems.gptface.options import DecodeConfig

Box = framing.Box
_UNSTEERED = {"guidance": "none", "cfg": 1.0, "cfg_end": None}
_FORWARDS = 16  # an iteration, of all candidates of an edit
SEAMS = ("vertical", "horizontal")
BORDERS = 30  # levels; more of it makes edits less of what was asked for
# Asks for one picture after the other to be resampled, and ends with the Edit.
Steps = Generator[Request, Batch, "Edit"]


@dataclasses.dataclass(frozen=True)
class Edit:
    """A finished edit.

    Attributes:
      image: the photo at its own resolution, edited; PIL image in sRGB, with the
        photo's transparency where it has any.
      before: the photo as decoded (orientation applied); PIL image.
      mask: bool [H,W], what was allowed to change.
      committed_at: int32 [h,w], iteration that drew a token of the square
        `details["crop"]`, -1 for known ones; of several squares the last one's.
      text: the sentence, "" for inpainting.
      itm_log_prob: log p(q=1) before each iteration (empty without guidance).
      final_log_prob: log p(q=1) of the finished tokens.
      details: what the sidecar holds: seed, options, model digest, ...
      photo: what was given first, with what `save` keeps of its file.
    """

    image: Image.Image
    before: Image.Image
    mask: np.ndarray
    committed_at: np.ndarray
    text: str
    itm_log_prob: tuple[float, ...]
    final_log_prob: float
    details: Mapping[str, Any]
    photo: photos.Photo | None = None

    def losses(self, path: str | os.PathLike) -> list[str]:
        """What the file's format cannot hold of the photo, in words."""
        flat = pictures.check(path) == "JPEG" and self.image.mode == "RGBA"
        return ["JPEG has no transparency: the photo lies on white"] if flat else []

    def save(
        self, path: str | os.PathLike, *, strip: bool = True
    ) -> list[pathlib.Path]:
        """Writes the picture, a before/mask/after strip and a JSON sidecar.

        The picture is marked as edited in its metadata, and has the photo's colour
        profile, resolution, camera and date; its place only with `keep_location`. An
        earlier edit of the same name is replaced; nothing else is.

        Args:
          path: FILE.png (exact), FILE.jpg or FILE.webp.
          strip: write the strip too.

        Returns:
          The paths: FILE.png, FILE.strip.png where it is written, FILE.json.

        Raises:
          UserError: the files cannot be written, or hold something else.
        """
        path, beside, sidecar = outputs(path)
        notes = [*self.details.get("notes", ()), *self.losses(path)]
        details = {**self.details, "notes": notes} if notes else self.details
        written = self.photo.as_stored(self.image) if self.photo else self.image
        if not strip:
            save_with_sidecar(written, path, details)
            return [path, sidecar]
        after, before = image_io.decode(self.image), np.asarray(self.before)
        shown = pictures.before_mask_after(before, self.mask, after, self.text)
        also = {beside: pictures.saver(shown, beside, details)}
        save_with_sidecar(written, path, details, also)
        return [path, beside, sidecar]


class Samples(list):
    """Pictures out of nothing, PIL images [S,S].

    Attributes:
      details: what the sidecar holds: seed, options, model digest, ...
    """

    def __init__(self, images: Sequence[Image.Image], details: Mapping[str, Any]):
        super().__init__(images)
        self.details = details

    def save(self, path: str | os.PathLike, columns: int = 8) -> list[pathlib.Path]:
        """Writes them on one sheet, marked as drawn, and a JSON sidecar.

        Returns:
          The two paths: FILE.png, FILE.json.

        Raises:
          UserError: the files cannot be written, or hold something else.
        """
        path, _, sidecar = outputs(path)
        columns = min(columns, len(self))
        drawn = [np.asarray(image) for image in self]
        sheet = pictures.sheet(drawn, columns)
        everywhere = _rows(np.ones(self.details["grid"], bool))
        places = pictures.cells(len(self), columns)
        squares = [{"crop": list(box), "open": everywhere} for box in places]
        size = list(sheet.shape[1::-1])
        details = {**self.details, "size": size, "squares": squares}
        save_with_sidecar(sheet, path, details)
        return [path, sidecar]


def save_with_sidecar(
    image: np.ndarray | Image.Image,
    path: pathlib.Path,
    details: Mapping[str, Any],
    also: Mapping[pathlib.Path, Callable[[str], Any]] | None = None,
) -> None:
    """Writes a picture that a model made, its sidecar beside it, and what `also` says:
    see `pictures.write_together`."""
    details = {"file": path.name, **details}
    text = json.dumps(details, indent=2) + "\n"
    # The sidecar first: whatever stops this, the rest may be written again.
    pictures.write_together(
        {
            provenance.beside(path)[1]: lambda name: pathlib.Path(name).write_text(
                text
            ),
            path: pictures.saver(image, path, details),
            **(also or {}),
        }
    )


def outputs(path: str | os.PathLike) -> tuple[pathlib.Path, ...]:
    """FILE.png -> FILE.png, FILE.strip.png, FILE.json, which `Edit.save` writes.

    The two have FILE.png for FILE where FILE.json is of FILE.jpg.

    Raises:
      UserError: FILE.json is no sidecar of ours, FILE exists without one, an ending
        that is no format, or a folder that cannot be written.
    """
    path = pathlib.Path(path)
    pictures.check(path)
    strip, sidecar = provenance.beside(path)
    ours = provenance.read_sidecar(path) is not None
    for taken in (sidecar, path, strip):
        if taken.exists() and not ours:
            raise UserError(
                f"'{taken}' exists and is not of an earlier edit; write to another name"
            )
    try:
        files.check_place(path)
    except OSError as error:
        raise UserError(
            f"cannot write '{path}': {error.strerror} ('{error.filename}'); write to "
            "another folder"
        ) from None
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


def _at_once(steps: Callable[..., Steps]) -> Callable[..., Edit]:
    """A method of what asks for pictures: each is resampled as soon as asked for.

    The method's attribute `steps` is what asks, for whoever answers many at once. Its
    first argument may be an Edit; the details of an edited photo go on in "chain", and
    what its file holds besides pixels in the Edit's `photo`.
    """
    signature = inspect.signature(steps)
    first = list(signature.parameters)[1]

    @functools.wraps(steps)
    def chained(*args, **kwargs) -> Steps:
        call = signature.bind(*args, **kwargs)
        source = call.arguments[first]
        if isinstance(source, Edit):
            call.arguments[first] = source.image
        given = arguments.bound(steps, call.args, call.kwargs, DecodeConfig)
        if isinstance(source, Edit):
            photo, earlier = photos.read(source.image), source.details
            kept = source.photo
        else:
            source, located = given[first], given.get("keep_location", False)
            photo = kept = photos.read(source, keep_location=located)
            earlier = provenance.details_of(source)
        given[first] = photo.pixels
        edit = yield from steps(**given)
        image = photo.edited(np.asarray(edit.image))
        edit = dataclasses.replace(edit, image=image, photo=kept or photo)
        if earlier:
            own = {k: v for k, v in earlier.items() if k != "chain"}
            chain = [*earlier.get("chain", ()), own]
            edit = dataclasses.replace(edit, details={**edit.details, "chain": chain})
        return edit

    @functools.wraps(steps)
    def method(model: Model, *args, **kwargs) -> Edit:
        work = chained(model, *args, **kwargs)
        answer = None
        seen = model.editor.has_answered
        with contextlib.nullcontext() if seen else compiled.tracing():
            while True:
                try:
                    request = work.send(answer)
                except StopIteration as end:
                    return end.value
                answer = model.editor.answer([request])[0]

    method.steps = chained
    method.__signature__ = signature.replace(return_annotation=Edit)
    return method


def _checked(method: Callable) -> Callable:
    """The method, which refuses arguments of another type than it says."""

    @functools.wraps(method)
    def checked(*args, **kwargs):
        return arguments.call_checked(method, args, kwargs, DecodeConfig)

    return checked


class Model:
    """A VQGAN and a GPTFace that belong together.

    Args:
      editor: both, joined.
      digest: of their weights.
      decode: the options by which an edit decodes where nothing else is said.
      card: the model card.
      frame: where the training pictures show eyes, nose and mouth corners, [5,2] as
        shares of the side (`faces.Face.five`): faces are found and brought there. None:
        the model takes the middle square of a photo for an upright face.
    """

    def __init__(
        self,
        editor: Editor,
        digest: str,
        decode: DecodeConfig,
        card: str = "",
        frame: Sequence[Sequence[float]] | None = None,
    ):
        self.editor, self.digest = editor, digest
        self.decode, self.card = decode, card
        self.frame = framing.checked_frame(frame)

    def on(self, devices: Sequence[jax.Device]) -> Model:
        """The same model on these devices."""
        editor = self.editor.on(devices)
        return Model(editor, self.digest, self.decode, self.card, self.frame)

    def __repr__(self) -> str:
        return f"<gptface_jax.Model {self.digest}, {self.editor.size} px>"

    @_checked
    def faces(
        self, image: image_io.Source | Edit, *, any_roll: bool = False
    ) -> list[Face]:
        """The faces of a photo from left to right, see `faces.find`.

        Args:
          image: see `edit`.
          any_roll: look for faces at every right angle too.
        """
        pixels = image_io.decode(image.image if isinstance(image, Edit) else image)
        return face_finding.find(pixels, any_roll=any_roll)

    @_checked
    def reconstruct(self, image: image_io.Source) -> Image.Image:
        """The photo's central square through the VQGAN; [S,S] PIL image."""
        pixels = images.fit(image_io.decode(image), self.editor.size)[None]
        decoded = self.editor.vqgan.decode(self.editor.image_ids(pixels))
        return Image.fromarray(images.from_unit_range(decoded)[0])

    @_at_once
    def edit(
        self,
        image: image_io.Source,
        text: str,
        mask: image_io.Source | None = None,
        *,
        box: Box | None = None,
        region: str | None = None,
        crop: Box | None = None,
        seed: int = 0,
        samples: int | None = None,
        composite: bool = True,
        feather: int | None = None,
        borders: int = BORDERS,
        grow: int = 0,
        area: float | None = None,
        face: int | str | Face | None = None,
        align: bool = True,
        invert_mask: bool = False,
        mask_grow: int = 0,
        mask_shrink: int = 0,
        keep_location: bool = False,
        **decode: Any,
    ) -> Steps:
        """Changes a region of a photo so that a sentence fits it.

        The face is found, brought upright, edited and carried back. Without a mask, box
        or region the model proposes one, see `propose`.

        Args:
          image: path, encoded bytes, PIL image, uint8 array [H,W,3], or an Edit to go
            on from; what the details of an edited photo say of it goes into "chain".
          text: the sentence.
          mask: picture of the photo's size, white = may change.
          box: (x0, y0, x1, y1) in pixels, instead of a mask.
          region: a name of `data.regions.REGIONS`, instead of a mask. "span:0.4" and
            "random:0.4" hide 40 % of what the model sees by chance, in one piece or
            scattered.
          crop: square (x0, y0, x1, y1) that the model sees, filled by an upright face;
            default the face that is found, brought upright, or for a mask or box that
            lies on none the central square or one around it.
          seed: of the random choices; the same seed gives the same edit.
          samples: candidates; the one that fits the text best is returned. Default
            what 16 forward passes an iteration pay for, see `usual_samples`.
          composite: paste the edit into the photo inside the mask only;
            otherwise the crop is the raw decode (the paper's way).
          feather: soft edge inside the mask, in pixels; default 1/32 of the crop.
          borders: levels of 255 by which colours within the mask are shifted at most to
            meet those around it; 0 where the mask leaves a rim of what is to go.
          grow: tokens by which the mask is enlarged for the model (not for the
            compositing).
          area: share of the crop that a proposed region takes, see `propose`.
          face: which one where there are several, from 1 on by their left edge, one of
            `faces`, or "all", one after the other; default the largest.
          align: find the face and bring it upright; otherwise the central square is
            taken for an upright face.
          invert_mask: what the mask, box or region leaves out may change instead.
          mask_grow, mask_shrink: pixels of the photo by which it is then enlarged and
            after that made smaller on all sides, for the compositing too.
          keep_location: a written result says where the photo was taken, if the photo
            does (EXIF GPS); otherwise that alone of its EXIF is left out.
          **decode: fields of `DecodeConfig`, e.g. step_size=0.02, k=4.

        Raises:
          UserError: a picture, mask, text or option that cannot be used.
        """
        text = " ".join(str(text).split())
        if not text:
            raise UserError("the text is empty; say what to see, or use inpaint")
        notes = self._read(text)
        config = self.decode_config(decode)
        samples = self.usual_samples(config) if samples is None else samples
        change = framing.Change(invert_mask, mask_grow, mask_shrink)
        proposed = mask is None and box is None and region is None
        if proposed and change.any:
            raise UserError(
                f"{change} goes with a mask, box or region; give one, or leave it out"
            )
        if proposed:
            notes.append("the region was proposed by the model; look at the strip")

        def work(photo: np.ndarray, face: int | Face | None) -> Steps:
            if proposed:
                seen, told = self._seen(photo, face, align, crop)
                framed = self._proposed(photo, text, area, seen)
            else:
                framed, told = self._framed(photo, place, seed, face, align, change)
            return (
                yield from self._run(
                    photo, text, framed, seed, samples, composite, feather, grow,
                    config, [*notes, *told], borders=borders,
                )
            )  # fmt: skip

        place = mask, box, region, crop
        return (yield from self._each(image_io.decode(image), face, align, place, work))

    def _read(self, text: str) -> list[str]:
        """What should be told of how the model reads a text.

        Raises:
          UserError: it knows nothing of it.
        """
        tokenizer = self.editor.tokenizer
        slots = self.editor.gptface.config.layout.max_text_tokens
        ids = tokenizer.encode([text], slots + 1)[0]
        ids = ids[ids != tokenizer.pad_id]
        words = tokenizer.understood(text)
        if not words or (ids == tokenizer.unk_id).all():
            raise UserError(
                f"no word of the text '{text[:60]}' is known to this model; use plain "
                "English, e.g. 'a smiling woman with glasses'"
            )
        notes = []
        if len(ids) > slots:
            notes.append(f"the text was cut to its first {slots} tokens")
        unknown = [word for word, known in words.items() if not known]
        if unknown:
            named = ", ".join(word[:30] for word in unknown[:5])
            notes.append(
                f"the model understands {len(words) - len(unknown)} of the "
                f"{len(words)} words of '{text[:60]}', not: {named}"
                f"{', ...' if unknown[5:] else ''}; plain English works best"
            )
        return notes

    def usual_samples(self, config: DecodeConfig) -> int:
        """Candidates of an edit that cost about as much whatever guides it: 16, or 3
        where the gradient does."""
        told = self.editor.gptface.config.match_token
        return max(1, round(_FORWARDS / config.forwards(told)))

    @_checked
    def propose(
        self,
        image: image_io.Source,
        text: str,
        *,
        source: str = region_proposal.NEUTRAL,
        method: str = "likelihood",
        area: float | None = None,
        aligned: bool = True,
        crop: Box | None = None,
        face: int | Face | None = None,
        align: bool = True,
    ) -> np.ndarray:
        """Where a sentence wants a photo changed: a mask to correct, bool [H,W].

        Args:
          image, text: see `edit`.
          source: what is seen now, where it is known.
          method: see `region_proposal.saliency`.
          area: share of the square to take, above 0 and below 1; default what the
            attributes that the sentence names usually take, else a fifth.
          aligned: the square is filled by an upright face: where such attributes
            usually show counts as well.
          crop, face, align: see `edit`.

        Raises:
          UserError: an argument that cannot be used.
        """
        photo = image_io.decode(image)
        seen, notes = self._seen(photo, face, align, crop)
        _warn([*notes, *self._read(text)])
        return self._proposed(photo, text, area, seen, source, method, aligned).mask

    def _proposed(
        self, photo, text, area, seen, source=region_proposal.NEUTRAL, method="likelihood",
        aligned=True,
    ) -> framing.Framed:  # fmt: skip
        if area is not None and not 0 < area < 1:
            raise UserError(f"area is {area}; use a share between 0 and 1")
        _, view = seen
        small = images.resize(view.picture(photo), (self.editor.size,) * 2)
        tokens = region_proposal.propose(
            self.editor, small, text, source, method, area, aligned
        )
        size = photo.shape[:2]
        mask = view.mask_back(images.tokens_to_pixels(tokens, (view.side,) * 2), size)
        said = {"proposed": area or "by the sentence", "pixels": int(mask.sum())}
        return framing.Framed(mask, view, said, tokens)

    @_at_once
    def inpaint(
        self,
        image: image_io.Source,
        mask: image_io.Source | None = None,
        *,
        box: Box | None = None,
        region: str | None = None,
        crop: Box | None = None,
        seed: int = 0,
        composite: bool = True,
        feather: int | None = None,
        borders: int = BORDERS,
        grow: int = 0,
        face: int | str | Face | None = None,
        align: bool = True,
        invert_mask: bool = False,
        mask_grow: int = 0,
        mask_shrink: int = 0,
        keep_location: bool = False,
        **decode: Any,
    ) -> Steps:
        """Fills a region without a text; arguments as for `edit`."""
        config = self._without_text(decode)
        place = mask, box, region, crop
        change = framing.Change(invert_mask, mask_grow, mask_shrink)

        def work(photo: np.ndarray, face: int | Face | None) -> Steps:
            framed, notes = self._framed(photo, place, seed, face, align, change)
            return (
                yield from self._run(
                    photo, "", framed, seed, 1, composite, feather, grow, config,
                    notes, borders=borders,
                )
            )  # fmt: skip

        return (yield from self._each(image_io.decode(image), face, align, place, work))

    @_at_once
    def restore(
        self,
        image: image_io.Source,
        damage: image_io.Source | None = None,
        *,
        kind: str = "both",
        thin: float = 1.0,
        paint: str = "damage",
        seed: int = 0,
        invert_mask: bool = False,
        mask_grow: int = 0,
        mask_shrink: int = 0,
        keep_location: bool = False,
        **decode: Any,
    ) -> Steps:
        """Paints over scratches and cracks.

        Thin ones are closed smoothly (`data.damage.fill`), which keeps more of the
        photo than tokens can; the model draws the wide ones. A photo that is not square
        is restored in several squares, which overlap.

        Args:
          image: see `edit`.
          damage: picture of the photo's size, white = damaged; default what
            `data.damage.scratches` finds.
          kind: "bright", "dark" or "both", where the damage is to be found.
          thin: widths up to so many tokens are closed smoothly; 0 leaves everything to
            the model, as in the paper.
          paint: "damage" changes damaged pixels only; "tokens" all that the model
            drew, which hides what is left of wide scratches.
          invert_mask, mask_grow, mask_shrink: of the damage, see `edit`.
          seed, keep_location, **decode: see `edit`.

        Raises:
          UserError: no damage is found, or an argument that cannot be used.
        """
        if paint not in ("damage", "tokens"):
            raise UserError(f"paint is '{paint}'; use 'damage' or 'tokens'")
        if not 0 <= thin < math.inf:
            raise UserError(f"thin is {thin}; use a width in tokens from 0 on")
        photo = image_io.decode(image)
        if damage is None:
            mask, said = defects.scratches(photo, kind), {"found": kind}
            if not mask.any():
                raise UserError(
                    f"no {'' if kind == 'both' else kind + ' '}scratch was found; mark "
                    "the damage in a picture of the photo's size and give it as damage="
                )
        else:
            mask, said = image_io.decode_mask(damage, photo.shape[:2]), {"given": True}
        mask = framing.Change(invert_mask, mask_grow, mask_shrink).of(mask)
        config = self._without_text(decode)
        height, width = photo.shape[:2]
        side = min(height, width)
        cell = side / max(self.editor.gptface.config.layout.grid)
        wide = defects.wide_parts(mask, thin * cell) if thin else mask
        closed = mask & ~wide
        said["thin"] = int(closed.sum())
        count = math.ceil(max(height, width) / side)
        starts = np.linspace(0, max(height, width) - side, count).round().astype(int)
        # Every pixel belongs to the square in whose middle it lies most.
        along = np.arange(max(height, width))
        owner = np.abs(along[:, None] - (starts + side / 2)).argmin(1)
        owner = owner[:, None] if height > width else owner[None, :]
        edits, restored = [], photo
        if closed.any():
            filled = defects.fill(photo, mask)
            restored = np.where(closed[..., None], filled, photo)
        for i, start in enumerate(starts):
            part = wide & (owner == i)
            if not part.any() and (wide.any() or i):
                continue  # but something has to be said of a photo without wide ones
            x0, y0 = (0, int(start)) if height > width else (int(start), 0)
            view = framing.View.crop((x0, y0, x0 + side, y0 + side))
            framed = framing.Framed(part, view, said)
            edit = yield from self._run(
                restored, "", framed, seed, 1, True, 0, 0, config, [], paint,
                2 * BORDERS,
            )  # fmt: skip
            edits.append(edit)
            restored = np.asarray(edits[-1].image)
        return _joined(edits, photo, said, closed)

    @_at_once
    def stitch(
        self,
        first: image_io.Source,
        second: image_io.Source,
        *,
        seam: str | image_io.Source = "vertical",
        at: float = 0.5,
        band: float = 1.0,
        colours: bool = True,
        text: str = "",
        seed: int = 0,
        samples: int = 1,
        keep_location: bool = False,
        **decode: Any,
    ) -> Steps:
        """Joins two photos and lets the model draw what lies along the seam.

        Args:
          first: gives the size, what is kept of its file, and everything on its own
            side of the seam.
          second: resized to the first; it should show a face in the same place.
          seam: "vertical" (first on the left), "horizontal" (first on top), or a
            picture of the first's size, white = of the second.
          at: where a straight seam lies, as a fraction of the side.
          band: width of what is drawn anew, in tokens.
          colours: give the second photo the colours that the first has along the seam;
            if the first is grey or toned, its tone.
          text: a sentence to follow, with guidance; default none.
          seed, samples, keep_location, **decode: see `edit`.

        Raises:
          UserError: photos or options that cannot be used.
        """
        base = image_io.decode(first)
        height, width = base.shape[:2]
        other = images.resize(
            images.crop_to(image_io.decode(second), width / height), (height, width)
        )
        if isinstance(seam, str) and seam in SEAMS:
            if not 0 < at < 1:
                raise UserError(f"at is {at}; a seam lies between 0 and 1")
            place = np.arange(width) >= at * width
            theirs = np.broadcast_to(place, (height, width))
            if seam == "horizontal":
                place = np.arange(height) >= at * height
                theirs = np.broadcast_to(place[:, None], (height, width))
        else:
            theirs = image_io.decode_mask(seam, (height, width))
        if theirs.all():
            raise UserError("the seam leaves nothing of the first photo")
        if band <= 0:
            raise UserError(f"band is {band}; draw more than 0 tokens along the seam")
        cell = min(height, width) / max(self.editor.gptface.config.layout.grid)
        if colours:
            strip = blending.near(theirs, 2 * cell)
            other = blending.match_colours(other, strip, base, strip)
            if (own := tone.tone_of(base, ~theirs)) is not None:
                other = own.give(other)
        joined = np.where(theirs[..., None], other, base)
        mask = blending.near(theirs, band * cell / 2)
        view = framing.View.crop(framing.holding(mask))
        shown = np.zeros_like(mask)
        shown[view.slices] = mask[view.slices]
        config = self.decode_config(decode) if text else self._without_text(decode)
        said = {"seam": seam if isinstance(seam, str) else "picture", "band": band}
        framed = framing.Framed(shown, view, {**said, "pixels": int(shown.sum())})
        notes = self._read(text) if text else []
        if (mask & ~shown).any():
            notes.append("outside the square the seam is a plain cut")
        return (
            yield from self._run(
                joined, text, framed, seed, samples, True, int(cell / 2), 0, config,
                notes,
            )
        )  # fmt: skip

    @_checked
    def sample(
        self, count: int = 1, text: str = "", *, seed: int = 0, **decode: Any
    ) -> Samples:
        """Whole pictures out of nothing, or out of a sentence; [S,S] PIL images.

        Raises:
          UserError: an option that cannot be used.
        """
        if count < 1:
            raise UserError(f"count is {count}; use 1 or more")
        config = self.decode_config(decode) if text else self._without_text(decode)
        _warn(self._read(text) if text else [])
        drawn = self.editor.sample([text] * count, config, _keys(seed, count))
        grid = list(self.editor.gptface.config.layout.grid)
        details = self.details(False, text, seed, config)
        details |= {"mask": {"whole": True}, "grid": grid}
        return Samples([Image.fromarray(x) for x in drawn], details)

    @_checked
    def match(
        self, image: image_io.Source, sentences: Sequence[str], *,
        face: int | Face | None = None, align: bool = True,
    ) -> np.ndarray:  # fmt: skip
        """p(q=1), how likely each sentence belongs to the photo; float32 [N].

        Args:
          image, face, align: see `edit`; notes are told as warnings.
          sentences: N of them.
        """
        pixels = self._square(image, face, align)
        _warn(note for text in sentences if text for note in self._read(text))
        repeated = np.repeat(pixels, len(sentences), axis=0)
        return np.exp(self.editor.match_log_prob(repeated, sentences))

    @_checked
    def tag(
        self, image: image_io.Source, count: int = 10, *, seed: int = 0,
        among: Sequence[str] | None = None, face: int | Face | None = None,
        align: bool = True, **decode: Any,
    ) -> list[captioning.Tag]:  # fmt: skip
        """The words that fit a photo best, see `captioning.tags` and `match`."""
        config, pixels = self._text_side(decode), self._square(image, face, align)
        return captioning.tags(self.editor, pixels, count, config, _key(seed), among)

    @_checked
    def caption(
        self, image: image_io.Source, words: int = 8, *, samples: int = 8,
        seed: int = 0, face: int | Face | None = None, align: bool = True,
        **decode: Any,
    ) -> list[tuple[str, float]]:  # fmt: skip
        """Sentences for a photo and p(q=1) of each, see `captioning.captions`, `match`."""
        config, pixels = self._text_side(decode), self._square(image, face, align)
        return captioning.captions(
            self.editor, pixels, words, samples, config, _key(seed)
        )

    def decode_config(self, changes: Mapping[str, Any]) -> DecodeConfig:
        """The model's decoder options with changes.

        Raises:
          UserError: an unknown option, or a value that makes no sense.
        """
        return decode_options({**dataclasses.asdict(self.decode), **changes})

    def details(
        self, edited: bool, text: str, seed: int, config: DecodeConfig
    ) -> dict[str, Any]:
        """What every sidecar holds; of a watermark's key no more than a digest."""
        options = dataclasses.asdict(config)
        key = options.pop("watermark_key")
        if config.watermark:
            options["watermark_key_digest"] = provenance.key_digest(key)
        return {
            "edited": edited,
            "software": f"gptface_jax {__version__}",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model": self.digest,
            **({"dtype": self.editor.dtype} if self.editor.dtype else {}),
            "text": text,
            "seed": seed,
            "decode": options,
        }

    def _without_text(self, decode: Mapping[str, Any]) -> DecodeConfig:
        for name, value in _UNSTEERED.items():
            if decode.get(name, value) != value:
                raise UserError(
                    f"{name} '{decode[name]}' needs a text to follow; use edit, or "
                    "inpaint without it"
                )
        return self.decode_config({**decode, **_UNSTEERED})

    def _text_side(self, decode: Mapping[str, Any]) -> DecodeConfig:
        return self.decode_config({**_UNSTEERED, "k": 1, "side": "text", **decode})

    def _square(self, image: image_io.Source, face, align) -> np.ndarray:
        """What the model sees of a photo at its own size, uint8 [1,S,S,3]."""
        photo = image_io.decode(image)
        (_, view), notes = self._seen(photo, face, align, None)
        _warn(notes, 6)
        return images.resize(view.picture(photo), (self.editor.size,) * 2)[None]

    def _found(self, photo, face, align, crop) -> list[Face] | None:
        """The faces of a photo; None where none is to be looked for."""
        if not align or crop is not None or self.frame is None:
            if face is not None:
                why = "crop" if crop is not None else "align=False (--no-align)"
                if align and crop is None:
                    why = "a model without a frame"
                which = "a face" if isinstance(face, Face) else f"face {face}"
                raise UserError(f"{which} does not go with {why}; give one of them")
            return None
        return [face] if isinstance(face, Face) else face_finding.find(photo)

    def _view(self, face: Face, photo: np.ndarray) -> framing.View:
        return framing.View.upright(face.five, self.frame, photo.shape[:2])

    def _seen(
        self, photo, face, align, crop
    ) -> tuple[tuple[Face | None, framing.View], list[str]]:
        """The face to work on with the square that the model sees, and notes."""
        found, size = self._found(photo, face, align, crop), photo.shape[:2]
        notes: list[str] = []
        if found is not None:
            number = None if isinstance(face, Face) else face
            best, notes = framing.chosen_face(found, number, size)
            if best is not None:
                return (best, self._view(best, photo)), notes
        return (None, framing.View.crop(framing.checked_crop(crop, size))), notes

    def _framed(self, photo, place, seed, face, align, change=framing.AS_GIVEN):
        """What may change of a photo, and notes."""
        mask, box, region, crop = place
        hidden, notes, faces = None, [], []
        if region and ":" in region:
            grid = self.editor.gptface.config.layout.grid
            hidden = framing.hidden_tokens(region, grid, _key(seed))
        if region or face is not None:
            seen, notes = self._seen(photo, face, align, crop)
            faces = [seen] if seen[0] else []
        else:
            found = self._found(photo, face, align, crop) or ()
            largest = sorted(found, key=lambda f: -f.area)
            faces = [(f, self._view(f, photo)) for f in largest]
        framed = framing.frame(
            photo.shape[:2], mask, box, region, crop, self.editor.size, hidden, faces,
            change,
        )  # fmt: skip
        if face is not None and not region and not framed.view.face:
            notes.append("the mask does not lie on that face, and is seen without it")
        return framed, notes

    def framed(
        self, photo: np.ndarray, mask=None, box=None, region=None, crop=None, *,
        seed: int = 0, face: int | Face | None = None, align: bool = True,
    ) -> tuple[framing.Framed, list[str]]:  # fmt: skip
        """What `edit` would change of a photo uint8 [H,W,3], and notes."""
        return self._framed(photo, (mask, box, region, crop), seed, face, align)

    def _each(self, photo, face, align, place, work: Callable[..., Steps]) -> Steps:
        """work(photo, face), or for "all" of every face after the other as one Edit."""
        if face != "all":
            return (yield from work(photo, face))
        mask, box, _, crop = place
        if mask is not None or box is not None:
            raise UserError(
                "face 'all' edits a region of every face, but a mask or box lies in "
                "one place; give a region, or leave out face"
            )
        found = self._found(photo, face, align, crop) or [None]
        edits, current = [], photo
        for one in found:
            edits.append((yield from work(current, one)))
            current = np.asarray(edits[-1].image)
        return _joined(edits, photo, edits[-1].details["mask"])

    def _run(
        self, photo, text, framed, seed, samples, composite, feather, grow, config,
        notes, paint="", borders=BORDERS,
    ) -> Steps:  # fmt: skip
        if samples < 1:
            raise UserError(f"samples is {samples}; use 1 or more")
        if not 0 <= borders <= 255:
            raise UserError(f"borders is {borders}; use 0 to 255 levels")
        if config.side != "image":
            raise UserError(f"side is '{config.side}'; a picture's edit has 'image'")
        mask, view, inside = framed.mask, framed.view, framed.inside
        size, side = self.editor.size, view.side
        small_mask = images.pixels_to_tokens(inside, (size, size))
        if framed.hidden is not None:  # pixels that lie on two cells hide no third one
            small_mask = images.tokens_to_pixels(framed.hidden, (size, size))
        square, beyond = view.picture(photo), view.beyond(photo.shape[:2])
        batch = yield Request(
            blending.shrink_hidden(square, inside | beyond, (size, size)),
            small_mask,
            text,
            config,
            _key(seed),
            samples,
            grow,
        )
        patch = images.resize(batch.images, (side, side))
        there, changed = photo[view.slices], mask[view.slices]
        toned: dict[str, str] = {}
        if composite:
            feather = max(1, side // 32) if feather is None else feather
            drawn = images.tokens_to_pixels(batch.open_tokens, (side, side))
            if paint == "tokens":
                inside = drawn
                mask = mask | view.mask_back(drawn, mask.shape)
                changed = mask[view.slices]
            patch = blending.continue_colours(square, patch, drawn | inside | beyond)
            patch = blending.meet_borders(
                square, patch, inside, borders, damaged=bool(paint)
            )
            # Blended in the photo's own pixels: what is not drawn is not resampled.
            patch = blending.composite(there, view.back(patch), changed, feather)
            shown = view.mask_back(np.ones((side, side), bool), mask.shape)
            known = shown[view.slices] & ~changed
            if (own := tone.tone_of(there, known)) is not None:
                patch[changed] = own.give(patch[changed])
                toned = {"tone": str(own)}
        else:
            whole = view.mask_back(np.ones((side, side), bool), mask.shape)
            whole = whole[view.slices][..., None]
            patch = np.where(whole, view.back(patch), there)
        edited = photo.copy()
        edited[view.slices] = patch
        scores = batch.itm_log_prob
        scores = tuple(round(float(s), 6) for s in scores[~np.isnan(scores)])
        final = float(batch.final_log_prob)
        described = view.described()
        details = {
            **self.details(True, text, seed, config),
            "samples": samples,
            "mask": dict(framed.said),
            "size": list(photo.shape[1::-1]),
            **described,
            "squares": [{**described, "open": _rows(batch.open_tokens)}],
            "tokens": int(batch.open_tokens.sum()),
            "iterations": int(batch.num_iterations),
            "itm_log_prob": list(scores),
            "final_log_prob": round(final, 6),
            "composite": composite,
            "borders": borders,
            **toned,
            "notes": notes,
        }
        return Edit(
            image=Image.fromarray(edited),
            before=Image.fromarray(photo),
            mask=mask,
            committed_at=batch.committed_at,
            text=text,
            itm_log_prob=scores,
            final_log_prob=final,
            details=details,
        )


def _warn(notes: Iterable[str], level: int = 5) -> None:
    """Tells notes where no Edit holds them, as of who called the `_checked` method."""
    for note in notes:
        warnings.warn(note, stacklevel=level)


def _joined(
    edits: Sequence[Edit],
    photo: np.ndarray,
    said: Mapping[str, Any],
    also: np.ndarray | None = None,
) -> Edit:
    """Edits that followed one another on one photo, as one.

    Args:
      edits: at least one.
      photo: uint8 [H,W,3] before the first.
      said: how the mask was given.
      also: bool [H,W], what was changed besides.
    """
    masks = [e.mask for e in edits] + ([] if also is None else [also])
    mask = np.logical_or.reduce(masks)
    details = {**edits[-1].details, "mask": {**said, "pixels": int(mask.sum())}}
    details["tokens"] = sum(e.details["tokens"] for e in edits)
    details["squares"] = [s for e in edits for s in e.details["squares"]]
    before = Image.fromarray(photo)
    return dataclasses.replace(edits[-1], before=before, mask=mask, details=details)


def _rows(open_tokens: np.ndarray) -> list[str]:
    """bool [h,w] -> h strings of 0 and 1."""
    return ["".join("01"[x] for x in row) for row in open_tokens.astype(int)]


def _key(seed: int) -> jax.Array:
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}; use 0 to {2**32 - 1}")
    return jax.random.key(seed)


def _keys(seed: int, count: int) -> jax.Array:
    return jax.vmap(lambda i: jax.random.fold_in(_key(seed), i))(np.arange(count))


def load(
    source: str | os.PathLike = "demo",
    *,
    tokenizer: str | os.PathLike | None = None,
    dtype: str | None = None,
) -> Model:
    """Opens a model.

    Programs that are compiled from here on are kept for the next process, see
    `core.compiled`.

    Args:
      source: a bundled name, a model directory, the work folder of a GPTFace
        training run, or a hub id.
      tokenizer: for a training run, where its VQGAN is: a run, or as source.
      dtype: of the activations, see `Editor`.

    Raises:
      UserError: nothing there, damaged files, or networks that do not belong
        together.
    """
    compiled.keep()
    path = networks.locate(source)
    found = opening.networks_of(path)
    loaded = [name for name in registry.SYSTEMS if registry.row(name).facade]
    for name in loaded:
        row = registry.row(name)
        if name in found and (networks.is_run(path) or {*row.beside} <= {*found}):
            module, _, function = row.facade.partition(":")
            opened = getattr(importlib.import_module(module), function)
            return opened(path, tokenizer, dtype)
    wanted = " or ".join(f"'{name}'" for name in loaded)
    raise UserError(
        f"'{source}' holds no network {wanted} with what belongs to it, only: "
        f"{', '.join(found)}; give a model that was exported whole"
    )


def open_model(path: pathlib.Path, tokenizer: Any, dtype: str | None) -> Model:
    """A GPTFace with its tokenizer from a folder; arguments as of `load`."""
    gptface = opening.open_network(path, "gptface")
    if not networks.is_run(path):
        vqgan = opening.open_network(path, "vqgan")
        text = TextTokenizer.from_vocab_text(directory.read_vocab(path))
        decode = decode_options(gptface.meta.get("decode", {}))
        card = path / "README.md"
        described = card.read_text("utf-8") if card.is_file() else ""
        digest = f"{vqgan.digest}-{gptface.digest}"
        editor = Editor(vqgan, gptface, text, dtype=dtype)
        return Model(editor, digest, decode, described, gptface.meta.get("frame"))
    if tokenizer is None:
        raise UserError(
            f"'{path}' is a training run of the transformer alone; give its VQGAN as "
            "tokenizer= (--tokenizer)"
        )
    vqgan = opening.open_network(tokenizer, "vqgan")
    check_pair(vqgan, gptface, path)
    files = gptface.meta["extra_files"]
    text = TextTokenizer.from_vocab_text(files["vocab.txt"].decode())
    digest = f"{vqgan.digest}-{gptface.digest}"
    editor = Editor(vqgan, gptface, text, dtype=dtype)
    decode = decode_options(learnt_options(gptface))
    return Model(editor, digest, decode, frame=learnt_frame(gptface))


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
