"""Faces are found where they are, whatever their size, place and angle."""

import numpy as np
import pytest
from PIL import Image

from gptface_jax.pipelines import face_networks, faces

EYES = np.array([[203.5, 102], [247, 104]])  # measured by eye in the photograph


def test_one_face_with_its_points(astronaut, face):
    x0, y0, x1, y1 = face.box
    assert 150 < x0 < 190 and 250 < x1 < 290 and 60 < y0 < 100 and 150 < y1 < 200
    assert face.score > 0.6 and face.presence > 0.9 and 0 < face.roll < 8
    np.testing.assert_allclose(face.five[:2], EYES, atol=3)
    np.testing.assert_allclose(face.points[:2], EYES, atol=5)
    assert face.mesh.shape == (468, 2) and face.landmarks.shape == (68, 2)
    right, left, nose, *corners = face.five
    # The subject's right is on the left of the picture.
    assert right[0] < nose[0] < left[0] and corners[0][0] < corners[1][0]
    assert right[1] < nose[1] < corners[0][1]


SLOW = [pytest.param(x, marks=pytest.mark.slow) for x in (-37, 90)]


@pytest.mark.parametrize("degrees", [*SLOW, 180])
def test_a_turned_face(astronaut, degrees):
    """Turned clockwise about the middle of the picture."""
    turned = np.asarray(Image.fromarray(astronaut).rotate(-degrees, Image.BICUBIC))
    (found,) = faces.find(turned)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(found.five[:2], (EYES - 256) @ turn.T + 256, atol=4)
    difference = (found.roll - degrees - 3 + 180) % 360 - 180
    assert abs(difference) < 8


def test_small_faces_are_numbered_from_the_left(astronaut, face):
    """Two of a thirtieth of the longer side."""
    size = 1500 / 30 / (face.box[2] - face.box[0]) * 512
    small = np.asarray(Image.fromarray(astronaut).resize((round(size),) * 2))
    photo = np.full((900, 1500, 3), 90, np.uint8)
    for x, y in ((1100, 300), (200, 500)):
        photo[y : y + len(small), x : x + len(small)] = small
    found = faces.find(photo)
    wanted = np.array([[200, 500], [1100, 300]]) + EYES[0] * size / 512
    np.testing.assert_allclose([f.five[0] for f in found], wanted, atol=3)


def test_a_face_that_fills_the_picture(astronaut, face):
    x0, y0, x1, y1 = (round(v) for v in face.box)
    (found,) = faces.find(astronaut[y0 - 25 : y1 + 12, x0 - 5 : x1 + 5])
    shift = found.five[0] + [x0 - 5, y0 - 25] - face.five[0]
    np.testing.assert_allclose(shift, 0, atol=4)


def test_photos_together_are_found_as_alone(astronaut):
    grey = np.full((64, 80, 3), 128, np.uint8)
    small = np.asarray(Image.fromarray(astronaut).resize((256, 256)))
    none, one, two = faces.find_all([grey, astronaut, small])
    assert none == [] and len(one) == len(two) == 1
    np.testing.assert_allclose(2 * two[0].five, one[0].five, atol=3)
    assert one[0].described()["box"] == [round(v, 2) for v in one[0].box]


def test_no_photo_at_all():
    assert faces.find_all([]) == []


def test_boxes_that_overlap_are_weighed_by_their_scores():
    def row(score, *box):
        return [score, *box, *range(12)]

    rows = np.array(
        [
            row(0.5, 0, 0, 10, 10),
            row(1.0, 3, 0, 13, 10),  # 7/13 of the union in common with the first
            row(0.7, 40, 40, 50, 50),
            row(0.6, 4, 1, 8, 5),  # a part of the best one, too small to overlap it
        ],
        float,
    )
    best, other = face_networks.merged(rows)
    np.testing.assert_allclose(best[:5], [1, 2, 0, 12, 10])
    np.testing.assert_allclose(other[:5], [0.7, 40, 40, 50, 50])


