"""Rendered faces: every label is exact, in shards and in moved pictures too."""

import dataclasses
import pickle

import numpy as np
import pytest

from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, rendering, shard_format, sources
from gptface_jax.data.facemodel import complexion, open_model
from gptface_jax.data.faces import palette
from gptface_jax.data.geometry import Similarity
from gptface_jax.data.phrases import EXPRESSIONS
from gptface_jax.data.rendered import ATTRIBUTES, RenderedFaces
from gptface_jax.data.rendered import head as heads
from gptface_jax.data.rendered.source import draw

SIZE = 64


@pytest.fixture(scope="module")
def faces():
    return RenderedFaces(size=SIZE, count=30, seed=5)


@pytest.fixture(scope="module")
def records(faces):
    return [faces[i] for i in range(8)]


def test_a_record_depends_on_its_number_alone(faces, records):
    other = pickle.loads(pickle.dumps(RenderedFaces(SIZE, 4, seed=5, offset=3)))
    again = other[0]
    np.testing.assert_array_equal(again.image, records[3].image)
    assert again.text == records[3].text and again.identity == 3
    assert not np.array_equal(faces[-1].image, records[0].image)
    assert faces.fingerprint() == other.fingerprint() != ""


def test_landmarks_depth_and_classes_belong_to_the_mesh(faces, records):
    model = faces.face_model
    for record in records:
        head = record.face3d
        np.testing.assert_allclose(
            head["vertices"], model.vertices(head["id_coeffs"], head["exp_coeffs"]),
            atol=1e-4,
        )  # fmt: skip
        places, _ = rendering.projected(head["vertices"], head["pose"], SIZE)
        np.testing.assert_allclose(record.landmarks, places[model.landmarks], atol=1e-3)
        x, y = np.round(record.landmarks[30]).astype(int)  # the tip of the nose
        turned = head["vertices"] @ rendering.rotation(head["pose"][:3]).T
        assert head["depth"][y, x] == pytest.approx(
            turned[model.landmarks[30], 2], abs=6
        )
        shown = np.isfinite(head["depth"])
        assert record.parsing[y, x] in (palette.NOSE, palette.SKIN)
        hidden = (record.parsing == 0) | (record.parsing == palette.CLOTH)
        np.testing.assert_array_equal(shown, ~hidden)
        assert record.expression in EXPRESSIONS and record.source == "rendered"
        assert set(record.labels) <= set(ATTRIBUTES)


def test_nothing_is_said_that_the_face_model_cannot_show(tmp_path):
    whole = open_model(max_vertices=300)
    bald = np.where(whole.regions == palette.HAIR, palette.SKIN, whole.regions)
    dataclasses.replace(whole, regions=bald, expression_names=()).save(
        tmp_path / "mine.npz"
    )
    faces = RenderedFaces(16, 12, model=str(tmp_path / "mine.npz"))
    for record in (faces[i] for i in range(12)):
        assert record.expression == "neutral"
        hidden = {"Smiling", "Mouth_Slightly_Open", "Bald"}
        assert not hidden & {*record.labels} and record.facts["eyes"]
        for words in (record.text, *record.texts, *record.labels, *record.facts):
            assert "hair" not in words.lower() and "bald" not in words
    # Without albedo modes all have one colour.
    dataclasses.replace(whole, albedo=whole.albedo[:0]).save(tmp_path / "grey.npz")
    record = RenderedFaces(16, 1, model=str(tmp_path / "grey.npz"))[0]
    assert {*record.labels} <= {"Smiling", "Mouth_Slightly_Open", *heads._MODES}
    assert {*record.facts} <= {"pose", "light"}
    # Of a smile enough is there, of the other expressions too little.
    named = tuple(
        name if name.startswith(("mouthSmile", "jawOpen")) else f"other_{i}"
        for i, name in enumerate(whole.expression_names)
    )
    smiles = dataclasses.replace(whole, expression_names=named)
    shown = [word for word in heads.RECIPES if heads.can_show(smiles, word)]
    assert shown == ["neutral", "happiness"]


