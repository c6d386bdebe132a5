"""Counting green codes: by hand, and in pictures of the tiny model."""

import json

import numpy as np
import pytest
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import synthetic
from gptface_jax.pipelines import watermark_detection

KEY = 2**40 + 77
MARK = {"watermark": 30.0, "watermark_key": KEY, "guidance": "none", "k": 8}


@pytest.fixture(scope="module")
def face():
    return synthetic.SyntheticFaces(size=96, count=1, seed=3)[0].image


def test_the_test_by_hand():
    count = watermark_detection.Count(green=15, tokens=20)
    assert count.z == pytest.approx(10 / 20**0.5)  # (15 - 10) / sqrt(20 / 4)
    ways = 15504 + 4845 + 1140 + 190 + 20 + 1  # 20 over 15, 16, ..., 20
    assert count.p_value == pytest.approx(ways / 2**20) and not count.found
    assert (
        watermark_detection.Count(10, 20).z == 0
        and watermark_detection.Count(0, 20).p_value == 1
    )
    # 2**-10 is below 1e-3, and that of 16 in 20 (6196 ways) is not.
    assert (
        watermark_detection.Count(10, 10).found
        and not watermark_detection.Count(16, 20).found
    )
    assert watermark_detection.Count(17, 20).p_value == pytest.approx(1351 / 2**20)
    # Many tokens: the normal approximation, with its correction for whole numbers.
    many = watermark_detection.Count(3310, 6400)
    assert many.z == 2.75 and many.p_value == pytest.approx(0.00308, rel=0.02)


def test_what_says_the_same_counts_once():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 27, (2, 8, 8))
    is_open = np.zeros((2, 8, 8), bool)
    is_open[:, 2:5] = True
    green = watermark_detection.green_codes(ids, KEY)
    one = watermark_detection.count(green[:1], ids[:1], is_open[:1])
    assert (one.green, one.tokens) == (green[0, 2:5].sum(), 24)
    assert watermark_detection.count(green[[0, 0]], ids[[0, 0]], is_open) == one
    literal = watermark_detection.green_codes(ids, KEY, by_left=True)
    assert (literal != green).any()
    for by_left, colours in ((False, green), (True, literal)):
        said = {
            (y, x, ids[b, y, x], ids[b, y, x - 1] if by_left and x else -1): colour
            for (b, y, x), colour in np.ndenumerate(colours)
            if is_open[b, y, x]
        }
        both = watermark_detection.count(colours, ids, is_open, by_left)
        assert (both.green, both.tokens) == (sum(said.values()), len(said))
    # The same codes with other neighbours count once more only if those count.
    ids[1] = ids[0]
    ids[1, :, ::2] = (ids[0, :, ::2] + 1) % 27
    counted = [
        watermark_detection.count(
            watermark_detection.green_codes(ids, KEY, by), ids, is_open, by
        ).tokens
        for by in (False, True)
    ]
    assert counted == [24 + 12, 48]


def test_keys_find_what_they_marked_and_nothing_else():
    """Codes without pictures: half of 64 are green, or three quarters."""
    rng = np.random.default_rng(1)
    ids, again = rng.integers(0, 1024, (2, 400, 8, 8))
    green = watermark_detection.green_codes(ids, KEY)
    marked = np.where(green, ids, again)
    for codes, least, most in ((ids, 0, 3), (marked, 250, 399)):
        counts = watermark_detection.green_codes(codes, KEY).sum((1, 2))
        found = sum(watermark_detection.Count(int(n), 64).found for n in counts)
        assert least <= found <= most
    other = watermark_detection.green_codes(marked, KEY + 1).sum((1, 2))
    assert sum(watermark_detection.Count(int(n), 64).found for n in other) <= 3


def read_back(model, monkeypatch, ids):
    """The tiny tokenizer keeps no codes: the encoder is given the true ones."""
    monkeypatch.setattr(type(model.editor), "image_ids", lambda *_: ids)


def test_a_marked_sample_is_told_from_an_unmarked_one(model, tmp_path, monkeypatch):
    drawn_ids = []
    decode = type(model.editor.vqgan).decode

    def watched(self, ids, **options):
        drawn_ids.append(np.asarray(ids))
        return decode(self, ids, **options)

    monkeypatch.setattr(type(model.editor.vqgan), "decode", watched)
    marked = model.sample(2, seed=1, **MARK)
    plain = model.sample(2, seed=1, guidance="none", k=8)
    marked.save(tmp_path / "marked.png")
    plain.save(tmp_path / "plain.png")
    for name, ids, found in (
        ("marked", drawn_ids[0], True),
        ("plain", drawn_ids[1], False),
    ):
        read_back(model, monkeypatch, ids)
        report = watermark_detection.detect(model, tmp_path / f"{name}.png", KEY)
        assert report.count.found == found
        assert report.source_type.endswith("/trainedAlgorithmicMedia")
        assert (report.details_in, report.where) == (
            "sidecar",
            "that the sidecar names",
        )
        assert report.same_key is (True if found else None)
    read_back(model, monkeypatch, drawn_ids[0])
    other = watermark_detection.detect(model, tmp_path / "marked.png", KEY + 1)
    assert other.same_key is False and not other.count.found


