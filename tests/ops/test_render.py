"""The renderer: what is visible, light, gradients, and meshes that are no surface."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.data import rendering
from gptface_jax.data.facemodel import open_model
from gptface_jax.ops import morphable, render

SIZE = 32


@functools.lru_cache
def basis():
    model = open_model(max_vertices=700)
    with jax.ensure_compile_time_eval():
        return {name: jnp.asarray(getattr(model, name)) for name in morphable.ARRAYS}


@functools.lru_cache
def coeffs(batch=1):
    rng = np.random.default_rng(3)
    light = np.tile(rendering.ambient(0.7), (batch, 1, 1))
    light[:, 1:4] += rng.normal(0, 0.2, (batch, 3, 3))
    return {
        "id_coeffs": jnp.array(rng.normal(size=(batch, 40)), jnp.float32),
        "exp_coeffs": jnp.array(rng.random((batch, 53)) * 0.3, jnp.float32),
        "albedo_coeffs": jnp.array(rng.normal(size=(batch, 24)), jnp.float32),
        "sh_light": jnp.array(light, jnp.float32),
        "pose": jnp.array(rng.normal(0, 0.15, (batch, 6)), jnp.float32),
    }


def soup(seed, count=60, scale=60.0):
    """Random triangles [V,3], [F,3]: of all sizes, any side to the viewer."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(-120, 120, (count, 1, 3))
    size = scale * rng.random((count, 1, 1)) ** 2
    points = middle + size * rng.normal(size=(count, 3, 3))
    return points.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def single(vertices, pose=(0,) * 6, size=SIZE, focal=None):
    vertices = jnp.asarray(vertices, jnp.float32)[None]
    return render.project(vertices, jnp.asarray([pose], jnp.float32), size, focal)


