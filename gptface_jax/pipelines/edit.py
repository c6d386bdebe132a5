"""A photo's region drawn anew, with a text or without one (SPEC A.10, A.12).

What edits a photo is a generator: it yields a `Request`, one square at a time, is sent
the `Batch` that answers it, and returns an `Edit`. So whoever has many photos answers
requests of several at once; `run_immediately` answers each as soon as it is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.core import compiled
from gptface_jax.core.errors import UserError
from gptface_jax.data import blending, image_io
from gptface_jax.data import image as images
from gptface_jax.data import photo as photos
from gptface_jax.pipelines import head_warp, provenance, results
from gptface_jax.pipelines import strength as strengths
from gptface_jax.pipelines.compositing import Blend, paste
from gptface_jax.pipelines.editing_model import EditingModel, Selection
from gptface_jax.pipelines.editor import Batch, Editor, Request
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.framing import Framed
from gptface_jax.pipelines.results import Edit
from gptface_jax.pipelines.user_input import key_of
from gptface_jax.systems.gptface.options import DecodeConfig

Steps = Generator[Request, Batch, Edit]

# Of a face that moves: what it did not show before, or all that moves.
PAINTS = ("revealed", "moved")


@dataclasses.dataclass(frozen=True)
class Plan:
    """One square of a photo to be drawn anew.

    Attributes:
      photo: uint8 [H,W,3].
      framed: the square, and what may change.
      config: of the decoder.
      text: the sentence, "" for none.
      seed: of the random choices.
      num_candidates: of which the best match is kept.
      grow: tokens by which the mask is enlarged for the model.
      blend: how the result is pasted.
      notes: remarks for the user.
      strength: of attributes, beside the text or without one, see `pipelines.strength`.
      hint: uint8 [side,side,3], what the square should come near to, or None.
      also: further details.

    Raises:
      UserError: no candidates, or a decoder that draws words.
    """

    photo: np.ndarray
    framed: Framed
    config: DecodeConfig
    text: str = ""
    seed: int = 0
    num_candidates: int = 1
    grow: int = 0
    blend: Blend = Blend()
    notes: Sequence[str] = ()
    strength: Mapping[str, float] = dataclasses.field(default_factory=dict)
    hint: np.ndarray | None = None
    also: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.num_candidates < 1:
            raise UserError(f"samples is {self.num_candidates}; use 1 or more")
        if self.grow < 0:
            raise UserError(f"grow is {self.grow}; use 0 tokens or more")
        if self.config.side != "image":
            raise UserError(
                f"side is '{self.config.side}'; a picture's edit has 'image'"
            )

    def request(self, size: int) -> Request:
        """The request to the editor, for pictures of `size` pixels."""
        framed, view = self.framed, self.framed.view
        small = images.pixels_to_tokens(framed.inside, (size, size))
        beyond = view.beyond(self.photo.shape[:2])
        if framed.hidden is not None:  # pixels that lie on two cells hide no third one
            small = images.tokens_to_pixels(framed.hidden, (size, size))
        return Request(
            # What is hidden must not be seen through the filter that makes it small.
            blending.shrink_hidden(
                view.picture(self.photo), framed.inside | beyond, (size, size)
            ),
            small,
            self.text,
            self.config,
            key_of(self.seed),
            self.num_candidates,
            self.grow,
            small | images.pixels_to_tokens(beyond, (size, size)),
            strengths.directions(self.strength),
            None if self.hint is None else images.resize(self.hint, (size, size)),
        )


def resample(model: EditingModel, plan: Plan) -> Steps:
    """The Edit of a photo with one square drawn anew."""
    batch = yield plan.request(model.size)
    photo, framed, blend = plan.photo, plan.framed, plan.blend
    pasted = paste(photo, batch.images, batch.open_tokens, framed, blend)
    scores = batch.itm_log_prob
    scores = tuple(round(float(s), 6) for s in scores[~np.isnan(scores)])
    final = float(batch.final_log_prob)
    described = framed.view.described()
    open_tokens = results.bit_rows(batch.open_tokens)
    details = {
        **model.details(True, plan.text, plan.seed, plan.config),
        **({"strength": dict(plan.strength)} if plan.strength else {}),
        **plan.also,
        "samples": plan.num_candidates,
        "mask": dict(framed.said),
        "size": list(photo.shape[1::-1]),
        **described,
        "squares": [{**described, "open": open_tokens}],
        "tokens": int(batch.open_tokens.sum()),
        "iterations": int(batch.num_iterations),
        "itm_log_prob": list(scores),
        "final_log_prob": round(final, 6),
        "composite": blend.composite,
        "borders": blend.borders,
        **({"tone": str(pasted.tone)} if pasted.tone else {}),
        "notes": list(plan.notes),
    }
    return Edit(
        image=Image.fromarray(pasted.image),
        before=Image.fromarray(photo),
        mask=pasted.mask,
        committed_at=batch.committed_at,
        text=plan.text,
        itm_log_prob=scores,
        final_log_prob=final,
        details=details,
    )


def edit(
    model: EditingModel,
    photo: np.ndarray,
    *,
    text: str,
    selection: Selection,
    blend: Blend,
    decode: Mapping[str, Any],
    seed: int = 0,
    samples: int | None = None,
    grow: int = 0,
    area: float | None = None,
    strength: Mapping[str, float] | None = None,
    expression: Mapping[str, float] | None = None,
    turn: Mapping[str, float] | None = None,
    paint: str = PAINTS[0],
) -> Steps:
    """A photo uint8 [H,W,3] changed so that a text fits it; see `apps.api.Model.edit`.

    Raises:
      UserError: a mask, text, strength or option that cannot be used.
    """
    text, strength = " ".join(text.split()), strength or {}
    move = _checked_move(expression, turn, paint)
    if not (text or strength or move):
        raise UserError(
            "the text is empty; say what to see, give strength, expression or turn, "
            "or use inpaint"
        )
    strengths.directions(strength)
    if move and (strength or not selection.is_open or selection.change.any):
        raise UserError(
            "expression and turn move all of the face; leave out strength, mask, box "
            "and region"
        )
    if text:
        notes, config = model.notes_on_text(text), model.decode_config(decode)
        candidates = model.default_candidates(config) if samples is None else samples
    else:
        notes, config = [], model.unsteered_config(decode)
        # Several cost three passes each, and are worth it only where one fails often.
        candidates = 1 if samples is None else samples
    if strength and selection.is_open:
        # An attribute of strength 0 is to stay as it is, unless nothing else is given.
        names = [name for name, weight in strength.items() if weight] or strength
        selection = dataclasses.replace(selection, region=strengths.region(names))
    selection.check_perception()
    if area is not None and (move or not selection.is_open):
        raise UserError(
            f"area is {area}, the share of a region that the model proposes; leave it "
            "out where the region is given, or follows from strengths or a move"
        )
    if selection.is_open and selection.change.any:
        raise UserError(
            f"{selection.change} goes with a mask, box or region; give one, or leave "
            "it out"
        )
    if selection.is_open and not move:
        notes.append("the region was proposed by the model; look at the strip")

    def work(photo: np.ndarray, one: Selection) -> Steps:
        if move:
            make = functools.partial(
                Plan, config=config, text=text, seed=seed, num_candidates=candidates,
                grow=grow, blend=blend,
            )  # fmt: skip
            return (yield from _moved(model, photo, one, move, make, notes))
        if one.is_open:
            (_, view), also = model.seen(photo, one.face, one.align, one.crop)
            framed = model.proposed(photo, text, area, view)
        else:
            framed, also = model.select(photo, one, seed)
        plan = Plan(
            photo, framed, config, text, seed, candidates, grow, blend,
            [*notes, *also], strength,
        )  # fmt: skip
        return (yield from resample(model, plan))

    return (yield from _each_face(model, photo, selection, work))


def _checked_move(expression, turn, paint: str) -> dict[str, Any]:
    """How a head moves, as the details say it; {} where it does not."""
    if paint not in PAINTS:
        raise UserError(f"paint '{paint}' is none of {', '.join(PAINTS)}")
    moves = zip(("expression", "turn"), head_warp.checked(expression, turn))
    found = {name: values for name, values in moves if values}
    return {**found, "paint": paint} if found else {}


def _moved(
    model: EditingModel, photo: np.ndarray, one: Selection, move: Mapping[str, Any],
    make: Callable[..., Plan], notes: Sequence[str],
) -> Steps:  # fmt: skip
    """The Edit of a photo whose face moves, see `_checked_move`."""
    (face, view), also = model.seen(photo, one.face, one.align, one.crop)
    face = face or model.face_in(view, photo)
    if face is None:
        raise UserError("no face was found; expression and turn move the head of one")
    before, square = head_warp.head_of(face, view), view.picture(photo)
    after = head_warp.changed(before, move.get("expression", {}), move.get("turn", {}))
    bent = head_warp.bend(square, before, after)
    size = photo.shape[:2]
    moved = view.mask_back(bent.moved, size)
    # Bent itself where that shows it all, and the model draws what is left; or it draws
    # all, near to what is bent.
    drawn, hint, base = moved, bent.picture, photo
    if move["paint"] == "revealed":
        drawn, hint, base = view.mask_back(bent.revealed, size), None, photo.copy()
        base[view.slices] = blending.composite(
            photo[view.slices], view.back(bent.picture), moved[view.slices], 1
        )
    said = {"face": "moved"}
    plan = make(
        base, Framed(drawn, view, said), notes=[*notes, *also], hint=hint, also=move
    )
    edit = yield from resample(model, plan)
    return results.joined([edit], photo, said, moved)


def inpaint(
    model: EditingModel,
    photo: np.ndarray,
    *,
    selection: Selection,
    blend: Blend,
    decode: Mapping[str, Any],
    seed: int = 0,
    grow: int = 0,
) -> Steps:
    """A photo with a region filled without a text; arguments as of `edit`."""
    config = model.unsteered_config(decode)

    def work(photo: np.ndarray, one: Selection) -> Steps:
        framed, notes = model.select(photo, one, seed)
        plan = Plan(
            photo, framed, config, seed=seed, grow=grow, blend=blend, notes=notes
        )
        return (yield from resample(model, plan))

    return (yield from _each_face(model, photo, selection, work))


def _each_face(
    model: EditingModel,
    photo: np.ndarray,
    selection: Selection,
    work: Callable[[np.ndarray, Selection], Steps],
) -> Steps:
    """The Edit of work(photo, selection); with face "all" of one face after the other.

    Each face is edited in what the one before it left. One that cannot be, such as a
    head whose hat would lie beyond the photo, is passed over with a note.

    Raises:
      UserError: of the first face, if none can be edited.
    """
    if selection.face != "all":
        return (yield from work(photo, selection))
    if selection.mask is not None or selection.box is not None:
        raise UserError(
            "face 'all' edits a region of every face, but a mask or box lies in "
            "one place; give a region, or leave out face"
        )
    found: Sequence[Face | None] | None = model.found_faces(
        photo, "all", selection.align, selection.crop
    )
    edits, failed, current = [], {}, photo
    for number, face in enumerate(found or [None], 1):
        one = dataclasses.replace(selection, face=face)
        try:
            edits.append((yield from work(current, one)))
        except UserError as error:
            failed[number] = error
        else:
            current = np.asarray(edits[-1].image)
    if not edits:
        raise failed[1]
    edit = results.joined(edits, photo, edits[-1].details["mask"])
    passed = [f"face {n} was passed over: {error}" for n, error in failed.items()]
    edit.details["notes"] = [*edit.details["notes"], *passed]
    return edit


def continued(
    source: image_io.Source | Edit,
    work: Callable[[np.ndarray], Steps],
    keep_location: bool = False,
) -> Steps:
    """An edit of a file or of an earlier edit, which goes on with what it holds.

    The details of an edited photo go on in "chain", and what its file holds besides
    pixels in the Edit's `photo`.

    Args:
      source: what is edited.
      work: of its pixels, uint8 [H,W,3].
      keep_location: see `data.photo.read`.
    """
    if isinstance(source, Edit):
        photo, earlier = photos.read(source.image), source.details
        kept = source.photo or photo
    else:
        photo = kept = photos.read(source, keep_location=keep_location)
        earlier = provenance.details_of(source)
    made = yield from work(photo.pixels)
    image = photo.edited(np.asarray(made.image))
    made = dataclasses.replace(made, image=image, photo=kept)
    if not earlier:
        return made
    own = {k: v for k, v in earlier.items() if k != "chain"}
    details = {**made.details, "chain": [*earlier.get("chain", ()), own]}
    return dataclasses.replace(made, details=details)


def run_immediately(editor: Editor, steps: Steps) -> Edit:
    """The edit of steps, each of whose requests is answered as soon as it is asked."""
    first = not editor.has_answered
    with compiled.tracing() if first else contextlib.nullcontext():
        try:
            request = next(steps)
            while True:
                request = steps.send(editor.answer([request])[0])
        except StopIteration as end:
            return end.value
