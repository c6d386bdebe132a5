"""Differentiable pictures of triangle meshes, without custom kernels (SPEC D.5).

Which triangle a pixel shows is found without gradient; then its place in the triangle
is computed anew from the projected corners, so that gradients reach geometry by
barycentric coordinates and normals, and colour, light and pose as well. The border of a
shape has no gradient but by `splatted`.

Camera: `pose` float [B,6], a rotation vector (radians), a shift (x, y) and the
logarithm of the scale. A point X mm, turned by the rotation, is seen at

    (x, y) = s (X, Y) / (1 - s Z / focal) + shift,    s = exp(pose[5]) / REACH

in half sides of the picture, x to the right and y upwards; with no focal length the
denominator is 1 (weak perspective). `data.rendering` is the same in numpy.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gptface_jax.ops import morphable

REACH = 125.0  # mm of half a picture at scale 1
# Constants of the real spherical harmonics 1; y, z, x; xy, yz, 3z^2-1, xz, x^2-y^2.
HARMONICS = (
    0.28209479, 0.48860251, 0.48860251, 0.48860251, 1.09254843, 1.09254843, 0.31539157,
    1.09254843, 0.54627422,
)  # fmt: skip
_NEAREST = 0.05  # of 1 - s Z / focal: what is nearer is behind the camera
_LEAST_AREA = 1e-9  # square pixels, times two
_EDGE = -1e-6  # least barycentric coordinate: neighbours leave no gap by rounding
_BLOCK = 32  # large triangles that are looked at together
_SPLAT = 0.5  # standard deviation of a splat in pixels


class Projection(NamedTuple):
    """Vertices in a picture.

    Attributes:
      places: float32 [B,V,2] (x, y) in pixels, pixel centres at integers.
      nearness: float32 [B,V], larger is nearer; linear in the picture.
      valid: bool [B,V], False behind the camera.
    """

    places: jax.Array
    nearness: jax.Array
    valid: jax.Array


class Rendering(NamedTuple):
    """Pictures.

    Attributes:
      colour: float32 [B,S,S,3], 0 where nothing is; may leave 0..1.
      alpha: float32 [B,S,S], 1 where something is.
      triangle: int32 [B,S,S], -1 where nothing is.
      depth: float32 [B,S,S] mm towards the viewer from the middle of the head, 0 where
        nothing is.
      projection: of the vertices.
    """

    colour: jax.Array
    alpha: jax.Array
    triangle: jax.Array
    depth: jax.Array
    projection: Projection


def rotation(vectors: jax.Array) -> jax.Array:
    """Rotation matrices [B,3,3] about vectors [B,3], by their length in radians.

    The gradient is finite everywhere, at no rotation too (Rodrigues).
    """
    square = jnp.sum(vectors**2, axis=-1)
    small = square < 1e-8
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    sine = jnp.where(small, 1 - square / 6, jnp.sin(angle) / angle)
    cosine = jnp.where(small, 0.5 - square / 24, (1 - jnp.cos(angle)) / angle**2)
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    return (
        jnp.eye(3)
        + sine[:, None, None] * cross
        + cosine[:, None, None] * (cross @ cross)
    )


def project(
    vertices: jax.Array, pose: jax.Array, size: int, focal: float | None = None
) -> Projection:
    """Vertices [B,V,3] mm as cameras of poses [B,6] see them in pictures of `size`.

    Args:
      focal: of a pinhole camera in half sides of the picture; None for weak
        perspective.
    """
    turned = jnp.einsum("bij,bvj->bvi", rotation(pose[:, :3]), vertices)
    scaled = turned * (jnp.exp(pose[:, 5]) / REACH)[:, None, None]
    nearness, valid = scaled[..., 2], jnp.ones(scaled.shape[:2], bool)
    flat = scaled[..., :2]
    if focal is not None:
        distance = 1 - nearness / focal
        valid = distance >= _NEAREST
        nearness = 1 / jnp.where(valid, distance, 1.0)
        flat = flat * nearness[..., None]
    flat = flat + pose[:, None, 3:5]
    places = (flat * jnp.array([1.0, -1.0]) + 1) / 2 * size - 0.5
    return Projection(places, nearness, valid)


def _planes(corners, nearness, cull):
    """Coefficients (x, y, 1) of barycentric coordinates [F,3,3] and nearness [F,3].

    Args:
      corners: [F,3,2], nearness: [F,3].
      cull: see `rasterise`.

    Returns:
      them, and bool [F] which triangles have an area to be seen; the others' planes
      are below 0.
    """
    x, y = corners[..., 0], corners[..., 1]
    ux, uy = jnp.roll(x, -1, 1), jnp.roll(y, -1, 1)
    vx, vy = jnp.roll(x, -2, 1), jnp.roll(y, -2, 1)
    edges = jnp.stack([vy - uy, ux - vx, vx * uy - ux * vy], -1)  # [F,3,3]
    # Pixels go down: what is counter-clockwise in space has a positive area here.
    area = jnp.sum(edges[..., 2], 1)
    seen = area > _LEAST_AREA if cull else jnp.abs(area) > _LEAST_AREA
    edges = edges / jnp.where(seen, area, 1.0)[:, None, None]
    edges = jnp.where(seen[:, None, None], edges, jnp.array([0.0, 0.0, -1.0]))
    return edges, jnp.einsum("fkc,fk->fc", edges, nearness), seen


def _linear(planes, x, y):
    """Value of planes [...,3] at places (x, y)."""
    return planes[..., 0] * x + (planes[..., 1] * y + planes[..., 2])


@functools.partial(jax.jit, static_argnames=("size", "cull", "window"))
def rasterise(
    projection: Projection,
    triangles: jax.Array,
    size: int,
    cull: bool = True,
    window: int | None = None,
) -> jax.Array:
    """The nearest triangle of each pixel, int32 [B,S,S], -1 for none; no gradient.

    Triangles that fit into a small window are looked at in their windows alone, all at
    once; larger ones in blocks over the whole picture, as many as there are. Of equally
    near ones the first is shown. A triangle with a corner behind the camera is left
    out.

    Args:
      projection: of the vertices.
      triangles: int32 [F,3], counter-clockwise from outside.
      size: S.
      cull: leave out triangles that are seen from behind.
      window: side in pixels; default an eighth of the picture.
    """
    window = max(4, size // 8) if window is None else window
    given = jax.lax.stop_gradient(
        (projection.places, projection.nearness, projection.valid)
    )

    def one(picture):
        return _rasterised(*picture, triangles, size, cull, window)

    return jax.lax.map(one, given)


def _rasterised(places, nearness, valid, triangles, size, cull, window):
    corners, nearness = places[triangles], nearness[triangles]
    low = jnp.ceil(jnp.maximum(jnp.min(corners, 1), -1.0))
    high = jnp.floor(jnp.minimum(jnp.max(corners, 1), size))
    # From a corner of the window: small triangles would lose digits.
    edges, depth, seen = _planes(corners - low[:, None], nearness, cull)
    seen &= jnp.all((high >= low) & (high >= 0) & (low < size), 1)
    seen &= jnp.all(valid[triangles], 1)
    large = seen & jnp.any(high - low >= window, 1)
    numbers = jnp.arange(len(triangles), dtype=jnp.int32)
    dy, dx = jnp.divmod(jnp.arange(window * window), window)
    x, y = low[:, :1] + dx, low[:, 1:] + dy  # [F,window^2]
    inside = (seen & ~large)[:, None] & (x >= 0) & (x < size) & (y >= 0) & (y < size)
    for k in range(3):
        inside &= _linear(edges[:, k, None], dx, dy) >= _EDGE
    sampled = jnp.where(inside, _linear(depth[:, None], dx, dy), -jnp.inf)
    # Compared with itself below: computed once, or its last bit might differ.
    sampled = jax.lax.optimization_barrier(sampled)
    pixel = jnp.where(inside, y * size + x, size * size).astype(jnp.int32)
    best = jnp.full(size * size + 1, -jnp.inf).at[pixel].max(sampled)
    first = jnp.where(inside & (sampled == best[pixel]), numbers[:, None], len(numbers))
    shown = jnp.full(size * size + 1, len(numbers), jnp.int32).at[pixel].min(first)
    best, shown = best[:-1], shown[:-1]
    # Large ones first, as whole blocks of numbers; the others beside them see nothing.
    order = jnp.pad(jnp.argsort(~large, stable=True), (0, -len(numbers) % _BLOCK))
    count = jnp.sum(large)
    py, px = jnp.divmod(jnp.arange(size * size), size)

    def block(carry):
        start, best, shown = carry
        chosen = jax.lax.dynamic_slice(order, (start,), (_BLOCK,))
        edges, depth, _ = _planes(corners[chosen], nearness[chosen], cull)
        here = (start + jnp.arange(_BLOCK)) < count
        inside = jnp.broadcast_to(here[:, None], (_BLOCK, size * size))
        for k in range(3):
            inside &= _linear(edges[:, k, None], px, py) >= _EDGE
        found = jnp.where(inside, _linear(depth[:, None], px, py), -jnp.inf)
        top = jnp.max(found, 0)
        number = jnp.min(jnp.where(found == top, chosen[:, None], len(numbers)), 0)
        better = (top > best) | ((top == best) & (number < shown) & (top > -jnp.inf))
        shown = jnp.where(better, number.astype(jnp.int32), shown)
        return start + _BLOCK, jnp.maximum(top, best), shown

    carry = (jnp.int32(0), best, shown)
    _, _, shown = jax.lax.while_loop(lambda c: c[0] < count, block, carry)
    shown = jnp.where(shown == len(numbers), -1, shown)
    return shown.reshape(size, size)


def barycentric(
    projection: Projection, triangles: jax.Array, shown: jax.Array, focal: bool = False
) -> jax.Array:
    """Shares [B,S,S,3] of the corners of the triangle that each pixel shows.

    Differentiable by the corners' places; 0 where nothing is shown.

    Args:
      projection, triangles: of the mesh.
      shown: int32 [B,S,S], see `rasterise`.
      focal: the camera has a focal length: shares are of the surface, not the picture.
    """
    size = shown.shape[1]
    corners = triangles[jnp.maximum(shown, 0)]  # [B,S,S,3]
    at = _gathered(projection.places, corners)  # [B,S,S,3,2]
    here = jnp.stack(jnp.meshgrid(jnp.arange(size), jnp.arange(size)), -1)
    away = at - here[:, :, None]
    x, y = away[..., 0], away[..., 1]
    ux, uy = jnp.roll(x, -1, -1), jnp.roll(y, -1, -1)
    vx, vy = jnp.roll(x, -2, -1), jnp.roll(y, -2, -1)
    parts = vx * uy - ux * vy
    if focal:
        parts = parts * _gathered(projection.nearness[..., None], corners)[..., 0]
    total = jnp.sum(parts, -1, keepdims=True)
    real = (jnp.abs(total) > _LEAST_AREA) & (shown >= 0)[..., None]
    return jnp.where(real, parts / jnp.where(real, total, 1.0), 0.0)


def _gathered(values: jax.Array, corners: jax.Array) -> jax.Array:
    """Values [B,V,C] of vertices [B,...]: [B,...,C]."""
    return jax.vmap(lambda v, i: v[i])(values, corners)


def harmonics(normals: jax.Array) -> jax.Array:
    """Nine real spherical harmonics [...,9] of unit vectors [...,3]."""
    x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
    terms = (jnp.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z,
             x * x - y * y)  # fmt: skip
    return jnp.stack(terms, -1) * jnp.array(HARMONICS)


def ambient(brightness: float = 0.9) -> jax.Array:
    """Light float32 [9,3] of one brightness from everywhere."""
    return jnp.zeros((9, 3)).at[0].set(brightness / HARMONICS[0])


def render(
    vertices: jax.Array,
    albedo: jax.Array,
    triangles: jax.Array,
    light: jax.Array,
    pose: jax.Array,
    size: int,
    *,
    focal: float | None = None,
    cull: bool = True,
    shown: jax.Array | None = None,
) -> Rendering:
    """Pictures of meshes, differentiable by all but the triangles.

    Args:
      vertices: float32 [B,V,3] mm.
      albedo: [B,V,3].
      triangles: int32 [F,3].
      light: [B,9,3] spherical harmonics, in the camera's coordinates.
      pose: [B,6], see above.
      size: S, side of the pictures.
      focal, cull: see `project` and `rasterise`.
      shown: what `rasterise` found, where it is known.
    """
    projection = project(vertices, pose, size, focal)
    if shown is None:
        shown = rasterise(projection, triangles, size, cull)
    shares = barycentric(projection, triangles, shown, focal is not None)
    corners = triangles[jnp.maximum(shown, 0)]
    turn = rotation(pose[:, :3])
    normals = morphable.normals(vertices, triangles)
    every = jnp.concatenate([albedo, normals, vertices], -1)
    every = jnp.einsum("bhwk,bhwkc->bhwc", shares, _gathered(every, corners))
    normal = jnp.einsum("bij,bhwj->bhwi", turn, morphable.unit(every[..., 3:6]))
    lit = jnp.einsum("bhwn,bnc->bhwc", harmonics(normal), light)
    depth = jnp.einsum("bj,bhwj->bhw", turn[:, 2], every[..., 6:])
    alpha = (shown >= 0).astype(jnp.float32)
    colour = every[..., :3] * jax.nn.relu(lit) * alpha[..., None]
    return Rendering(colour, alpha, shown, depth, projection)


def splatted(
    found: Rendering, triangles: jax.Array, background: jax.Array | float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Pictures whose borders have gradients: rasterise, then splat (Cole et al. 2021).

    Every pixel is a small Gaussian at the place in the picture of the surface that it
    shows; a pixel of the background stays where it is. As a surface moves its splats
    do, and colour and coverage beside its border change.

    Args:
      found: what `render` gave.
      triangles: of the mesh.
      background: [B,S,S,3] or a number.

    Returns:
      colour float32 [B,S,S,3] on the background, alpha [B,S,S].
    """
    size = found.alpha.shape[1]
    shares = jax.lax.stop_gradient(
        barycentric(found.projection, triangles, found.triangle)
    )
    corners = triangles[jnp.maximum(found.triangle, 0)]
    at = _gathered(found.projection.places, corners)
    here = jnp.stack(jnp.meshgrid(*[jnp.arange(size, dtype=jnp.float32)] * 2), -1)
    solid = found.alpha[..., None]
    at = jnp.where(solid > 0, jnp.einsum("bhwk,bhwkc->bhwc", shares, at), here)
    colour = found.colour + (1 - solid) * background
    every = jnp.concatenate([at, colour, solid], -1)
    wide = jnp.pad(every, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-9.0)
    total = 0.0
    for dy in range(3):
        for dx in range(3):
            part = wide[:, dy : dy + size, dx : dx + size]
            away = jnp.sum((part[..., :2] - here) ** 2, -1, keepdims=True)
            weight = jnp.exp(-away / (2 * _SPLAT**2))
            total += weight * jnp.concatenate([part[..., 2:], jnp.ones_like(away)], -1)
    mean = total[..., :4] / jnp.maximum(total[..., 4:], 1e-6)
    return mean[..., :3], mean[..., 3]


def render_head(
    basis: Mapping[str, jax.Array],
    coeffs: Mapping[str, jax.Array],
    size: int,
    focal: float | None = None,
) -> Rendering:
    """Pictures of heads of a morphable basis.

    Args:
      basis: see `ops.morphable`.
      coeffs: "id_coeffs" [B,I], "exp_coeffs" [B,E], "albedo_coeffs" [B,A], "sh_light"
        [B,9,3], "pose" [B,6].
      size, focal: see `render`.
    """
    return render(
        morphable.vertices(basis, coeffs["id_coeffs"], coeffs["exp_coeffs"]),
        morphable.colours(basis, coeffs["albedo_coeffs"]),
        basis["triangles"],
        coeffs["sh_light"],
        coeffs["pose"],
        size,
        focal=focal,
    )
