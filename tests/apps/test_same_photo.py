"""What is no pixel of the edit stays: tone, transparency, profile, camera and date."""

import json

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from gptface_jax.apps import api, batch
from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, synthetic, tone
from gptface_jax.data import photo as photos
from gptface_jax.pipelines import provenance

STEADY = {"samples": 1, "guidance": "none", "cfg": 1.0, "k": 64}
PLACE = ExifTags.IFD.GPSInfo


@pytest.fixture(scope="module")
def colours():
    face = synthetic.SyntheticFaces(size=96, count=1, seed=3)[0].image
    # Drawn faces have few tones; a photograph has them all.
    shade = np.linspace(0.4, 1.3, 96)[None, :, None]
    return np.clip(face * shade, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def grey(colours):
    return np.asarray(Image.fromarray(colours).convert("L").convert("RGB"))


@pytest.fixture
def file(colours, tmp_path):
    """A photo with all that may be lost; upright it is 96 x 96."""
    block = Image.Exif()
    block[ExifTags.Base.Model], block[ExifTags.Base.Orientation] = "X100", 3
    block[ExifTags.Base.ImageDescription] = "at the lake"
    block.get_ifd(PLACE).update({1: "N", 2: (52.0, 30.0, 0.0)})
    alpha = np.full((96, 96), 255, np.uint8)
    alpha[:20], alpha[20:40] = 0, 99
    picture = Image.fromarray(np.dstack([colours, alpha]).copy())
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "given.png"
    picture.save(path, exif=block, icc_profile=profile, dpi=(300, 300))
    return path


def chroma(image, where):
    return int(np.ptp(np.asarray(image)[where].astype(int), axis=-1).max())


def test_a_grey_photo_stays_grey_whatever_is_done(model, grey, colours):
    with_line = grey.copy()
    with_line[20:80, 40:43] = (255, 30, 30)
    edits = [
        model.edit(grey, "a man", region="mouth", **STEADY),
        model.inpaint(grey, box=(20, 20, 60, 60), k=64),
        model.restore(with_line, (with_line != grey).any(-1), thin=0, k=64),
        model.stitch(grey, grey[:, ::-1], k=64),
        model.stitch(grey, colours, k=64),
        model.edit(with_line, "a man", box=(36, 16, 47, 84), feather=0, **STEADY),
    ]
    for edit in edits:
        assert edit.details["tone"] == "grey"
        assert chroma(edit.image, edit.mask) == 0
        assert chroma(edit.image, np.ones((96, 96), bool)) == 0
    assert (np.asarray(edits[0].image) != grey).any()


def test_a_photo_in_colours_is_edited_as_before(model, colours, monkeypatch):
    options = {"region": "lower-face", **STEADY}
    edit = model.edit(colours, "a man", **options)
    assert "tone" not in edit.details and chroma(edit.image, edit.mask) > 20
    monkeypatch.setattr(tone, "tone_of", lambda *_: None)
    same = model.edit(colours, "a man", **options)
    np.testing.assert_array_equal(edit.image, same.image)


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
def test_the_file_keeps_what_it_held_but_the_place(model, file, tmp_path, ending):
    edit = model.edit(file, "a man", box=(30, 30, 60, 60), **STEADY)
    out = tmp_path / f"new.{ending}"
    edit.save(out)
    with Image.open(file) as given, Image.open(out) as opened:
        assert opened.mode == ("RGB" if ending == "jpg" else "RGBA")
        assert opened.info["icc_profile"] == given.info["icc_profile"]
        if ending == "png":
            before = np.asarray(given)[::-1, ::-1]
            np.testing.assert_array_equal(
                np.asarray(opened)[~edit.mask], before[~edit.mask]
            )
            assert (np.asarray(opened) != before).any()
        if ending != "webp":
            np.testing.assert_allclose(opened.info["dpi"], 300, atol=0.1)
        block = opened.getexif()
        assert block[ExifTags.Base.Model] == "X100"
        assert ExifTags.Base.Orientation not in block and not block.get_ifd(PLACE)
        if ending != "png":
            said = block[ExifTags.Base.ImageDescription]
            assert said.startswith("at the lake (Edited with gptface_jax")
        kind, details = provenance.read(opened)
        assert kind == provenance.EDITED
    flat = [n for n in details["notes"] if "transparency" in n]
    assert len(flat) == (ending == "jpg")
    assert json.loads(out.with_suffix(".json").read_text()) == details


def test_it_stays_over_a_chain_and_the_place_on_request(model, file, tmp_path):
    first = model.edit(
        file, "a man", box=(30, 30, 60, 60), keep_location=True, **STEADY
    )
    second = model.edit(first, "a man", box=(10, 60, 40, 90), **STEADY)
    np.testing.assert_array_equal(
        np.asarray(second.image)[~second.mask], np.asarray(first.image)[~second.mask]
    )
    second.save(tmp_path / "new.png")
    changed = first.mask | second.mask
    with Image.open(file) as given, Image.open(tmp_path / "new.png") as opened:
        before = np.asarray(given)[::-1, ::-1]
        np.testing.assert_array_equal(np.asarray(opened)[~changed], before[~changed])
        assert opened.getexif().get_ifd(PLACE)[2] == (52.0, 30.0, 0.0)


def test_masks_are_inverted_grown_and_shrunk(model, colours, tmp_path):
    mask = np.zeros((96, 96), bool)
    mask[40:50, 40:50] = True

    def seen(given=mask, **change):
        return model.inpaint(colours, given, k=64, **change).mask

    grown = seen(mask_grow=3)
    assert grown[40:50, 37:53].all() and grown[37, 45] and not grown[37, 37]
    assert not grown[:, :37].any() and not grown[36].any()
    np.testing.assert_array_equal(seen(mask_shrink=2).nonzero()[0][[0, -1]], [42, 47])
    assert (seen(~mask, invert_mask=True) == mask).all()
    closed = mask.copy()
    closed[44:46, 44:46] = False  # a hole that is closed, while the outline stays
    assert seen(closed, mask_grow=2, mask_shrink=2)[44:46, 44:46].all()
    said = model.inpaint(colours, box=(40, 40, 50, 50), k=64, mask_grow=3)
    assert (said.mask == grown).all() and said.details["mask"]["grow"] == 3
    mouth = model.inpaint(colours, region="mouth", k=64).mask
    rest = model.inpaint(colours, region="mouth", k=64, invert_mask=True).mask
    assert (rest == ~mouth).all()
    picture = tmp_path / "mask.png"
    Image.fromarray(np.uint8(255) * ~mask).save(picture)
    Image.fromarray(colours).save(tmp_path / "a.png")
    line = {"image": "a.png", "mask": "mask.png", "invert_mask": True, "mask_grow": 3}
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"id": "a", **line, "k": 64}))
    jobs = batch.read_jobs(tmp_path / "jobs.jsonl", "inpaint")
    counts = batch.run(
        model, jobs, tmp_path / "out", verb="inpaint", batch_size=1, progress=False
    )
    assert counts["failed"] == 0
    written = json.loads((tmp_path / "out" / "a.json").read_text())
    assert written["mask"]["pixels"] == grown.sum()