def test_words_are_true(faces):
    model = faces.face_model
    found = [faces.head(i) for i in range(30)]
    labels = [heads.labels(model, head) for head in found]
    for head, said in zip(found, labels):
        smile = head.exp_coeffs[model.expression_names.index("mouthSmile_L")]
        assert said.get("Smiling", 0.5) != (smile < 0.2)
        hair = [n for n in ("Black_Hair", "Brown_Hair", "Blond_Hair") if said[n]]
        assert not (said["Bald"] and hair)
        assert ("hair" in heads.facts(model, head)) == (not said["Bald"])
    assert {head.expression for head in found} == set(EXPRESSIONS)
    # A turn to the picture's right shows as such: the nose goes right.
    turned = dataclasses.replace(found[0], pose=np.float32([0, 0.5, 0, 0, 0, 0]))
    nose = draw(model, turned, SIZE).landmarks[30, 0]
    assert nose > SIZE / 2 + 5
    aside = dataclasses.replace(turned, angles=(29, 0, 0))
    assert heads.facts(model, aside)["pose"] == "right"
    lit = dataclasses.replace(turned, lit_from=np.array([0, 0.9, 0.4]))
    assert heads.detail(heads.facts(model, lit)).endswith("lit from above")


def test_colours_of_a_person_are_in_the_picture(faces):
    model, colouring = faces.face_model, complexion.Colouring(faces.face_model)
    rng = np.random.default_rng(1)
    head = heads.sample(model, colouring, rng)
    plain = {"sh_light": rendering.ambient(1.0), "pose": np.zeros(6, np.float32)}
    head = dataclasses.replace(
        head, albedo_coeffs=colouring(head.person), exp_coeffs=0 * head.exp_coeffs,
        **plain,
    )  # fmt: skip
    shown = draw(model, head, SIZE)
    hair = shown.image[shown.parsing == palette.HAIR].mean(0) / 255
    np.testing.assert_allclose(hair, head.person.colours[1], atol=0.1)
    assert (shown.image[0, 0] == 128).all()


def test_rotation_vectors():
    rng = np.random.default_rng(0)
    for vector in rng.normal(0, 0.8, (20, 3)):
        matrix = rendering.rotation(vector)
        np.testing.assert_allclose(rendering.vector_of(matrix), vector, atol=1e-9)
    vector = heads.rotation_vector(0.3, 0, 0)
    np.testing.assert_allclose(vector, [0, 0.3, 0], atol=1e-12)


def test_a_moved_picture_has_a_moved_pose(faces, records):
    """A picture turned and enlarged is what the moved pose and light show."""
    record, model = records[0], faces.face_model
    angle = 0.3
    way = Similarity(1.2 * np.cos(angle), 1.2 * np.sin(angle), 9, -25)
    moved = geometry.moved(record, way, (96, 96))
    head = moved.face3d
    places, near = rendering.projected(head["vertices"], head["pose"], 96)
    np.testing.assert_allclose(moved.landmarks, places[model.landmarks], atol=1e-2)
    assert "depth" not in head
    found = rendering.rasterise(places, near, model.triangles, 96)
    colour = rendering.shade(
        found, head["vertices"], model.triangles, model.colours(head["albedo_coeffs"]),
        head["sh_light"], rendering.rotation(head["pose"][:3].astype(float)),
    )  # fmt: skip
    inner = found.triangle >= 0
    difference = np.abs(colour - moved.image / 255)[inner].mean()
    assert difference < 0.03
    wrong = dict(head, sh_light=record.face3d["sh_light"])
    assert not np.allclose(wrong["sh_light"], head["sh_light"], atol=0.02)
    assert geometry.mirrored(record).face3d is None
    assert geometry.squared(record, 32).face3d["pose"] == pytest.approx(
        record.face3d["pose"], abs=1e-6
    )


def test_shards_keep_all_of_it(records):
    again = shard_format.unpack(shard_format.pack(records[1]))
    assert again.face3d["model"] == records[1].face3d["model"]
    for name in ("pose", "sh_light", "vertices", "depth", "id_coeffs"):
        np.testing.assert_array_equal(again.face3d[name], records[1].face3d[name])
    assert again.texts == records[1].texts and again.facts == records[1].facts


def test_prepare_writes_them(tmp_path):
    arguments = "prepare --images rendered --limit 2 --data size=32 --workers 1 --quiet"
    assert main([*arguments.split(), "--out", str(tmp_path / "set")]) == 0
    source = sources.open_source({"kind": "arrayrecord", "path": tmp_path / "set"})
    assert len(source) == 2 and source[1].face3d["depth"].shape == (32, 32)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 4}, "size 4"),
        ({"count": -1}, "count -1"),
        ({"model": "none.npz"}, "does not exist"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(UserError, match=said):
        sources.open_source({"kind": "rendered", **options})
