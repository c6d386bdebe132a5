"""Draw, describe and question faces in a few lines; `load` of a Talk2Face gives it."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.apps import verbs
from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import image_io, questions
from gptface_jax.experiments import talk2face_run
from gptface_jax.pipelines import answers, pictures, ranking, sequence_drawing
from gptface_jax.pipelines.answers import Answer
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.results import Samples
from gptface_jax.pipelines.rows import Rows, Steps
from gptface_jax.pipelines.sequence_model import SequenceModel

_CLIP = "clip:"
_SHOWN = 256  # side in pixels of a picture of where the model looked


class Talk2Face(verbs.Facade, SequenceModel):
    """A trained sequence model and all that it does; see `SequenceModel`."""

    @verbs.in_steps
    def synthesize(
        self, text: str = "", attributes: Mapping[str, Any] | str = "", count: int = 1,
        *, image: image_io.Source | None = None, seed: int = 0, candidates: int = 1,
        rank_by: Any = None, face: int | Face | None = None, align: bool = True,
        **decode: Any,
    ) -> Steps[Samples]:  # fmt: skip
        """Whole pictures after a sentence, attributes or both; [S,S] PIL images.

        With a photo the square around its face is drawn anew as the text says, by
        models that were trained to (`data.tasks.edits`). Nothing is pasted into the
        photo: what may not change is left to the model.

        Args:
          text: the sentence.
          attributes: {"Smiling": True, "age": 30}, or "Smiling=true; age=30".
          count: number of pictures.
          image: the photo to begin with; its face is found and brought upright.
          seed: of the random choices; picture i is the same for any count.
          candidates: so many are drawn for each, and the best of all are returned.
          rank_by: a GPTFace of the same size, or its name or folder, whose matching
            says which are best, or "clip:WEIGHTS", a folder or hub id of a CLIP (extra
            `clip`); both read the attributes as a sentence. Default the probability of
            text and attributes after the picture, by this model.
          face, align: of the photo, see `caption`.
          **decode: fields of `GenerateConfig`, e.g. temperature=0.8, top_k=0.

        Raises:
          UserError: nothing to follow, an attribute that the model does not know (the
            nearest known ones are named), or an option that cannot be used.
        """
        if isinstance(attributes, str):
            attributes = questions.parsed(attributes)
        if image is None and (face is not None or not align):
            raise UserError(
                f"face is {face!r} and align {align}, and there is no photo; give "
                "image, or leave them out"
            )
        if candidates < 1:
            raise UserError(f"candidates is {candidates}; use 1 or more")
        if count * candidates > (most := sequence_drawing.MOST):
            raise UserError(
                f"count {count} times candidates {candidates} is "
                f"{count * candidates}; at most {most} are drawn at once"
            )
        if rank_by is not None and candidates < 2:
            raise UserError("rank_by chooses among candidates; set them to 2 or more")
        if candidates > 1:
            wanted, by = _ranked_by(self, text, attributes, rank_by)
            wanted = ranking.to_compare(wanted)  # before any is drawn
        ids = None
        if image is not None:
            (ids,) = yield self._codes(image, face, align)
        drawn = yield from sequence_drawing.synthesize(
            self, text, attributes, count * candidates, seed, decode, ids
        )
        if candidates > 1:
            drawn = ranking.best(drawn, wanted, count, by)
        verbs.warn(drawn.details.get("notes", ()))
        return drawn

    @verbs.in_steps
    def caption(
        self, image: image_io.Source, samples: int = 1, *, seed: int = 0,
        rank_by: Any = None, face: int | Face | None = None, align: bool = True,
        **decode: Any,
    ) -> Steps[list[tuple[str, float]]]:  # fmt: skip
        """Sentences for a photo and the mean probability of their words, best first.

        Args:
          image: path, encoded bytes, PIL image or uint8 array [H,W,3].
          samples: sentences that are written, equal ones given once; 1 takes the
            likeliest word each time.
          seed: of the random choices.
          rank_by: what says which sentence comes first, see `synthesize`; default their
            own probability.
          face: which one where there are several, from 1 on by their left edge, or one
            of `faces`; default the largest.
          align: find the face and bring it upright; otherwise the central square is
            taken for an upright face.
          **decode: see `synthesize`.

        Raises:
          UserError: a picture or option that cannot be used.
        """
        if rank_by is not None and samples < 2:
            raise UserError("rank_by chooses among samples; set them to 2 or more")
        scorer, _ = _scorer(rank_by) if rank_by is not None else (None, "")
        pixels = self._square(image, face, align)
        (ids,) = yield Rows(self.image_ids, (pixels,), "codes")
        found = yield from sequence_drawing.captions(self, ids, samples, seed, decode)
        if scorer is None:
            return found
        return sorted(found, key=lambda said: -float(scorer(pixels, said[0])[0]))

    @verbs.in_steps
    def ask(
        self, image: image_io.Source, question: str, *, closed: bool = True,
        score: str = "sum", prior: bool = False, face: int | Face | None = None,
        align: bool = True,
    ) -> Steps[Answer]:  # fmt: skip
        """The answer to a question about a photo, with its confidence.

        Args:
          image, face, align: see `caption`.
          question: "age", "wearing a hat", "lfw gender", or a key of one's own that
            ends in a colon.
          closed: choose among all answers there are; otherwise write one freely, which
            may mean nothing: its value is None.
          score: of an answer to choose, "sum" of the log-probabilities of its tokens
            or their "mean", so that long ones do not lose by their length.
          prior: choose by how much likelier an answer is than of a grey picture.

        Raises:
          UserError: a question that the model was not trained to answer (the nearest
            are named), a picture that cannot be used, or `score` or `prior` where
            nothing is chosen.
        """
        options = answers.AskOptions(closed, score, prior)
        asked = answers.found_question(self, question)
        ids = yield self._codes(image, face, align)
        (answer,) = yield answers.asked(self, ids, asked, options)
        return answer

    @verbs.in_steps
    def answers(
        self, image: image_io.Source, questions: Sequence[str] = (), *,
        closed: bool = True, score: str = "sum", prior: bool = False,
        face: int | Face | None = None, align: bool = True,
    ) -> Steps[list[Answer]]:  # fmt: skip
        """Answers to several questions, by default to every one of the training.

        Arguments and errors are those of `ask`.
        """
        options = answers.AskOptions(closed, score, prior)
        asked = [answers.found_question(self, words) for words in questions]
        ids = yield self._codes(image, face, align)
        found = []
        for question in asked or self.learnt.questions:
            found.extend((yield answers.asked(self, ids, question, options)))
        return found

    @verbs.checked
    def attention(
        self, image: image_io.Source, question: str, *,
        face: int | Face | None = None, align: bool = True,
    ) -> Image.Image:  # fmt: skip
        """The square that the model sees, red where it looks before it answers.

        Args:
          image, question, face, align: see `ask`.
        """
        asked = answers.found_question(self, question)
        pixels = self._square(image, face, align)
        found = answers.attention(self, self.image_ids(pixels)[0], asked)
        large = images.resize(pixels[0], (_SHOWN, _SHOWN))
        return Image.fromarray(pictures.heat(large, found))

    def _codes(self, image: image_io.Source, face, align: bool) -> Rows:
        """Rows whose answer is the codes int32 [1,n] of `_square`."""
        return Rows(self.image_ids, (self._square(image, face, align, 7),), "codes")

    def _square(
        self, image: image_io.Source, face, align: bool, level: int = 6
    ) -> np.ndarray:
        """The square that the model sees of a photo at its size, uint8 [1,S,S,3]."""
        pixels, notes = self.square(image_io.decode(image), face, align)
        verbs.warn(notes, level)
        return pixels


def _ranked_by(
    model: Talk2Face, text: str, attributes: Mapping[str, Any], rank_by: Any
) -> tuple[dict[str, ranking.Scorer], str]:
    """What is wanted of drawn faces, with what scores each, and the scorers' name.

    Each scorer reads what it has learnt from: the model itself its own keys and values
    under the prompt for them, others plain sentences.
    """
    learnt = model.learnt.questions
    if rank_by is None:
        wanted = {
            text: ranking.by_probability(model, "image_to_caption"),
            questions.stated(attributes, learnt): ranking.by_probability(
                model, "image_to_attributes"
            ),
        }
        return wanted, "probability"
    scorer, by = _scorer(rank_by)
    return dict.fromkeys((text, questions.in_words(attributes, learnt)), scorer), by


def _scorer(rank_by: Any) -> tuple[ranking.Scorer, str]:
    """What compares pictures with a sentence, and its name; see `synthesize`."""
    model = _opened(rank_by) if isinstance(rank_by, str) else rank_by
    if callable(model):
        return model, str(getattr(rank_by, "__name__", rank_by))
    if (editor := getattr(model, "editor", None)) is not None:
        return ranking.by_matching(editor), f"matching of {model.digest}"
    raise UserError(
        f"rank_by is {rank_by!r}; give a GPTFace, its name or folder, or 'clip:WEIGHTS'"
    )


@functools.lru_cache(maxsize=1)
def _opened(name: str) -> Any:
    """The scorer "clip:WEIGHTS", or the model of a name; kept for the next job."""
    if name.startswith(_CLIP):
        return ranking.by_clip(name.removeprefix(_CLIP))
    from gptface_jax.apps import api

    return api.load(name)


def open_model(path: pathlib.Path, tokenizer: Any, dtype: str | None) -> Talk2Face:
    """A Talk2Face with its tokenizer from a folder; arguments as of `load`."""
    return talk2face_run.open_model(Talk2Face, path, tokenizer, dtype)
