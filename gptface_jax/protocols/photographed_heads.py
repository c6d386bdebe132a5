"""3D heads of photographs, whose true heads nobody knows: how they lie on the photo."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, rendering
from gptface_jax.data import image as images
from gptface_jax.data.record import Record
from gptface_jax.evaluate import faces3d as metrics
from gptface_jax.pipelines import landmark_fit
from gptface_jax.pipelines.faces3d import Face3DModel, Head3D
from gptface_jax.protocols.faces3d import mean_head


@dataclasses.dataclass(frozen=True)
class Compared:
    """Heads of photographs by several ways.

    Attributes:
      figures: way -> name -> mean over photographs: "nme", the distance of the 68
        points by that of the eyes' outer corners; "levels", how far the drawn head is
        from the photo where it lies, in levels of 0..255 (mean absolute difference).
      overlays: a row a photo: its square, and each way's head over it; uint8 [S,S,3].
      without_face: photographs in which no face was found, which count nowhere.
    """

    figures: dict[str, dict[str, float]]
    overlays: list[list[np.ndarray]]
    without_face: int


def compare(
    model: Face3DModel, records: Sequence[Record], progress: bool = True
) -> Compared:
    """Heads by the model, by a fit to the mesh's points, and the mean head.

    The points are those of the records (iBUG 68), else the face mesh's. The fit has the
    colours and the light of the mean head; to the mesh's own points it is near by
    construction.

    Raises:
      UserError: no face in any photo.
    """
    rows: dict[str, dict[str, list[float]]] = {}
    overlays, without = [], 0
    for record in tqdm.tqdm(records, unit="photo", disable=not progress):
        photo = geometry.decode_picture(record)
        faces = model.found_faces(photo, None, model.frame is not None, None)
        if not faces:
            without += 1
            continue
        face = max(faces, key=lambda face: face.area)
        view = model.view_of(face, photo)
        found = model.of_photo(photo, face=face)
        meshed = view.way.points(face.landmarks) / view.side
        told = _points(record)
        truth = meshed if told is None else view.way.points(told) / view.side
        fitted = landmark_fit.fit(model.face_model, np.float32(meshed)[None])
        ways = {
            "model": found.coeffs,
            "landmark fit": {name: x[0] for name, x in fitted.items()},
            "mean head": {
                name: x[0] for name, x in mean_head(model.face_model, 1).items()
            },
        }
        square = images.resize(view.picture(photo), (model.size,) * 2)
        inside = images.resize(
            np.uint8(np.repeat(~view.beyond(photo.shape[:2])[..., None], 3, 2) * 255),
            (model.size,) * 2,
        )[..., 0] > 127  # fmt: skip
        heads = {w: Head3D(c, model.face_model, {}) for w, c in ways.items()}
        for way, head in heads.items():
            for name, value in _figures(head, square, inside, truth).items():
                rows.setdefault(way, {}).setdefault(name, []).append(value)
        overlays.append([square, *(head.over(square) for head in heads.values())])
    if not overlays:
        raise UserError(f"no face was found in {len(records)} photographs; check them")
    means = {
        way: {name: float(np.nanmean(x)) for name, x in values.items()}
        for way, values in rows.items()
    }
    return Compared(means, overlays, without)


def _points(record: Record) -> np.ndarray | None:
    """The 68 points of a record, borders of pixels at integers, or None."""
    if record.landmarks is None or record.landmark_scheme != "ibug68":
        return None
    return np.asarray(record.landmarks, np.float64) + 0.5


def _figures(
    head: Head3D, square: np.ndarray, inside: np.ndarray, truth: np.ndarray
) -> Mapping[str, float]:
    places = rendering.projected(head.vertices, head.coeffs["pose"], 1)[0]
    points = places[head.model.landmarks] + 0.5
    drawn, solid = head.render(len(square))
    # Where it covers half a pixel its colours are mixed with grey.
    away = np.abs(np.int32(drawn) - square).mean(-1)[(solid == 1) & inside]
    return {
        "nme": float(metrics.nme(points[None], truth[None])[0]),
        "levels": float(away.mean()) if away.size else np.nan,
    }
