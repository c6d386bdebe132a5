"""Models for the page that say the same of every photo, without networks."""

from __future__ import annotations

import numpy as np
import tiny_face3d
from PIL import Image

from gptface_jax.apps import verbs
from gptface_jax.apps.perception_api import Seen
from gptface_jax.core.errors import UserError
from gptface_jax.data import facemodel, rendering, schemes
from gptface_jax.pipelines.answers import Answer
from gptface_jax.pipelines.face_answers import HeadAnswer
from gptface_jax.pipelines.faces3d import Head3D
from gptface_jax.pipelines.perception import FaceSeen
from gptface_jax.pipelines.results import Samples
from gptface_jax.pipelines.views import View


class Sees(verbs.Facade):
    """Says the same of every photo: hair above, skin below."""

    frame, predicts_parsing = None, True

    def perceive(self, image, *, face=None, align=True):
        seen = FaceSeen(
            number=1,
            view=View.crop((0, 0, 48, 48)),
            landmarks=np.array([[24.0, 30.0]]),
            parsing=np.uint8([[17, 17], [1, 1]]),
            classes=schemes.PARSING["celebamask-hq"],
            parsing_confidence=0.75,
            age=31.4,
            age_spread=6.6,
            expression="happiness",
            expressions={"neutral": 0.2, "happiness": 0.77, "fear": 0.03},
            attributes={"Smiling": 0.9, "Wearing_Hat": 0.2},
        )
        photo = np.asarray(image.convert("RGB"))
        return Seen(photo, (seen,) * (1 if face else 2), "digest")


class Solid(verbs.Facade):
    """Makes the same head of every photo and sentence."""

    frame, face_model = None, facemodel.open_model(max_vertices=300)

    def face3d(self, image=None, *, text="", seed=None, face=None, align=True):
        weights = self.face_model.weights(mouthSmile_L=0.8, mouthSmile_R=0.63)
        coeffs = {
            "id_coeffs": np.zeros(40), "albedo_coeffs": np.zeros(24),
            "exp_coeffs": weights, "sh_light": rendering.ambient(0.8),
            "pose": np.array([0, 0.1234, 0, 0, 0, 0.05]),
        }  # fmt: skip
        coeffs = {name: np.float32(value) for name, value in coeffs.items()}
        return Head3D(coeffs, self.face_model, {"notes": [], "text": text})


class Talks(verbs.Facade):
    """Answers and draws without networks; keeps what it was asked for."""

    frame, learnt = None, tiny_face3d.learnt()

    def __init__(self):
        self.asked = []

    def ask(self, image, question, *, face=None, align=True):
        if question == "weather":
            raise UserError("no question 'weather'")
        known = question == "expression"
        value = "happiness" if known else None
        return Answer(question, value or "mumble", value, 0.934)

    def answers(self, image, *, face=None, align=True):
        return [self.ask(image, "expression")] * 2

    def caption(self, image, *, face=None, align=True):
        return [("a happy person", 0.5)]

    def attention(self, image, question, *, face=None, align=True):
        return Image.new("RGB", (8, 8), (200, 0, 0))

    def synthesize(self, text="", attributes="", count=1, **options):
        if not text and not attributes:
            raise UserError("there is nothing to follow")
        self.asked.append((text, attributes, count, options))
        pictures = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in range(count)]
        details = {"grid": (1, 1), "edited": False, "software": "tests"}
        return Samples(pictures, {"notes": [], **details})


class Says(Solid):
    """A `Solid` that answers, too."""

    learnt = tiny_face3d.learnt()

    def ask_with_head(self, image, question="", *, face=None, align=True):
        if question not in ("", "expression"):
            raise UserError(f"no question '{question}'")
        words = "happiness" if question else "a face"
        answer = Answer(question or "description", words, words, 0.934)
        return HeadAnswer(answer, self.face3d(image), 0.5, missing=False)
