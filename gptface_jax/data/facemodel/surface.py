"""Meshes and what is on them: edges, normals, colours of regions, albedo modes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptface_jax.data.facemodel.model import FaceModel
from gptface_jax.data.faces import palette as p

# Mean colour of each region, sRGB without light.
COLOURS = {
    p.SKIN: (0.78, 0.59, 0.49),
    p.NOSE: (0.79, 0.58, 0.48),
    p.L_EAR: (0.76, 0.54, 0.45),
    p.R_EAR: (0.76, 0.54, 0.45),
    p.NECK: (0.74, 0.55, 0.45),
    p.L_BROW: (0.30, 0.20, 0.14),
    p.R_BROW: (0.30, 0.20, 0.14),
    p.U_LIP: (0.66, 0.36, 0.34),
    p.L_LIP: (0.70, 0.39, 0.37),
    p.MOUTH: (0.24, 0.07, 0.07),
    p.HAIR: (0.25, 0.16, 0.10),
    p.L_EYE: (0.90, 0.88, 0.86),
    p.R_EYE: (0.90, 0.88, 0.86),
}
# Regions that are of one material: an albedo mode may change one without the others.
# What is of none (eyeballs but for the iris, the inside of the mouth) keeps its colour.
MATERIALS = (
    (p.SKIN, p.NOSE, p.L_EAR, p.R_EAR, p.NECK),
    (p.HAIR,),
    (p.L_BROW, p.R_BROW),
    (p.U_LIP, p.L_LIP),
)
_BORDER = 0.4  # share of triangles around a vertex that makes it one of the region
_WEAK = 1e-3  # of an edge between two materials, where one inside a material has 1
# Brightness and two contrasts, orthonormal.
_AXES = np.array([[1, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]], np.float64)
_AXES /= np.linalg.norm(_AXES, axis=1, keepdims=True)


def edges(triangles: np.ndarray) -> np.ndarray:
    """Every edge once, int [N,2] with the smaller vertex first."""
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]],
                            triangles[:, [2, 0]]])  # fmt: skip
    return np.unique(np.sort(sides, axis=1), axis=0)


def normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals [V,3] by the sum of those of the triangles, longer if larger."""
    a, b, c = (vertices[triangles[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    total = np.zeros_like(vertices)
    for i in range(3):
        np.add.at(total, triangles[:, i], cross)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def vertex_shares(count: int, triangles: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Share of the triangles around each vertex that are chosen (bool [F]), [V]."""
    total, hit = np.zeros(count), np.zeros(count)
    for i in range(3):
        np.add.at(total, triangles[:, i], 1.0)
        np.add.at(hit, triangles[:, i], chosen.astype(float))
    return hit / np.maximum(total, 1)


def mean_colours(count: int, triangles: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Colour float32 [V,3] of each vertex by the regions around it.

    Hair, brows and lips have the vertices of their borders; the rest is a mean.
    """
    parts = [region for material in MATERIALS[1:] for region in material]
    total, weight = np.zeros((count, 3)), np.full((count, 1), 1e-9)
    for region, colour in COLOURS.items():
        if region not in parts:
            share = vertex_shares(count, triangles, regions == region)[:, None]
            total, weight = total + share * np.array(colour), weight + share
    total /= weight
    for material in MATERIALS[1:]:
        share = vertex_shares(count, triangles, np.isin(regions, material))
        total[share >= _BORDER] = COLOURS[material[0]]
    return total.astype(np.float32)


def material_of(
    count: int, triangles: np.ndarray, regions: np.ndarray, iris: np.ndarray
) -> np.ndarray:
    """Material of each vertex, int [V] places in `MATERIALS`, its length for the iris.

    -1 is none. Where several meet, the later one has the vertex.

    Args:
      count, triangles, regions: of the mesh.
      iris: int vertices.
    """
    shares = [
        vertex_shares(count, triangles, np.isin(regions, material))
        for material in MATERIALS
    ]
    found = np.full(count, -1)
    for number, least in enumerate((0.01, *[_BORDER] * 3)):
        found[shares[number] >= least] = number
    found[np.isin(np.arange(count), iris)] = len(MATERIALS)
    return found


def albedo_modes(
    mean: np.ndarray, triangles: np.ndarray, material: np.ndarray,
    order: Sequence[int],
) -> np.ndarray:  # fmt: skip
    """Albedo offsets float32 [count,V,3]: low graph-Laplacian modes times three axes.

    Edges between materials count little, and each vertex is joined with its mirror
    image: so the first modes change one material each (skin, hair, brows, lips, iris)
    on both sides alike, and the next ones change the skin smoothly (SPEC D.2).

    Args:
      mean: float [V,3] mm.
      triangles: int [F,3].
      material: int [V], -1 where nothing changes.
      order: places of the modes by their eigenvalue, in the order that coefficients
        have; each becomes three, of luminance and two colours.

    Returns:
      Modes of root mean square .05 over the vertices that change.
    """
    from scipy import sparse, spatial
    from scipy.sparse import linalg

    used = np.flatnonzero(material >= 0)
    place = np.full(len(mean), -1)
    place[used] = np.arange(len(used))
    pairs = edges(triangles)
    pairs = pairs[(material[pairs] >= 0).all(1)]
    # Pieces that no edge joins, as an ear and its head, are joined where they are near.
    tree = spatial.cKDTree(mean[used])
    _, mirror = tree.query(mean[used] * [-1, 1, 1])
    _, near = tree.query(mean[used], k=4)
    beside = [np.stack([used, used[other]], 1) for other in (mirror, *near.T[1:])]
    pairs = np.concatenate([pairs, *beside])
    same = material[pairs[:, 0]] == material[pairs[:, 1]]
    weight = np.where(same, 1.0, _WEAK)
    i, j = place[pairs].T
    n = len(used)
    graph = sparse.coo_matrix((weight, (i, j)), (n, n))
    graph = graph + graph.T
    degree = np.asarray(graph.sum(1)).ravel()
    laplacian = (sparse.diags(degree) - graph).tocsc()
    start = np.random.default_rng(0).normal(size=n)
    values, vectors = linalg.eigsh(
        laplacian, k=len(order), sigma=-1e-6, which="LM", v0=start
    )
    vectors = vectors * np.sign(vectors.sum(0) + 1e-9) * np.sqrt(n)
    modes = np.zeros((len(order), len(mean)))
    modes[:, used] = vectors.T[np.argsort(values)][list(order)]
    whole = 0.05 * np.einsum("kv,ac->kavc", modes, _AXES)
    return whole.reshape(-1, len(mean), 3).astype(np.float32)


def materials(model: FaceModel) -> np.ndarray:
    """Material of each vertex of a finished model; see `material_of`."""
    count = len(model.mean)
    eyes = vertex_shares(
        count, model.triangles, np.isin(model.regions, (p.L_EYE, p.R_EYE))
    )
    changes = np.abs(model.albedo).sum((0, 2)) > 0
    iris = np.flatnonzero((eyes > 0.5) & changes)
    return material_of(count, model.triangles, model.regions, iris)


def fit_albedo(model: FaceModel, offsets: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Albedo coefficients float64 [N,A] that come nearest to offsets of the colours.

    Args:
      model: the face model.
      offsets: float [N,V,3] from its mean colours.
      where: bool [V], vertices that count.
    """
    numbers = 3 * int(where.sum())  # of a model without modes -1 could be any
    basis = model.albedo[:, where].reshape(-1, numbers).astype(np.float64)
    wanted = offsets[:, where].reshape(-1, numbers)
    # A little of the prior: a mode that is hardly seen stays small.
    square = basis @ basis.T + 1e-4 * np.eye(len(basis))
    return np.linalg.solve(square, basis @ wanted.T).T