def test_changes_of_masks_that_make_no_sense(model, colours):
    for change, said in (
        ({"mask_grow": -1}, "mask_grow is -1"),
        ({"mask_grow": 1.5}, "mask_grow is 1.5"),
        ({"mask_shrink": True}, "mask_shrink is True"),
        ({"mask_shrink": 90}, "leaves nothing of a mask of 100 pixels"),
    ):
        with pytest.raises(UserError, match=said):
            model.inpaint(colours, box=(40, 40, 50, 50), **change)
    with pytest.raises(UserError, match="mask_grow goes with a mask"):
        model.edit(colours, "a man", mask_grow=2)
    with pytest.raises(UserError, match="does not go with the tokens of region"):
        model.inpaint(colours, region="span:0.4", invert_mask=True)


@pytest.mark.parametrize("verb", ["edit", "inpaint", "restore"])
def test_jobs_check_the_types_of_changes(verb, tmp_path):
    def job(change):
        line = {"id": "a", "image": "a.png", "text": "x"}
        if verb != "edit":
            del line["text"]
        (tmp_path / "jobs.jsonl").write_text(json.dumps({**line, **change}))
        return batch.read_jobs(tmp_path / "jobs.jsonl", verb)[0]

    for change, said in (
        ({"invert_mask": "yes"}, "invert_mask is 'yes'; give true or false"),
        ({"invert_mask": 1}, "invert_mask is 1; give true or false"),
        ({"mask_grow": "3"}, "mask_grow is '3'; give a whole number"),
        ({"mask_shrink": 1.5}, "mask_shrink is 1.5; give a whole number"),
        ({"mask_grow": True}, "mask_grow is True; give a whole number"),
        ({"mask_shrink": [1]}, "mask_shrink is [1]; give a whole number"),
        ({"mask_grown": 3}, "'mask_grown' is no option"),
    ):
        assert said in job(change).error
    none = {"invert_mask": None, "mask_grow": float("nan"), "mask_shrink": 4.0}
    found = job(none)
    assert found.error == "" and found.values["mask_shrink"] == 4
    assert not {"invert_mask", "mask_grow"} & set(found.values)


def test_the_command_line_knows_the_flags(monkeypatch, colours, tmp_path):
    Image.fromarray(colours).save(tmp_path / "a.png")
    told = {}

    class Fake:
        def inpaint(self, image, **given):
            told.update(given)
            raise UserError("enough")

    monkeypatch.setattr("gptface_jax.cli._photo.load", lambda options: Fake())
    command = ["inpaint", "--image", str(tmp_path / "a.png"), "--box", "1,2,3,4"]
    command += ["--out", str(tmp_path / "b.png"), "--invert-mask", "--mask-grow", "3"]
    assert main([*command, "--mask-shrink", "1", "--keep-location"]) == 2
    wanted = {"invert_mask": True, "mask_grow": 3, "mask_shrink": 1}
    assert told.items() >= {**wanted, "keep_location": True}.items()


def test_the_page_keeps_the_same(file):
    service = pytest.importorskip("gptface_jax.apps.web.service")
    where = service.Service(None, 0, image_io.MAX_PIXELS, 1, "")
    photo = where.photo(file.read_bytes())
    again = photos.read(photo)
    with Image.open(file) as given:
        before = np.asarray(given)[::-1, ::-1]
    np.testing.assert_array_equal(again.stored, before[..., :3])
    np.testing.assert_array_equal(again.alpha, before[..., 3])
    assert again.exif and again.profile and again.dpi


def test_an_edit_made_by_hand_is_saved_as_it_is(tmp_path):
    picture = Image.new("RGB", (8, 8))
    details = {"edited": True, "software": "x", "notes": []}
    mask = np.zeros((8, 8), bool)
    edit = api.Edit(picture, picture, mask, np.zeros((1, 1)), "", (), 0.0, details)
    assert len(edit.save(tmp_path / "x.jpg")) == 3