def test_what_few_anchors_see_must_be_sure():
    """Three rows on the face of .9, .6 and .5, and one elsewhere: 2.0 in all."""
    row = np.array([0.9, 0, 0, 10, 10, *[0.0] * 12])
    rows = np.repeat(row[None], 4, 0)
    rows[:, 0] = 0.9, 0.6, 0.5, 0.8
    rows[3, 1:5] += 40
    mesh = np.zeros((468, 2), np.float32)
    mesh[faces.LANDMARKS_68[42:48]] = 10, 0  # the left eye, ten pixels from the right

    def taken(presence, rows=rows, stage=faces._STAGES[0], shift=0.0, roll=0.0):
        points = np.zeros((6, 2))
        points[1] = 10 + shift, 0
        face = faces.Face((0, 0, 10, 10), 0.9, presence, points, mesh, roll)
        return stage.takes(row, rows, face)

    assert taken(0.9) and not taken(0.89)
    many = np.concatenate([rows] * 3)  # 6.0
    assert taken(0.1, many) and not taken(0.09, many) and not taken(0.1, many[1:])
    assert taken(0.1, many, roll=-45.0) and not taken(0.1, many, roll=46.0)
    assert taken(0.9, many, roll=60.0)
    faint = np.concatenate([many, many])
    faint[:, 0] = 0.29  # the second score is .3
    assert not taken(0.89, faint)
    assert taken(0.05, many, faces._SECOND) and not taken(1.0, rows, faces._SECOND)
    fine = faces._STAGES[1]
    assert taken(0.5, rows, fine, 3.9) and not taken(0.5, rows, fine, 4.1)
    assert not taken(0.49, many, fine)


@pytest.mark.parametrize(
    "side, levels",
    [(60, {128, 256}), (300, {128, 256, 512}), (384, {128, 256, 512, 768})],
)
def test_a_picture_is_not_enlarged_for_smaller_faces(monkeypatch, side, levels):
    """Twice its size at most; the coarse levels are looked at in any case."""
    looked = set()

    def canvas(image, level, share):
        looked.add(level)
        return np.zeros((level, level, 3), np.uint8), faces.Similarity()

    monkeypatch.setattr(face_networks, "canvas_of", canvas)
    monkeypatch.setattr(face_networks, "_in_batches", lambda *_: [])
    assert faces.find(np.zeros((side // 2, side, 3), np.uint8)) == []
    assert looked == levels


@pytest.mark.shared
@pytest.mark.slow
def test_portraits_and_people_under_face_masks(shared):
    import io

    import pyarrow.parquet as pq

    def read(name, **wanted):
        table = pq.read_table(shared / "data" / name / "test-00000-of-00001.parquet")
        for row in table.to_pylist():
            if all(row[key] == value for key, value in wanted.items()):
                picture = Image.open(io.BytesIO(row["image"]["bytes"]))
                yield np.asarray(picture.convert("RGB"))

    assert all(faces.find_all(list(read("portraits"))[::5]))
    masked = faces.find_all(list(read("masks", label="mask"))[::4])
    assert np.mean([bool(found) for found in masked]) >= 0.8


# Windows of printed and knitted cloth: portrait, left, top, side.
CLOTH = (
    (2, 275, 365, 121), (14, 412, 364, 91), (18, 107, 310, 174), (18, 216, 310, 131),
    (46, 117, 331, 130), (46, 273, 318, 185), (46, 88, 319, 159), (58, 28, 333, 102),
    (64, 83, 378, 118), (64, 349, 372, 105), (64, 393, 367, 88), (66, 162, 379, 104),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.shared
def test_cloth_is_no_face(shared):
    """In each of them a face was once found."""
    import io

    import pyarrow.parquet as pq

    file = shared / "data" / "portraits" / "test-00000-of-00001.parquet"
    pictures = pq.read_table(file).column("image").to_pylist()
    windows = []
    for number, x, y, side in CLOTH:
        photo = Image.open(io.BytesIO(pictures[number]["bytes"])).convert("RGB")
        windows.append(np.asarray(photo)[y : y + side, x : x + side])
    assert not any(faces.find_all(windows))
