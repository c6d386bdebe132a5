"""A coarser mesh on some of a model's own vertices, so that every basis stays exact.

Edges are collapsed into one of their ends, the cheapest first by quadric error (Garland
and Heckbert 1997). What moves much in an expression costs more to take away.
"""

from __future__ import annotations

import heapq

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.facemodel import surface
from gptface_jax.data.facemodel.model import FaceModel

_BORDER = 10.0  # weight of planes through borders, which keep holes where they are
_PAINT = 1.0  # of the squared difference of colours


def decimated(model: FaceModel, max_vertices: int) -> FaceModel:
    """The model with at most so many vertices, all of its own.

    Landmarks stay, and so do the borders of regions as far as the budget allows.

    Args:
      model: any.
      max_vertices: the budget; a model within it comes back as it is.

    Raises:
      UserError: a budget that the landmarks alone exceed, or that cannot be reached
        without changing what the mesh is like.
    """
    if len(model.mean) <= max_vertices:
        return model
    if max_vertices < 2 * len(model.landmarks):
        raise UserError(
            f"{max_vertices} vertices cannot hold a face; use "
            f"{2 * len(model.landmarks)} or more"
        )
    mesh = _Mesh(model)
    left = len(np.unique(model.triangles))
    while left > max_vertices and (edge := mesh.cheapest()):
        left -= mesh.collapse(*edge)
    if left > max_vertices:
        raise UserError(
            f"face model '{model.name}' cannot be reduced below {left} vertices, and "
            f"{max_vertices} are asked for; ask for more"
        )
    alive = np.flatnonzero(mesh.alive)
    triangles = mesh.triangles[alive]
    vertices = np.unique(triangles)
    return model.subset(vertices, triangles, model.regions[alive])


class _Mesh:
    """A mesh that gets fewer vertices, with a queue of what it costs to lose each."""

    def __init__(self, model: FaceModel):
        self.at = model.mean.astype(np.float64)
        self.triangles = model.triangles.copy()
        self.alive = np.ones(len(self.triangles), bool)
        self.around: list[set[int]] = [set() for _ in self.at]
        for number, triangle in enumerate(self.triangles):
            for vertex in triangle.tolist():
                self.around[vertex].add(number)
        self.fixed = np.zeros(len(self.at), bool)
        self.fixed[model.landmarks] = True
        moved = np.abs(model.expression).max((0, 2)) if len(model.expression) else 0.0
        self.colour = model.albedo_mean.astype(np.float64)
        self.worth = np.broadcast_to(1 + moved, len(self.at))
        self.version = np.zeros(len(self.at), np.int64)
        self._quadrics(model)
        self.queue: list = []
        for a, b in surface.edges(model.triangles):
            self._push(int(a), int(b))

    def _quadrics(self, model: FaceModel) -> None:
        a, b, c = (self.at[model.triangles[:, i]] for i in range(3))
        cross = np.cross(b - a, c - a)
        area = np.linalg.norm(cross, axis=1, keepdims=True)
        planes = np.concatenate([cross, -np.sum(cross * a, 1, keepdims=True)], 1)
        planes = planes / np.maximum(area, 1e-12) * np.sqrt(area / 2)
        self.quadric = np.zeros((len(self.at), 4, 4))
        outer = planes[:, :, None] * planes[:, None]
        for i in range(3):
            np.add.at(self.quadric, model.triangles[:, i], outer)
        for i in range(3):  # planes upright on borders, of the mesh and of regions
            start, end = model.triangles[:, i], model.triangles[:, (i + 1) % 3]
            beside: dict[tuple[int, int], int] = {}
            for s, e, region in zip(start, end, model.regions):
                beside[int(s), int(e)] = int(region)
            self._edges = {**getattr(self, "_edges", {}), **beside}
        for (s, e), region in self._edges.items():
            if self._edges.get((e, s)) == region:
                continue
            along = self.at[e] - self.at[s]
            triangle = next(iter(self.around[s] & self.around[e]))
            up = cross[triangle] / max(area[triangle, 0], 1e-12)
            upright = np.cross(along, up)
            plane = np.r_[upright, -upright @ self.at[s]]
            for vertex in (s, e):
                self.quadric[vertex] += _BORDER * np.outer(plane, plane)

    def _push(self, a: int, b: int) -> None:
        """Queues the better way to collapse an edge: (cost, from, into, versions)."""
        whole = self.quadric[a] + self.quadric[b]
        ways = []
        for source, target in ((a, b), (b, a)):
            if not self.fixed[source]:
                point = np.r_[self.at[target], 1.0]
                length = np.sum((self.at[source] - self.at[target]) ** 2)
                paint = np.sum((self.colour[source] - self.colour[target]) ** 2)
                cost = point @ whole @ point + (1e-3 + _PAINT * paint) * length**2
                cost *= self.worth[source]
                ways.append((cost, source, target))
        if ways:
            cost, source, target = min(ways)
            entry = (cost, source, target, self.version[source], self.version[target])
            heapq.heappush(self.queue, entry)

    def cheapest(self) -> tuple[int, int] | None:
        """The next edge that may be collapsed (from, into); None where none is left."""
        while self.queue:
            _, source, target, *versions = heapq.heappop(self.queue)
            same = versions == [self.version[source], self.version[target]]
            if same and self._allowed(source, target):
                return source, target
        return None

    def _neighbours(self, vertex: int) -> set[int]:
        return set(self.triangles[list(self.around[vertex])].ravel().tolist()) - {
            vertex
        }

    def _allowed(self, source: int, target: int) -> bool:
        """Whether the mesh stays a surface, and no triangle turns over."""
        shared = self.around[source] & self.around[target]
        common = self._neighbours(source) & self._neighbours(target)
        if not shared or len(common) != len(shared):
            return False
        kept = self.triangles[list(self.around[source] - shared)]
        old = _cross(self.at[kept])
        new = _cross(self.at[np.where(kept == source, target, kept)])
        length = np.sqrt((old**2).sum(1) * (new**2).sum(1))
        return bool(((old * new).sum(1) > 0.2 * length).all())

    def collapse(self, source: int, target: int) -> int:
        """Moves one end of an edge into the other; vertices that are gone by it."""
        for number in self.around[source] & self.around[target]:
            self.alive[number] = False
            for vertex in self.triangles[number].tolist():
                self.around[vertex].discard(number)
        for number in self.around[source]:
            triangle = self.triangles[number]
            triangle[triangle == source] = target
            self.around[target].add(number)
        self.around[source] = set()
        self.quadric[target] += self.quadric[source]
        touched = self._neighbours(target)
        self.version[[source, target]] += 1
        for vertex in touched:
            self._push(target, vertex)
        return 1


def _cross(corners: np.ndarray) -> np.ndarray:
    """Normals [N,3] of triangles [N,3,3]; faster than `np.cross`, which is general."""
    ax, ay, az = (corners[:, 1] - corners[:, 0]).T
    bx, by, bz = (corners[:, 2] - corners[:, 0]).T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], 1)
