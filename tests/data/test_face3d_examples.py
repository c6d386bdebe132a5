"""Records as examples of 3D faces: whose coefficients they are, and how many."""

import dataclasses

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data.face3d_examples import FaceExample
from gptface_jax.data.facemodel import open_model
from gptface_jax.data.rendered import RenderedFaces
from gptface_jax.data.text import TextTokenizer

RNG = np.random.default_rng(0)


def example(model):
    sizes = {
        "id_coeffs": (len(model.identity),), "exp_coeffs": (53,),
        "albedo_coeffs": (24,), "sh_light": (9, 3), "pose": (6,),
    }  # fmt: skip
    words = TextTokenizer.train(["a happy person"] * 20, 60)
    return FaceExample(16, words, 5, sizes, model.digests)


def rendered(**options):
    return RenderedFaces(size=16, count=1, max_vertices=300, **options)[0]


def test_fewer_modes_than_the_face_model_has():
    few = example(open_model(max_vertices=300, num_identity=30))
    assert few(rendered(num_identity=30), RNG)["id_coeffs"].shape == (30,)
    with pytest.raises(UserError, match="with 40 modes .* with 30; .*num_identity=30"):
        few(rendered(), RNG)
    with pytest.raises(UserError, match="99 identity modes are asked for"):
        rendered(num_identity=99)
    with pytest.raises(UserError, match="-1 identity modes are asked for"):
        rendered(num_identity=-1)


def test_records_with_the_digest_from_before_are_known():
    model, record = open_model(max_vertices=300), rendered()
    older = dataclasses.replace(
        record, face3d={**record.face3d, "model": model.digests[1]}
    )
    assert example(model)(older, RNG)["known"] == 1
    other = dataclasses.replace(record, face3d={**record.face3d, "model": "another"})
    with pytest.raises(UserError, match="of face model another with"):
        example(model)(other, RNG)
