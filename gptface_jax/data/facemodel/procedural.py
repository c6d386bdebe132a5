"""The project's own morphable head, made of formulas: the default face model.

It has a head with a hair cap, ears and a neck, eyeballs that turn, teeth and the inside
of a mouth, so that a rendered picture looks like a head. Nobody was measured for it.
"""

from __future__ import annotations

import functools

import numpy as np

from gptface_jax.data.facemodel import complexion, head, modes, parts, shapes, surface
from gptface_jax.data.facemodel.model import FaceModel
from gptface_jax.data.faces import palette

# Of albedo modes by their eigenvalue. They were sorted by sums that are but rounding
# errors, otherwise on other processors; this is what trained models know.
_ALBEDO = (0, 4, 2, 1, 3, 6, 5, 7)


@functools.lru_cache(maxsize=2)
def head_model(spacing: float = 0.09) -> FaceModel:
    """The model; about 3,000 triangles at the default spacing.

    Args:
      spacing: of vertices of the face, see `head.sheet_points`; smaller is finer.
    """
    sheet = head.sheet_points(spacing)
    triangles = head.triangulated(sheet)
    bare = head.on_head(sheet)
    regions = head.regions(
        bare[triangles].mean(1), sheet[triangles].mean(1), sheet[:68]
    )
    skin = modes.with_hair(bare)
    points = skin[:68]
    pieces = [
        parts.eyeball(points[list(head.LEFT_EYE)], palette.L_EYE),
        parts.eyeball(points[list(head.RIGHT_EYE)], palette.R_EYE),
        *parts.mouth(points[list(head.INNER_LIPS)]),
        parts.ear(-1, palette.L_EAR, surface.COLOURS[palette.L_EAR]),
        parts.ear(1, palette.R_EAR, surface.COLOURS[palette.R_EAR]),
    ]
    count = len(skin)
    colours = surface.mean_colours(count, triangles, regions)
    identity, names = modes.identity(skin, regions, triangles, pieces)
    expression, expression_names = shapes.expressions(skin, sheet, pieces)
    vertices, starts = [skin], [0]
    iris = np.zeros(count, bool)
    for piece in pieces:
        starts.append(sum(map(len, vertices)))
        vertices.append(piece.vertices)
        iris = np.concatenate([iris, piece.iris])
    mean = np.concatenate(vertices).astype(np.float32)
    triangles = np.concatenate(
        [triangles, *(p.triangles + s for p, s in zip(pieces, starts[1:]))]
    ).astype(np.int32)
    regions = np.concatenate(
        [regions, *(np.full(len(p.triangles), p.region, np.uint8) for p in pieces)]
    )
    colours = np.concatenate([colours, *(p.colours for p in pieces)])
    material = surface.material_of(len(mean), triangles, regions, np.flatnonzero(iris))
    return complexion.standardised(FaceModel(
        name="procedural",
        mean=mean,
        identity=identity.astype(np.float32),
        expression=expression.astype(np.float32),
        albedo_mean=colours.astype(np.float32),
        albedo=surface.albedo_modes(mean, triangles, material, _ALBEDO),
        triangles=triangles,
        regions=regions,
        landmarks=np.arange(68, dtype=np.int32),
        identity_names=names,
        expression_names=expression_names,
    ))  # fmt: skip
