"""The bundled model does what it did: pictures, tags and scores as recorded."""

import numpy as np
import pytest
import recording

import gptface_jax
from gptface_jax.data import synthetic

STEPS = {"k": 8}  # tokens at a time: eight passes a picture


@pytest.fixture(scope="module")
def demo():
    return gptface_jax.load("demo64")


@pytest.fixture(scope="module")
def faces():
    drawn = synthetic.SyntheticFaces(size=64, count=2, seed=5)
    return [drawn[i].image for i in range(2)]


OUTPUTS = {
    "edit": lambda model, faces: model.edit(
        faces[0], "a woman wearing a hat", region="hat", samples=1, seed=3, **STEPS
    ),
    "inpaint": lambda model, faces: model.inpaint(
        faces[0], box=(16, 16, 48, 48), seed=3, **STEPS
    ),
    "restore": lambda model, faces: model.restore(
        faces[0], np.eye(64, dtype=np.uint8) * 255, thin=0, seed=3, **STEPS
    ),
    "stitch": lambda model, faces: model.stitch(*faces, seed=3, **STEPS),
    "sample": lambda model, faces: model.sample(
        1, "a man with a beard", seed=3, **STEPS
    )[0],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_pictures_are_as_recorded(name, demo, faces):
    made = OUTPUTS[name](demo, faces)
    image = np.asarray(getattr(made, "image", made))
    before = recording.expected_array(name, image)
    # Another processor or compiler may round one code or another differently.
    change = np.abs(image.astype(int) - before).max(-1)
    assert image.shape == before.shape and (change > 3).mean() < 0.1


def test_tags_are_as_recorded(demo, faces):
    said = [[tag.word, tag.match] for tag in demo.tag(faces[0], 5, seed=3)]
    before = recording.expected("demo.json", "tag", said)
    assert {w for w, _ in said} == {w for w, _ in before}
    np.testing.assert_allclose(dict(said)[before[0][0]], before[0][1], atol=0.02)


def test_scores_are_as_recorded(demo, faces):
    said = demo.match(faces[0], ["a man", "a woman wearing glasses"]).tolist()
    before = recording.expected("demo.json", "match", said)
    np.testing.assert_allclose(said, before, atol=0.01)