@pytest.mark.parametrize("focal", [None, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_visibility_is_that_of_rays(seed, focal):
    trimesh = pytest.importorskip("trimesh")
    vertices, triangles = soup(seed)
    pose = np.array([0.3, -0.4, 0.2, 0.05, -0.1, 0.1])
    found = render.rasterise(
        single(vertices, pose, focal=focal), jnp.asarray(triangles), SIZE, cull=False
    )[0]
    turned = vertices @ rendering.rotation(pose[:3]).T * np.exp(pose[5]) / render.REACH
    at = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x, y = np.meshgrid(at - pose[3], -at - pose[4])
    flat = np.stack([x, y], -1).reshape(-1, 2)
    if focal is None:
        origins = np.c_[flat, np.full(len(flat), 50.0)]
        ways = np.tile([0, 0, -1.0], (len(flat), 1))
    else:  # the pinhole is on the axis, shifted as the picture is
        origins = np.tile([0.0, 0, focal], (len(flat), 1))
        ways = np.c_[flat, np.full(len(flat), -focal)]
    mesh = trimesh.Trimesh(turned, triangles, process=False)
    expected = mesh.ray.intersects_first(origins, ways)
    # Triangles behind the camera aside, which rays would not meet either.
    wrong = np.asarray(found).reshape(-1) != expected
    assert (expected >= 0).sum() > 200 and wrong.sum() <= 1


@pytest.mark.parametrize("window", [2, 4, 64])
def test_windows_change_nothing(window):
    vertices, triangles = soup(5, 200, 40.0)
    given = single(vertices), jnp.asarray(triangles), SIZE, False
    np.testing.assert_array_equal(
        render.rasterise(*given), render.rasterise(*given, window=window)
    )


def test_it_is_the_renderer_in_numpy():
    c, b = coeffs(), basis()
    model = open_model(max_vertices=700)
    for focal in (None, 4.0):
        got = jax.jit(render.render_head, static_argnums=(2, 3))(b, c, SIZE, focal)
        one = {name: np.asarray(value[0]) for name, value in c.items()}
        vertices = model.vertices(one["id_coeffs"], one["exp_coeffs"])
        places, near = rendering.projected(vertices, one["pose"], SIZE, focal)
        np.testing.assert_allclose(got.projection.places[0], places, atol=1e-3)
        found = rendering.rasterise(places, near, model.triangles, SIZE)
        same = found.triangle == np.asarray(got.triangle[0])
        assert same.mean() > 0.995 and (found.triangle >= 0).mean() > 0.3
        colour = rendering.shade(
            found, vertices, model.triangles, model.colours(one["albedo_coeffs"]),
            one["sh_light"], rendering.rotation(one["pose"][:3]),
            near if focal else None,
        )  # fmt: skip
        got = np.clip(got.colour[0], 0, 1)
        np.testing.assert_allclose(got[same], colour[same], atol=2e-3)


def test_a_square_by_hand():
    """Half of the picture, at a depth of 10 mm, in front of a larger one behind."""
    near = np.array([[-62.5, -62.5, 10], [62.5, -62.5, 10], [62.5, 62.5, 10],
                     [-62.5, 62.5, 10]])  # fmt: skip
    far = near * [3, 3, 1] - [0, 0, 60]
    vertices = jnp.asarray(np.concatenate([near, far]), jnp.float32)[None]
    triangles = jnp.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    albedo = jnp.concatenate([jnp.ones((1, 4, 3)), jnp.full((1, 4, 3), 0.25)], 1)
    light, pose = render.ambient(0.5)[None], jnp.zeros((1, 6))
    draw = jax.jit(render.render, static_argnums=5)
    got = draw(vertices, albedo, triangles, light, pose, 8)
    assert got.alpha.min() == 1
    inner = np.zeros((8, 8), bool)
    inner[2:6, 2:6] = True
    np.testing.assert_allclose(got.colour[0, inner], 0.5, atol=1e-5)
    np.testing.assert_allclose(got.colour[0, ~inner], 0.125, atol=1e-5)
    np.testing.assert_allclose(got.depth[0], np.where(inner, 10, -50), atol=1e-4)


def test_light_from_the_left_and_harmonics_are_orthonormal():
    rng = np.random.default_rng(0)
    ways = rng.normal(size=(200_000, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    basis_ = np.asarray(render.harmonics(jnp.asarray(ways, jnp.float32)))
    gram = 4 * np.pi * basis_.T @ basis_ / len(ways)
    np.testing.assert_allclose(gram, np.eye(9), atol=0.03)
    np.testing.assert_allclose(basis_[:50], rendering.harmonics(ways[:50]), atol=1e-5)
    np.testing.assert_allclose(render.ambient(0.4), rendering.ambient(0.4), atol=1e-6)


GROUPS = [("id_coeffs", None), ("exp_coeffs", None), ("albedo_coeffs", None),
          ("sh_light", None), ("pose", slice(0, 3)), ("pose", slice(3, 5)),
          ("pose", slice(5, 6))]  # fmt: skip


@functools.lru_cache
def _loss(focal):
    b, c = basis(), coeffs()
    shown = render.render_head(b, c, SIZE, focal).triangle
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(1, SIZE, SIZE, 3)))

    @jax.jit
    def loss(coeffs):
        found = render.render(
            morphable.vertices(b, coeffs["id_coeffs"], coeffs["exp_coeffs"]),
            morphable.colours(b, coeffs["albedo_coeffs"]),
            b["triangles"], coeffs["sh_light"], coeffs["pose"], SIZE, focal=focal,
            shown=shown,
        )  # fmt: skip
        return jnp.sum(found.colour * weights) + 1e-2 * jnp.sum(found.depth)

    return loss, jax.jit(jax.grad(loss))(c)


@pytest.mark.parametrize("focal", [None, pytest.param(4.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("group", "part"), GROUPS)
def test_gradients_are_finite_differences(group, part, focal):
    loss, gradient = _loss(focal)
    part = slice(None) if part is None else part
    c, got = coeffs(), gradient[group][0, part]
    way = np.random.default_rng(1).normal(size=got.shape).astype(np.float32)
    whole = jnp.zeros_like(c[group]).at[0, part].set(way)
    step = {"id_coeffs": 0.02, "pose": 2e-4}.get(group, 5e-3)
    ends = [loss({**c, group: c[group] + sign * step * whole}) for sign in (1, -1)]
    expected = float(ends[0] - ends[1]) / (2 * step)
    assert expected == pytest.approx(float(jnp.sum(got * way)), rel=0.03, abs=0.05)


def test_splats_give_borders_a_gradient():
    """A square that moves: coverage of its border follows, which the hard one's does
    not."""
    square = jnp.array([[[-60.0, -60, 0], [60, -60, 0], [60, 60, 0], [-60, 60, 0]]])
    triangles = jnp.array([[0, 1, 2], [0, 2, 3]])

    def covered(shift, soft):
        pose = jnp.zeros((1, 6)).at[0, 3].set(shift)
        found = render.render(
            square, jnp.ones((1, 4, 3)), triangles, render.ambient()[None], pose, 16
        )
        alpha = render.splatted(found, triangles)[1] if soft else found.alpha
        return jnp.sum(alpha[0, :, 8:])

    slope = jax.jit(jax.grad(covered), static_argnums=1)
    assert slope(0.0, False) == 0
    # 7.7 pixels high, 8 pixels for each unit: about 61 for the whole border.
    gradient = slope(0.0, True)
    assert 25 < gradient < 100
    soft, hard = (jax.jit(covered, static_argnums=1)(0.0, x) for x in (True, False))
    assert float(soft) == pytest.approx(float(hard), rel=0.05)


@pytest.mark.parametrize("focal", [None, 2.0])
def test_what_is_no_surface_gives_no_nan(focal):
    """Triangles without area, seen from behind or edge-on, vertices behind the camera
    and at one place, and an empty picture: pictures and gradients are finite."""
    vertices, triangles = soup(2, 20)
    vertices[:9] = vertices[0]  # three points
    vertices[9:12] = [[0, 0, 0], [10, 10, 0], [20, 20, 0]]  # a line
    vertices[12:15, 2] = 1e4  # behind the camera
    vertices[15] = [0, 0, 2000]  # one corner of it
    triangles = np.concatenate([triangles, triangles[:, ::-1], [[0, 0, 0]]])
    batch = jnp.asarray(np.stack([vertices, vertices + [1e4, 0, 0]]), jnp.float32)

    def loss(vertices, pose, light):
        found = render.render(
            vertices, jnp.ones_like(vertices), jnp.asarray(triangles), light, pose,
            SIZE, focal=focal,
        )  # fmt: skip
        soft, alpha = render.splatted(found, jnp.asarray(triangles), 0.5)
        total = jnp.sum(found.colour**2) + jnp.sum(soft) + jnp.sum(alpha + found.depth)
        return total, found

    light = jnp.tile(render.ambient()[None], (2, 1, 1))
    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (value, found), gradients = both(batch, jnp.zeros((2, 6)), light)
    assert (
        np.isfinite(value) and found.alpha[0].sum() > 20 and found.alpha[1].sum() == 0
    )
    for gradient in gradients:
        assert np.isfinite(gradient).all()
    behind = np.isin(np.asarray(found.triangle[0]), [4, 5])
    assert focal is None or not behind.any()


def test_rotations():
    vectors = jnp.array([[0.0, 0, 0], [0, np.pi / 2, 0], [0.3, -0.2, 0.5]])
    found = render.rotation(vectors)
    np.testing.assert_allclose(found[0], np.eye(3), atol=1e-7)
    # About y: what looked at the viewer looks to the viewer's right.
    np.testing.assert_allclose(found[1] @ jnp.array([0.0, 0, 1]), [1, 0, 0], atol=1e-6)
    for matrix, vector in zip(found, vectors):
        np.testing.assert_allclose(
            matrix, rendering.rotation(np.asarray(vector)), atol=1e-5
        )
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
    gradient = jax.jacobian(lambda v: render.rotation(v[None])[0])(jnp.zeros(3))
    np.testing.assert_allclose(gradient[2, 1, 0], 1, atol=1e-6)
    assert np.isfinite(gradient).all()
