"""3D heads as files, pictures and numbers, of photographs and of texts."""

import json
import struct

import numpy as np
import pytest
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import rendering
from gptface_jax.data.facemodel import open_model
from gptface_jax.data.geometry import Similarity
from gptface_jax.data.rendered.head import rotation_vector, shapes
from gptface_jax.pipelines import faces3d, mesh_files
from gptface_jax.pipelines.faces3d import Head3D
from gptface_jax.pipelines.views import View


@pytest.fixture(scope="module")
def model():
    return open_model(max_vertices=900)


def head(model, **changes):
    rng = np.random.default_rng(0)
    coeffs = {
        "id_coeffs": rng.normal(size=40), "exp_coeffs": shapes(model, "happiness", 1),
        "albedo_coeffs": np.zeros(24), "sh_light": rendering.ambient(0.9),
        "pose": np.r_[rotation_vector(0.4, -0.2, 0.1), 0, 0, 0.1],
    }  # fmt: skip
    coeffs = {k: np.float32(v) for k, v in coeffs.items()}
    return Head3D({**coeffs, **changes}, model, {"seed": 0})


def test_glb_opens_with_its_colours(model, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    one = head(model)
    mesh_files.write(tmp_path / "face.glb", one.vertices, model.triangles, one.colours)
    options = {"force": "mesh", "process": False, "skip_materials": True}
    mesh = trimesh.load(tmp_path / "face.glb", **options)
    assert mesh.vertices.shape == model.mean.shape
    np.testing.assert_allclose(mesh.vertices * 1000, one.vertices, atol=1e-3)  # metres
    np.testing.assert_array_equal(mesh.faces, model.triangles)
    # glTF's colours are in proportion to light: back to sRGB.
    linear = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255.0
    back = np.where(linear <= 0.0031308, 12.92 * linear,
                    1.055 * linear ** (1 / 2.4) - 0.055)  # fmt: skip
    assert np.abs(back - one.colours).max() < 0.08  # a byte of light in the dark
    assert np.abs(back - one.colours).mean() < 0.01
    content = (tmp_path / "face.glb").read_bytes()
    assert struct.unpack("<4sII", content[:12]) == (b"glTF", 2, len(content))


def test_obj_opens_in_millimetres(model, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    one = head(model)
    mesh_files.write(tmp_path / "face.obj", one.vertices, model.triangles, one.colours)
    mesh = trimesh.load(tmp_path / "face.obj", force="mesh", process=False)
    np.testing.assert_allclose(mesh.vertices, one.vertices, atol=1e-4)
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255.0
    np.testing.assert_allclose(colours, one.colours, atol=0.006)


def test_what_is_written_beside_a_mesh(model, tmp_path):
    paths = head(model).save(tmp_path / "deep" / "face.obj")
    assert [p.name for p in paths] == ["face.obj", "face.turntable.png", "face.json"]
    said = json.loads(paths[-1].read_text())
    assert said["face_model"] == model.digest and said["seed"] == 0
    assert said["angles"]["yaw"] == pytest.approx(np.rad2deg(0.4), abs=1e-3)
    assert said["angles"]["pitch"] == pytest.approx(np.rad2deg(-0.2), abs=1e-3)
    assert said["angles"]["roll"] == pytest.approx(np.rad2deg(0.1), abs=1e-3)
    assert next(iter(said["expressions"])).startswith("mouthSmile")
    assert len(said["coefficients"]["id_coeffs"]) == 40
    assert Image.open(paths[1]).size == (7 * 192, 192)


def test_the_overlay_lies_on_the_face(model):
    """A head is found again where a turned square of the photo was looked at."""
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (120, 160, 3), np.uint8)
    way = Similarity(dx=-30, dy=-20).then(Similarity(0.98, 0.17)).scaled(1.0)
    view = View(way, 80, (20, 10, 130, 115), face=True)
    one = Head3D(head(model).coeffs, model, {}, photo, view)
    shown = one.overlay()
    changed = (shown != photo).any(-1)
    covered = view.covered(photo.shape[:2])
    assert 1000 < changed.sum() < covered.sum() and not (changed & ~covered).any()
    places, _ = rendering.projected(one.vertices, one.coeffs["pose"], 80)
    tip = view.way.inverse.points(places[model.landmarks[30]] + 0.5).astype(int)
    expected, _ = one.render(80)
    x, y = np.round(places[model.landmarks[30]]).astype(int)
    assert np.abs(shown[tip[1], tip[0]].astype(int) - expected[y, x]).max() < 40
    with pytest.raises(UserError, match="of a text"):
        head(model).overlay()


def test_the_mean_frame_is_a_face_upright(model):
    frame = faces3d.mean_frame(model)
    assert frame.shape == (5, 2) and (frame > 0.2).all() and (frame < 0.8).all()
    np.testing.assert_allclose(frame[[0, 3], 0] + frame[[1, 4], 0], 1, atol=1e-3)
    assert frame[0, 0] < frame[1, 0] and frame[0, 1] < frame[2, 1] < frame[3, 1]


def test_bad_places_and_numbers(model, tmp_path):
    one = head(model)
    with pytest.raises(UserError, match=r"use \.glb or \.obj"):
        one.save(tmp_path / "face.stl")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        one.save(tmp_path / "file" / "face.glb")
    broken = head(model, id_coeffs=np.full(40, np.nan, np.float32))
    with pytest.raises(UserError, match="not finite"):
        broken.save(tmp_path / "face.glb")
    assert not (tmp_path / "face.glb").exists()
    for wrong, said in (
        ({"shade": 1}, "no shade; it has id_coeffs"),
        ({"pose": [0] * 5}, r"pose of a head is \[5\]; give \[6\]"),
        ({"exp_coeffs": 0.5}, r"exp_coeffs of a head is \[\]; give \[53\]"),
        ({"sh_light": [0.0] * 27}, r"sh_light of a head is \[27\]; give \[9, 3\]"),
        ({"id_coeffs": ["a"] * 40}, "id_coeffs of a head holds what is no number"),
        ({"pose": [0, 0, 0, 0, 0, np.inf]}, "pose of a head holds .* not finite"),
    ):
        with pytest.raises(UserError, match=said):
            one.changed(**wrong)
    with pytest.raises(UserError, match="pose of a head holds .* not finite"):
        one.posed(np.nan, 0, 0)
    with pytest.raises(UserError, match="up nan .* use finite numbers"):
        one.lit(0, np.nan)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("pose", [0] * 5, r"face.json': pose of a head is \[5\]; give \[6\]"),
        ("sh_light", [0.0] * 27, r"sh_light of a head is \[27\]"),
        ("id_coeffs", [0.0] * 3, r"id_coeffs of a head is \[3\]; give \[40\]"),
        ("pose", [np.nan] * 6, "numbers that are not finite"),
    ],
)
def test_files_of_heads_are_checked(model, tmp_path, name, value, said):
    one = head(model).described()
    one["coefficients"][name] = value
    (tmp_path / "face.json").write_text(json.dumps(one))
    with pytest.raises(UserError, match=said):
        faces3d.opened(tmp_path / "face.json", model)


