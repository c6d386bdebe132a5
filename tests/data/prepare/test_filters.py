"""Texts, poses, blur, opt-outs and detections, one by one."""

import hashlib
import io
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageFilter

from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data.prepare import (
    detections,
    metadata,
    opt_out,
    quality,
    sample,
    texts,
)
from gptface_jax.data.prepare.settings import TextOptions
from gptface_jax.data.record import Record
from gptface_jax.data.text import TextTokenizer


@pytest.mark.parametrize(
    "given, wanted",
    [
        ("A &amp;amp; B&nbsp;<b>bold</b>\n\tline", "A & B bold line"),
        ("see http://x.org/a?b=1 or mail me@x.org now", "see or mail now"),
        ("  | caf\u0065\u0301 \ud800\x07 -", "caf\u00e9"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("\u200b\u202e", ""),
    ],
)
def test_clean(given, wanted):
    assert texts.clean(given) == wanted


def test_texts_by_length_and_language():
    stage = texts.Texts(TextOptions(min_words=2, max_words=4, language="en"))
    assert stage(["a smiling woman", "a smiling woman"]) == ("a smiling woman",)
    assert stage(["Hi", "a red hat"]) == ("a red hat",)
    assert stage([]) == stage(["...", "http://x.org"]) == sample.NO_TEXT
    assert stage(["word"]) == sample.SHORT_TEXT
    assert stage(["a b c d e"]) == sample.LONG_TEXT
    assert stage(["eine lachende Frau"]) == sample.LANGUAGE
    assert stage(["une femme avec chapeau"]) == sample.LANGUAGE
    assert stage(["eine Frau"]) == ("eine Frau",)  # two words tell no language
    with pytest.raises(UserError, match="language 'qq'.*ISO 639-1"):
        texts.probability("a", "qq")


def test_texts_by_word_pieces(tmp_path):
    tokenizer = TextTokenizer.train(["a smiling woman with a hat"] * 4, 60)
    tokenizer.save(tmp_path)
    stage = texts.texts(TextOptions(vocab=str(tmp_path), max_tokens=3))
    assert stage(["a woman"]) == ("a woman",)
    assert stage(["a smiling woman with hat"]) == sample.LONG_TEXT


def test_pose_of_the_mean_head_turned():
    """Five points of a head in the proportions of the ICT face model."""
    head = np.array([[-3.26, 3.44, 9.22], [3.26, 3.44, 9.22], [0, 0.41, 13.07],
                     [-2.5, -3, 10], [2.5, -3, 10]])  # fmt: skip
    for yaw in (-60, -20, 0, 20, 60):
        a = np.radians(yaw)
        turned = head @ np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0],
                                  [np.sin(a), 0, np.cos(a)]])  # fmt: skip
        for roll in (0, 30):
            b = np.radians(roll)
            points = (
                turned[:, :2]
                * [1, -1]
                @ np.array([[np.cos(b), np.sin(b)], [-np.sin(b), np.cos(b)]])
            )
            found = quality.pose(points)
            assert found == pytest.approx((yaw, roll), abs=2.6)
    assert np.isnan(quality.pose(np.full((5, 2), np.nan))).all()


def test_sharpness_falls_with_blur_and_not_with_light(astronaut):
    box = np.array([174, 60, 274, 190])
    sharp = quality.sharpness(astronaut, box)
    blurred = [
        quality.sharpness(
            np.asarray(Image.fromarray(astronaut).filter(ImageFilter.GaussianBlur(r))),
            box,
        )
        for r in (2, 4, 8)
    ]
    assert sharp > 2 * blurred[0] > 0 and blurred == sorted(blurred, reverse=True)
    dark = quality.sharpness(np.uint8(astronaut * 0.5), box)
    assert dark == pytest.approx(sharp, rel=0.1)


def test_opt_outs(tmp_path):
    data, hidden = b"a picture", "https://secret.org/me.jpg"
    path = tmp_path / "list.txt"
    path.write_text(
        "# who does not want to\nhttps://A.org/x%20y.jpg # mine\nwww.b.org\n*.c.org\n"
        f"sha256:{hashlib.sha256(data).hexdigest()}\n"
        f"sha256:{hashlib.sha256(hidden.encode()).hexdigest()}\n"
    )
    listed = opt_out.read(str(path))
    assert len(listed) == 5
    for url in ("http://a.org/x y.jpg", "https://www.a.org/x%20y.jpg#top",
                "http://img.B.org:80/z.png", "http://c.org", hidden):  # fmt: skip
        assert listed.holds(url), url
    for url in ("http://a.org/other.jpg", "http://notb.org/z", "", "http://org", "]["):
        assert not listed.holds(url), url
    assert listed.holds("", data) and not listed.holds("", b"another")
    assert not opt_out.read("").holds("http://a.org", data)
    path.write_text("good.org\nnot an entry\n")
    with pytest.raises(UserError, match="line 2: 'not an entry'"):
        opt_out.read(str(path))


