"""Pictures brought into a frame for training."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import prepare, shards
from gptface_jax.data.record import Record
from gptface_jax.pipelines import upright

GREY = np.full((64, 64, 3), 128, np.uint8)


def test_a_face_comes_to_its_frame_with_its_points(astronaut):
    turned = np.asarray(Image.fromarray(astronaut).rotate(30, Image.BICUBIC))
    classes = np.uint8(turned[..., 0] > 128)
    (found,) = upright.Upright(96)(
        [Record(image=turned, text="an astronaut", parsing=classes)]
    )
    # The map went the same way.
    assert ((found.image[..., 0] > 128) == found.parsing).mean() > 0.95
    assert found.image.shape == (96, 96, 3) and found.text == "an astronaut"
    points = found.landmarks + 0.5  # pixel centres at integers
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    np.testing.assert_allclose(eyes, 96 * np.array(upright.FRAME[:2]), atol=4)
    (again,) = upright._searched([Record(image=found.image)])
    np.testing.assert_allclose(again[2].landmarks, points, atol=3)


def wflw(five, boxed):
    """A record of the face that has these points in a picture of two."""
    points = np.tile(np.float32(five).mean(0), (98, 1))
    points[[96, 97, 54, 76, 82]] = five  # the eyes, the nose, the corners of the mouth
    boxes = np.float32([[*points.min(0) - 40, *points.max(0) + 40]]) if boxed else None
    return Record(landmarks=points - 0.5, landmark_scheme="wflw98", boxes=boxes)


@pytest.mark.parametrize("boxed", [True, False])
def test_points_that_are_known_tell_the_face_and_go_with_it(astronaut, face, boxed):
    """Two labelled faces of one picture; nothing is looked for."""
    both = np.concatenate([astronaut, astronaut[::-1, ::-1]], 1)
    turned = [1024, 512] - face.five
    given = [dataclasses.replace(wflw(five, boxed), image=both)
             for five in (face.five, turned)]  # fmt: skip
    found = list(upright.Upright(96)(given))
    for record in found:
        assert record.landmark_scheme == "wflw98" and len(record.landmarks) == 98
        eyes = record.landmarks[[96, 97]] + 0.5
        np.testing.assert_allclose(eyes, 96 * np.array(upright.FRAME[:2]), atol=4)
    same = np.abs(found[0].image.astype(int) - found[1].image)
    assert same.mean() < 3  # the same face, once upside down


def test_a_box_tells_which_face_is_meant(astronaut, face, monkeypatch):
    """And points that do not say where eyes and mouth are, too; they stay."""
    small = dataclasses.replace(
        face, box=tuple(np.array(face.box) / 4), mesh=face.mesh / 4
    )
    monkeypatch.setattr(
        upright.faces, "find_all", lambda pictures: [[small, face]] * len(pictures)
    )
    box = np.float32([small.box])
    odd = np.float32([[*small.box[:2]], [np.nan, 0], [*small.box[2:]]])
    given = [
        Record(image=astronaut),
        Record(image=astronaut, boxes=box),
        Record(image=astronaut, landmarks=odd, landmark_scheme="other"),
        Record(image=astronaut, boxes=box + 300),
    ]
    largest, own, pointed, none = upright.Upright(32, enlarged=9, missing=1)(given)
    assert largest.landmarks.shape == own.landmarks.shape == (68, 2)
    np.testing.assert_allclose(own.landmarks, largest.landmarks, atol=1)
    np.testing.assert_array_equal(own.image, pointed.image)
    assert (own.image != largest.image).any()
    assert pointed.landmarks.shape == (3, 2) and pointed.landmark_scheme == "other"
    assert none == upright.NO_FACE


@pytest.mark.slow
def test_why_pictures_are_dropped(astronaut, face):
    x0, y0, x1, y1 = (round(v) for v in face.box)
    tight = astronaut[y0 - 10 : y1 + 8, x0:x1]
    records = [Record(image=image) for image in (GREY, astronaut, tight)]
    assert list(upright.Upright(64)(records))[0] == upright.NO_FACE
    assert list(upright.Upright(512)(records))[1] == upright.TOO_SMALL
    assert list(upright.Upright(64)(records))[2] == upright.CUT_OFF


def test_landmarks_beside_a_picture_as_it_is(astronaut):
    found, none = upright.WithLandmarks()([Record(image=astronaut), Record(image=GREY)])
    assert found.image is astronaut and found.landmarks.shape == (68, 2)
    assert none.landmarks is None
    known = dataclasses.replace(wflw(np.ones((5, 2)), True), image=astronaut)
    assert list(upright.WithLandmarks()([known])) == [known]


def test_the_frame_of_pictures(astronaut, face):
    wide = np.pad(astronaut, ((0, 0), (100, 100), (0, 0)))
    found = upright.measure_frame(
        [Record(image=i) for i in (astronaut, GREY, wide)], progress=False
    )
    np.testing.assert_allclose(found["frame"], face.five / 512, atol=0.01)
    assert found["pictures"] == 3 and found["faces"] == 2
    with pytest.raises(UserError, match="no face was found in 1 pictures"):
        upright.measure_frame([Record(image=GREY)], progress=False)


@pytest.mark.slow
def test_prepare_counts_what_it_drops(tmp_path, astronaut):
    for name, image in (("a", astronaut), ("b", GREY), ("c", astronaut[:, ::-1])):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    spec = {"kind": "folder", "path": str(tmp_path)}
    out = tmp_path / "out"
    select = upright.Upright(64)
    manifest = prepare.prepare(
        spec, out, workers=1, shard_size=2, select=select, progress=False
    )
    assert manifest["num_records"] == 2 and manifest["counts"] == [1, 1]
    assert manifest["dropped"] == {"no face": 1} and manifest["upright"] == 64
    records = shards.Records(out)
    assert len(records) == 2 and records[1].landmarks.shape == (68, 2)
    assert sorted(p.name for p in out.iterdir()) == [
        "manifest.json", "part-00000.arrayrecord", "part-00001.arrayrecord"
    ]  # fmt: skip


@pytest.mark.slow
def test_nothing_left_is_said(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    spec = {"kind": "folder", "path": str(tmp_path)}
    with pytest.raises(UserError, match="no picture is left.*'no face': 1"):
        prepare.prepare(
            spec, tmp_path / "out", workers=1, select=upright.Upright(64),
            progress=False,
        )  # fmt: skip


def test_a_cache_of_upright_faces_tells_its_frame(tmp_path, astronaut):
    from gptface_jax.experiments import tokenize as tokenization

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(astronaut).save(photos / "a.png")
    Image.fromarray(GREY).save(photos / "b.png")
    spec = {"kind": "folder", "path": str(photos)}
    frame = ((0.4, 0.45), (0.6, 0.45), (0.5, 0.58), (0.42, 0.7), (0.58, 0.7))

    def tokenize(frame):
        return tokenization.tokenize(
            spec, "demo64", tmp_path / "tokens", upright=upright.Upright(64, frame),
            progress=False,
        )  # fmt: skip

    manifest = tokenize(frame)
    assert manifest["num_records"] == 1
    assert manifest["frame"] == [list(point) for point in frame]
    assert (tmp_path / "tokens-upright" / "manifest.json").is_file()
    with pytest.raises(UserError, match="holds other pictures, or in another frame"):
        tokenize(upright.FRAME)
