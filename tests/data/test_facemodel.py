"""The face models: one interface, units, readers, decimation, the procedural head."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.sparse import linalg

from gptface_jax.core.errors import UserError
from gptface_jax.data import schemes
from gptface_jax.data.facemodel import complexion, head, ict, open_model, surface
from gptface_jax.data.facemodel.model import _signs
from gptface_jax.data.faces import palette

ICT = "../shared/data/ict_face_light.npz"


@pytest.fixture(scope="module")
def model():
    return open_model()


def test_procedural_head(model):
    assert 2500 < len(model.triangles) < 3500
    assert len(model.identity) == 40 and len(model.albedo) == 24
    assert len(model.expression_names) == 53 and "jawOpen" in model.expression_names
    # As large as a head, in millimetres.
    low, high = model.mean.min(0), model.mean.max(0)
    assert np.all(high - low > [150, 200, 180]) and np.all(high - low < [220, 310, 240])
    outer = np.linalg.norm(
        model.mean[model.landmarks[36]] - model.mean[model.landmarks[45]]
    )
    assert 80 < outer < 100
    # Every region that it claims to have.
    shown = set(model.regions.tolist())
    assert {palette.SKIN, palette.NOSE, palette.HAIR, palette.U_LIP, palette.L_LIP,
            palette.L_BROW, palette.R_BROW, palette.L_EYE, palette.R_EYE, palette.MOUTH,
            palette.NECK, palette.L_EAR, palette.R_EAR} == shown  # fmt: skip


def test_landmarks_are_symmetric(model):
    points = model.mean[model.landmarks]
    mirror = schemes.LANDMARKS["ibug68"]
    np.testing.assert_allclose(points[mirror] * [-1, 1, 1], points, atol=0.01)


def test_normals_point_outwards(model):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.Trimesh(model.mean, model.triangles, process=False)
    np.testing.assert_allclose(
        surface.normals(model.mean.astype(float), model.triangles),
        _area_weighted(mesh), atol=1e-5,
    )  # fmt: skip
    skin = np.isin(model.regions, (palette.SKIN, palette.HAIR, palette.NOSE))
    middles, ways = mesh.triangles_center[skin], mesh.face_normals[skin]
    outward = (middles * [1, 1, 1] * ways).sum(1)
    assert (outward > 0).mean() > 0.97


def _area_weighted(mesh):
    total = np.zeros_like(mesh.vertices)
    for i in range(3):
        np.add.at(total, mesh.faces[:, i], mesh.face_normals * mesh.area_faces[:, None])
    return total / np.linalg.norm(total, axis=1, keepdims=True)


def test_expressions_do_what_their_names_say(model):
    def moved(**weights):
        points = model.vertices((), model.weights(**weights))[model.landmarks]
        return points - model.mean[model.landmarks]

    assert moved(jawOpen=1)[8, 1] < -15  # the chin goes down
    assert abs(moved(jawOpen=1)[51, 1]) < 1  # the upper lip stays
    smile = moved(mouthSmile_L=1)
    assert smile[54, 1] > 5 and abs(smile[48]).max() < 1  # the subject's left corner
    assert moved(browInnerUp_R=1)[21, 1] > 4
    blink = model.vertices((), model.weights(eyeBlink_L=1))[model.landmarks]
    open_, closed = (p[44, 1] - p[46, 1] for p in (model.mean[model.landmarks], blink))
    assert open_ > 7 and abs(closed) < 0.6
    with pytest.raises(UserError, match="did you mean 'jawOpen'"):
        model.weights(jawopen=1)


def test_albedo_modes_keep_teeth_and_whites(model):
    mouth = surface.vertex_shares(
        len(model.mean), model.triangles, model.regions == palette.MOUTH
    )
    assert np.abs(model.albedo[:, mouth == 1]).max() == 0
    # Colours of people are reached: skin as it was drawn.
    rng, colouring = np.random.default_rng(0), complexion.Colouring(model)
    material = surface.materials(model)
    found = np.stack([colouring(complexion.sample(rng)) for _ in range(300)])
    assert np.abs(found.mean(0)).max() < 0.25 and np.all(found.std(0) < 1.15)
    person = complexion.sample(rng)
    colours = model.colours(colouring(person))
    for number, colour in enumerate(person.colours):
        got = colours[material == number].mean(0)
        np.testing.assert_allclose(got, colour, atol=0.06)


def test_decimation_keeps_vertices_and_landmarks(model):
    small = open_model(max_vertices=900)
    assert len(small.mean) <= 900
    rng = np.random.default_rng(0)
    coeffs = rng.normal(size=40), rng.random(53)
    np.testing.assert_array_equal(
        small.vertices(*coeffs)[small.landmarks],
        model.vertices(*coeffs)[model.landmarks],
    )
    assert {tuple(v) for v in small.mean} <= {tuple(v) for v in model.mean}
    # The surface stays where it was: no hole, no fold that shows.
    from scipy.spatial import cKDTree

    far, _ = cKDTree(small.mean).query(model.mean)
    assert np.percentile(far, 99) < 30
    with pytest.raises(UserError, match="100 vertices cannot hold a face"):
        open_model(max_vertices=100)


def test_saved_and_read_again(model, tmp_path):
    model.save(tmp_path / "mine.npz")
    again = open_model(tmp_path / "mine.npz")
    assert again.digest == model.digest
    assert again.expression_names == model.expression_names
    np.testing.assert_array_equal(again.identity, model.identity)


def test_digests_know_what_coefficients_mean(model):
    """Names, order and sign count; files with the digest from before open still."""
    small = open_model(max_vertices=300)
    assert small.digest == small.digests[0] != small.digests[1]
    for change in (
        {"identity": -small.identity},
        {"identity": small.identity[::-1]},
        {"expression": small.expression[::-1]},
        {"albedo": np.concatenate([-small.albedo[:1], small.albedo[1:]])},
        {"expression_names": small.expression_names[::-1]},
        {"identity_names": ()},
    ):
        other = dataclasses.replace(small, **change)
        assert other.digest != small.digest, change.keys()
        assert other.digests[1] == small.digests[1]  # which knew nothing of it
    # As another processor rounds: no sign is near to its change.
    rng = np.random.default_rng(0)
    for name in ("identity", "expression", "albedo"):
        value = getattr(model, name)
        noise = 3e-3 * rng.normal(size=value.shape) * value.std((1, 2), keepdims=True)
        np.testing.assert_array_equal(_signs(value + noise), _signs(value))


def test_the_order_of_albedo_modes_is_no_rounding_error(model, monkeypatch):
    given = model.mean, model.triangles, surface.materials(model), (0, 2, 1, 3)
    exact, real = surface.albedo_modes(*given), linalg.eigsh
    rng = np.random.default_rng(0)

    def rounded(*arguments, **options):
        values, vectors = real(*arguments, **options)
        return values, vectors + 1e-14 * rng.normal(size=vectors.shape)

    monkeypatch.setattr(linalg, "eigsh", rounded)
    np.testing.assert_allclose(surface.albedo_modes(*given), exact, atol=1e-6)


def test_folder_of_obj_files(tmp_path):
    """An ICT-FaceKit folder: centimetres, faces of four corners, names of files."""
    points = head.landmarks()
    vertices = np.concatenate([points, [[0, 0, 0]]]) / 10
    faces = [(i, i + 1, i + 2, 68) for i in range(60)]

    def write(name, shift):
        lines = [f"v {x} {y} {z}" for x, y, z in vertices + shift]
        lines += ["vt 0 0"] + ["f " + " ".join(f"{v + 1}/1" for v in f) for f in faces]
        (tmp_path / name).write_text("\n".join(lines) + "\n")

    write(ict.NEUTRAL, 0)
    write("identity000.obj", np.array([0.1, 0, 0]))
    write("jawOpen.obj", np.array([0, -0.2, 0]))
    with pytest.raises(UserError, match=ict.INDICES):
        open_model(tmp_path)
    marks = {"idx_to_landmark_verts": list(range(68))}
    (tmp_path / ict.INDICES).write_text(json.dumps(marks))
    model = open_model(tmp_path)
    assert model.expression_names == ("jawOpen",)
    np.testing.assert_allclose(model.identity[0, 0], [1, 0, 0], atol=1e-4)  # mm
    np.testing.assert_allclose(model.expression[0, 5], [0, -2, 0], atol=1e-4)
    assert (model.triangles[:, :3] < 69).all(1).sum() == 120
    (tmp_path / "jawOpen.obj").write_text("v 0 0 nine\n")
    with pytest.raises(UserError, match="line 1 is no vertex"):
        ict.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"triangles": np.full((2, 3), 10**6)}, "triangles are no vertices from 0 to"),
        ({"triangles": np.full((2, 3), -1)}, "triangles are no vertices from 0 to"),
        ({"landmarks68": np.arange(60)}, r"landmarks are \[60\], not \[68\]"),
        ({"mean": np.float32(3)}, "mean are"),
        ({"mean": np.array(["a"])}, "arrays of another kind"),
        ({"identity": np.full((2, 69, 3), np.nan)}, "identity hold numbers"),
    ],
)  # fmt: skip
def test_bad_compact_files_are_named(tmp_path, change, said):
    points = np.concatenate([head.landmarks(), [[0, 0, 0]]]) / 10
    modes = np.zeros((2, 69, 3))
    arrays = {
        "mean": points, "identity": modes, "expression": modes,
        "expression_names": np.array(["a", "b"]), "landmarks68": np.arange(68),
        "triangles": np.array([[0, 1, 2], [1, 2, 3]]),
    }  # fmt: skip
    np.savez(tmp_path / "ict.npz", **{**arrays, **change})
    with pytest.raises(UserError, match=said):
        open_model(tmp_path / "ict.npz")


@pytest.mark.shared
def test_compact_ict_is_in_millimetres():
    import pathlib

    if not pathlib.Path(ICT).exists():
        pytest.skip("no ../shared")
    model = open_model(ICT)
    points = model.mean[model.landmarks]
    assert 85 < np.linalg.norm(points[36] - points[45]) < 93  # 8.9 cm
    assert len(model.identity) == 100 and len(model.expression) == 53
    assert set(model.expression_names) == set(open_model().expression_names)
    lowered = model.vertices((), model.weights(jawOpen=1)) - model.mean
    assert lowered[model.landmarks[8], 1] < -10
    shown = set(model.regions.tolist())
    assert {palette.U_LIP, palette.L_BROW, palette.NOSE, palette.L_EAR} <= shown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["mean"].__setitem__((3, 1), np.nan), "'mean' holds numbers"),
        (lambda a: a.update(identity=a["identity"][:, :-1]), "'identity' is"),
        (lambda a: a["triangles"].__setitem__((0, 0), 10**6), "'triangles' goes"),
        (lambda a: a.pop("albedo"), "no array albedo"),
        (lambda a: a.update(landmarks=a["landmarks"][:60]), "'landmarks' is"),
        (lambda a: a.update(expression_names=np.array(["a"])), "1 expression_names"),
        (lambda a: a.update(mean=np.float32(3)), "arrays of another kind"),
        (lambda a: a.update(albedo=np.array(["a"])), "arrays of another kind"),
        (lambda a: a.update(albedo_mean=255 * a["albedo_mean"]), "is sRGB from 0 to 1"),
        (lambda a: a.update(mean=a["mean"] / 1000), "are 0.092 mm .* in millimetres"),
    ],
)  # fmt: skip
def test_bad_files_are_named(model, tmp_path, change, said):
    model.save(tmp_path / "mine.npz")
    arrays = dict(np.load(tmp_path / "mine.npz"))
    change(arrays)
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=said):
        open_model(tmp_path / "bad.npz")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_model(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match="cannot be read"):
        open_model(tmp_path / "cut.npz")
    with pytest.raises(UserError, match="99 identity modes"):
        open_model(num_identity=99)
    with pytest.raises(UserError, match="41 coefficients of identity"):
        open_model().vertices(np.zeros(41))