def test_a_head_is_mixed_with_what_is_behind_it_once(model):
    """Over the grey of its own picture it is that picture, along its border too."""
    one = head(model)
    shown, solid = one.render(80)
    assert ((solid > 0) & (solid < 1)).sum() > 50
    grey = np.full((80, 80, 3), 140, np.uint8)
    assert np.abs(one.over(grey).astype(int) - shown).max() <= 1
    photo = np.full((100, 120, 3), 140, np.uint8)
    view = View.crop((20, 10, 100, 90))
    over = Head3D(one.coeffs, model, {}, photo, view).overlay()
    assert np.abs(over[view.slices].astype(int) - shown).max() <= 2


def test_a_head_is_turned_and_lit_by_degrees(model):
    one = head(model)
    turned = one.posed(25, -10, 5)
    assert turned.angles == pytest.approx(
        {"yaw": 25, "pitch": -10, "roll": 5}, abs=1e-3
    )
    np.testing.assert_array_equal(turned.coeffs["pose"][3:], one.coeffs["pose"][3:])
    same = one.posed(*one.angles.values()).coeffs["pose"]
    np.testing.assert_allclose(same, one.coeffs["pose"], atol=1e-5)
    # A lamp before the head, moved to the picture's right, then above it.
    lamp = rendering.ambient(0.5)
    lamp[2] = 0.4
    before = head(model, sh_light=lamp)
    right, above = (before.lit(*way).coeffs["sh_light"] for way in ((90, 0), (0, 90)))
    wanted = np.zeros((2, 9, 3))
    wanted[:, 0], wanted[0, 3], wanted[1, 1] = lamp[0], 0.4, 0.4
    np.testing.assert_allclose([right, above], wanted, atol=1e-5)
    half = before.lit(0, 0, 0.5).coeffs["sh_light"]
    np.testing.assert_allclose(half, lamp / 2, atol=1e-6)