@pytest.mark.parametrize(
    "entry, urls",
    [
        ("bad.org", ("https://bad.org./a", "https:/bad.org/a", r"https://bad.org\a",
                     "//bad.org?a", r"https:\\BAD.org:8080\a", "https://b%61d.org/",
                     "https://u:p@img.bad.org", "https://\uff42ad\u3002org/a")),
        ("bad.org.", ("https://bad.org/a",)),
        ("https://worse.org/a.jpg", ("https://worse.org:443/a.jpg",
                                     "http://worse.org:80/a.jpg",
                                     "https://worse.org/x/../a.jpg",
                                     "https://worse.org//x/%2e%2e/./a.jpg",
                                     "https://worse.org\\a.jpg",
                                     "https://worse.org./a.jpg#b")),
        ("https://worse.org:80/x/../a.jpg", ("https://worse.org/a.jpg",)),
        ("münchen.de", ("https://xn--mnchen-3ya.de/a", "https://www.MÜNCHEN.de/a",
                        "https://mu\u0308nchen.de/a")),
        ("xn--mnchen-3ya.de", ("https://münchen.de/a",)),
        ("https://straße.de/a", ("https://xn--strae-oqa.de/a",)),
    ],
)  # fmt: skip
def test_an_address_may_be_spelt_in_many_ways(tmp_path, entry, urls):
    (tmp_path / "list.txt").write_text(entry, "utf-8")
    listed = opt_out.read(str(tmp_path / "list.txt"))
    for url in urls:
        assert listed.holds(url), url
    for url in ("https://other.org/bad.org", "https://worse.org:8080/a.jpg", "/a.jpg",
                "https://worse.org/b.jpg", "https://munchen.de", "?", ":"):  # fmt: skip
        assert not listed.holds(url), url


FACES = {
    5: [(np.array([1.0, 2, 30, 40]), np.arange(10.0).reshape(5, 2), np.float32(0.9))],
    3: [],
    9: [(np.array([0.0, 0, 9, 9]), np.ones((5, 2)), 0.5)] * 2,
}


@pytest.mark.parametrize("zipped", [True, False])
def test_detections_of_laion_face(tmp_path, zipped):
    path = tmp_path / "sample2detect_0.pth"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(FACES, 2))
    else:
        path.write_bytes(pickle.dumps(FACES, 4))
    command = ["data", "detections", str(path), "--out", str(tmp_path / "out" / "0")]
    assert main(command) == 0
    found = detections.Detections(tmp_path / "out")
    np.testing.assert_array_equal(found.faces(5).boxes, [[1, 2, 30, 40]])
    np.testing.assert_array_equal(found.faces(5).points[0], FACES[5][0][1])
    assert found.faces(5).scores == pytest.approx([0.9])
    assert len(found.faces(3).boxes) == 0 and len(found.faces(9).boxes) == 2
    assert found.faces(4) is None
    again = pickle.loads(pickle.dumps(found))
    assert len(again.faces(9).boxes) == 2


class _Evil:
    def __reduce__(self):
        return (__import__("os").system, ("touch /tmp/gptface_evil",))


@pytest.mark.parametrize("content", [b"", b"\x80garbage", pickle.dumps({"a": 1}),
                                     pickle.dumps(_Evil())])  # fmt: skip
def test_other_pickles_are_refused_and_not_run(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="dictionary"):
        detections.convert(path, tmp_path / "out")
    assert not __import__("os").path.exists("/tmp/gptface_evil")
    with pytest.raises(UserError, match="gptface data detections"):
        detections.Detections(tmp_path)


def test_faces_in_columns():
    row = {"faces": [[[1, 2, 11, 22], [[0, 0]] * 5, 0.7]]}
    assert metadata.faces_of(row).scores == pytest.approx([0.7])
    boxes = [[0, 0, 9, 9], [5, 5, 5, 9], [float("nan")] * 4]
    found = metadata.faces_of({"boxes": boxes, "face_scores": [0.1, 0.2, 0.3]})
    assert found.boxes.tolist() == [[0, 0, 9, 9]] and np.isnan(found.points).all()
    assert metadata.faces_of({}) is None
    assert len(metadata.faces_of({"faces": []}).boxes) == 0
    with pytest.raises(UserError, match="boxes are no"):
        metadata.faces_of({"boxes": [[1, 2, 3]]})


@pytest.mark.parametrize(
    "scheme, numbers", [("five", range(5)), ("wflw98", (96, 97, 54, 76, 82))]
)
def test_known_points_tell_the_face(scheme, numbers):
    five = np.array([[40, 45], [60, 45], [50, 55], [42, 65], [58, 65]], np.float32)
    points = np.full((98 if scheme == "wflw98" else 5, 2), 50, np.float32)
    points[list(numbers)] = five - 0.5
    if scheme == "wflw98":
        points[[0, 16]] = [[27.5, 32.5], [71.5, 76.5]]
    record = Record(landmarks=points, landmark_scheme=scheme)
    found = metadata.faces_of_record(record)
    np.testing.assert_allclose(found.points, [five])
    np.testing.assert_allclose(found.boxes, [[28, 33, 72, 77]])


def test_formats_that_pillow_hands_on_are_no_pictures():
    from gptface_jax.data import image_io

    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "EPS")
    with pytest.raises(UserError, match="not a picture"):
        image_io.decode(buffer.getvalue())
