"""Figures of drawn faces by hand, and what is kept of each."""

import numpy as np
from PIL import Image

from gptface_jax.pipelines.results import Samples
from gptface_jax.protocols import synthesis


class Judge:
    attributes = ("Smiling", "Male")


def drawn(attribute: str, present: bool, logits) -> synthesis.Drawn:
    faces = [Image.new("RGB", (8, 8), (40 * i,) * 3) for i in range(len(logits))]
    text = f"lfw {attribute.lower()}: {present}".lower()
    asked = {"attribute": attribute, "present": present}
    return synthesis.Drawn(
        asked, Samples(faces, {"text": text, "seed": 7}), np.array(logits)
    )


FACES = [
    drawn("Smiling", True, [[2.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [3.0, 2.0]]),
    drawn("Smiling", False, [[2.0, -1.0], [-1.0, 1.0], [-1.0, 1.0], [-3.0, 2.0]]),
]


def test_what_is_asked_and_what_is_ruled_out():
    found = synthesis.carried(FACES, Judge)
    assert found == {"Smiling": {"asked": 0.75, "opposite": 0.25, "carried": 0.75}}


def test_every_face_has_a_row():
    rows = synthesis.samples(FACES, Judge)
    assert len(rows) == 8
    assert rows[4] == {
        "attribute": "Smiling", "present": False, "text": "lfw smiling: false",
        "seed": 7, "number": 0, "seen": {"Smiling": True, "Male": False},
    }  # fmt: skip


def test_the_sheet_has_a_row_of_faces_with_and_without():
    sheet = synthesis.sheet(FACES, shown=2)
    assert sheet.shape[1] == 4 * (96 + 8) + 8
    # Centres of the four: the first two of those asked, then of those ruled out.
    centres = [sheet[8 + 48, 8 + 48 + i * (96 + 8), 0] for i in range(4)]
    assert centres == [0, 40, 0, 40]
    # There may be fewer than that.
    assert synthesis.sheet(FACES, shown=9).shape[1] == 8 * (96 + 8) + 8