def test_a_region_by_chance_is_that_of_the_edit(model, face, tmp_path, monkeypatch):
    """By the seed that the sidecar tells, or the one that is given."""
    path, *_ = model.inpaint(face, region="span:0.3", seed=7, **MARK).save(
        tmp_path / "x.png"
    )
    seeds, select = [], type(model).select

    def watched(self, photo, selection, seed=0):
        seeds.append(seed)
        return select(self, photo, selection, seed)

    monkeypatch.setattr(type(model), "select", watched)
    for options in ({}, {"seed": 3}, {"seed": 0}):
        watermark_detection.detect(model, path, KEY, region="span:0.3", **options)
    watermark_detection.detect(model, np.asarray(face), KEY, region="span:0.3")
    assert seeds == [7, 3, 0, 0]


def test_where_is_what_was_asked_else_what_is_known(model, face, tmp_path):
    edit = model.inpaint(face, box=(24, 48, 60, 72), **MARK)
    path, _, sidecar = edit.save(tmp_path / "x.png")
    tokens = edit.details["tokens"]
    assert tokens == 6 and edit.details["squares"][0]["open"].count("00000000") == 6

    def asked(picture, **where):
        report = watermark_detection.detect(model, picture, KEY, **where)
        return report.details_in, report.where, report.count.tokens

    beside = ("sidecar", "that the sidecar names", tokens)
    whole = "of the whole square"
    assert asked(path) == beside
    assert asked(path, box=(24, 48, 60, 60)) == ("sidecar", "of the mask", 3)
    inverted = {"box": (24, 48, 60, 60), "invert_mask": True}
    assert asked(path, **inverted) == ("sidecar", "of the mask", 61)
    for where in ({"face": 1}, {"mask_grow": 2}):
        with pytest.raises(UserError, match="goes with a mask, box or region"):
            asked(path, **where)
    assert asked(path, crop=(0, 0, 96, 96)) == ("sidecar", whole, 64)
    # Half as large, with the sidecar; moved, with the XMP alone; without any.
    small = tmp_path / "small.png"
    Image.open(path).resize((48, 48)).save(small)
    small.with_suffix(".json").write_text(sidecar.read_text())
    assert asked(small) == beside
    sidecar.unlink()
    assert asked(path) == asked(path.read_bytes()) == ("XMP", "that the XMP names", 6)
    assert asked(np.asarray(edit.image)) == ("nothing", whole, 64)
    # Sidecars are anybody's.
    details = json.loads(small.with_suffix(".json").read_text())
    for change in (
        {"squares": 3},
        {"squares": [{"crop": [0, 0, 96, 96], "open": ["1"]}]},
        {"squares": [{"crop": [-5, 0, 91, 96], "open": ["11111111"] * 8}]},
        {"squares": [{"crop": [0, 0, 96, 96], "open": ["0" * 8] * 8}]},
        {"size": [96, 50]},
        {"size": [0, 0]},
        {"size": "large"},
        {"decode": "none"},
    ):
        changed = json.dumps({**details, **change})
        small.with_suffix(".json").write_text(changed)
        assert asked(small)[0] == "sidecar"
        assert asked(small)[1:] == (beside[1:] if "decode" in change else (whole, 64))


def test_restored_squares_are_counted_together(model, face):
    wide = np.concatenate([face, face], axis=1)
    damage = np.zeros(wide.shape[:2], np.uint8)
    damage[30:34, 20:60] = damage[50:54, 120:150] = 255
    restored = model.restore(wide, damage, thin=0, **MARK)
    squares = watermark_detection._squares(restored.details, wide.shape[:2], (8, 8))
    assert [view.box for view, _ in squares] == [(0, 0, 96, 96), (96, 0, 192, 96)]
    opened = sum(int(is_open.sum()) for _, is_open in squares)
    assert opened == restored.details["tokens"]


def test_bad_input(tiny, model, face, tmp_path, gptface_command, capsys):
    for key in (-1, 2**64, "secret", 1.5):
        with pytest.raises(UserError, match="watermark_key is"):
            watermark_detection.detect(model, face, key)
    for wrong in ({"watermark": -1.0}, {"watermark_key": "secret"}):
        with pytest.raises(UserError, match="watermark"):
            model.sample(1, **wrong)
    text = tmp_path / "x.png"
    text.write_text("no picture")
    base = ("detect", "--model", tiny / "model", "--image")
    photo = tmp_path / "photo.png"
    Image.fromarray(face).save(photo)
    for said, arguments in {
        "not a picture": (text,),
        "does not exist": (tmp_path / "none.png",),
        "watermark_key is -1": (photo, "--key", -1),
        "did you mean 'mouth'": (photo, "--region", "mooth"),
        "mask_grow goes with a mask": (photo, "--mask-grow", 3),
        "give a number from 1 on": (photo, "--region", "mouth", "--face", "all"),
        "leaves nothing of a mask": (photo, "--box", "9,9,20,20", "--mask-shrink", 9),
    }.items():
        assert gptface_command(*base, *arguments) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        gptface_command(*base, photo, "--key", "secret")
    capsys.readouterr()
    assert gptface_command(*base, photo) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("XMP: no mark") and "neither a sidecar" in lines[1]
    assert "of 64 codes of the whole square" in lines[2]
    assert lines[3].startswith("edited here: no sign of it")
    model.edit(face, region="mouth", text="a man", k=16, samples=1).save(
        tmp_path / "new.png"
    )
    assert gptface_command(*base, tmp_path / "new.png") == 0
    assert "edited here: yes, by its sidecar" in capsys.readouterr().out
