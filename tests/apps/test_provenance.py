"""What tells that a picture is a model's work, as other programs read it."""

import errno
import json
import os
import shutil
import struct
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from gptface_jax.apps import api
from gptface_jax.core.errors import UserError
from gptface_jax.data import synthetic
from gptface_jax.pipelines import faces, pictures, provenance, results

DETAILS = {
    "edited": True,
    "software": "gptface_jax 0.0",
    "text": 'a "smiling" <woman> & Zoë 🙂',
    "seed": 3,
}
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
EDITED = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/"
    "compositeWithTrainedAlgorithmicMedia"
)
DRAWN = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def chunk(data: bytes, ending: str) -> bytes:
    """The XMP packet where each format's own specification puts it."""
    if ending == "png":
        start = data.index(b"iTXtXML:com.adobe.xmp\x00\x00\x00\x00\x00")
        (length,) = struct.unpack(">I", data[start - 4 : start])
        return data[start + 4 : start + 4 + length][22:]
    if ending == "jpg":
        start = data.index(b"http://ns.adobe.com/xap/1.0/\x00")
        marker, length = struct.unpack(">HH", data[start - 4 : start])
        assert marker == 0xFFE1
        return data[start + 29 : start - 2 + length]
    start = data.index(b"XMP ")
    (length,) = struct.unpack("<I", data[start + 4 : start + 8])
    return data[start + 8 : start + 8 + length]


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("edited", [True, False])
def test_the_mark_is_where_common_tools_look(tmp_path, ending, edited):
    path = tmp_path / f"x.{ending}"
    details = {**DETAILS, "edited": edited}
    pictures.save(np.zeros((16, 24, 3), np.uint8), path, details)
    kind = EDITED if edited else DRAWN
    packet = chunk(path.read_bytes(), ending)
    assert packet.startswith(b"<?xpacket begin=") and packet.endswith(b'end="w"?>')
    root = ElementTree.fromstring(packet)
    assert root.find(f".//{IPTC}").text == kind
    with Image.open(path) as opened:
        assert ElementTree.fromstring(opened.info["xmp"]).find(f".//{IPTC}") is not None
        assert provenance.read(opened) == (kind, details)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_pillow_reads_the_mark(tmp_path, ending):
    pytest.importorskip("defusedxml")
    path = tmp_path / f"x.{ending}"
    pictures.save(np.zeros((16, 24, 3), np.uint8), path, DETAILS)
    with Image.open(path) as opened:
        said = opened.getxmp()["xmpmeta"]["RDF"]["Description"]
    assert said["DigitalSourceType"] == EDITED


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_exiftool_reads_the_mark(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    pictures.save(np.zeros((16, 24, 3), np.uint8), path, DETAILS)
    command = ["exiftool", "-j", "-n", "-XMP-iptcExt:DigitalSourceType", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0]["DigitalSourceType"] == EDITED


def test_marks_of_other_programs_are_read_and_rubbish_is_not():
    picture = Image.new("RGB", (4, 4))
    assert provenance.read(picture) == (None, None)
    rdf = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    short = f'<x xmlns:r="{rdf}"><r:Description xmlns:i="{IPTC[1:].split("}")[0]}" '
    picture.info["xmp"] = f'{short} i:DigitalSourceType="{DRAWN}"/></x>'.encode()
    assert provenance.read(picture) == (DRAWN, None)
    space = "urn:gptface_jax:1/"
    for wrong in ("[1]", "{}", '{"edited": 1}', "{", "null"):
        xml = f'<x xmlns:g="{space}"><g:details>{wrong}</g:details></x>'
        picture.info["xmp"] = xml.encode()
        assert provenance.read(picture) == (None, None)
    for rubbish in (b"<", b"", b"\xff\xfe", b"\x00 "):
        picture.info["xmp"] = rubbish
        assert provenance.read(picture) == (None, None)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_every_output_tells_model_seed_text_and_mask_but_no_key(
    model, tmp_path, ending
):
    face = synthetic.SyntheticFaces(size=48, count=1, seed=3)[0].image
    secret = 1234567890123
    mark = {"watermark": 2.0, "watermark_key": secret, "k": 64}
    edit = model.edit(face, "a man", region="mouth", guidance="none", seed=7, **mark)
    drawn = model.sample(3, seed=7, **mark)
    files = edit.save(tmp_path / f"edit.{ending}")
    files += drawn.save(tmp_path / f"drawn.{ending}", columns=2)
    assert not any(str(secret).encode() in file.read_bytes() for file in files)
    for name, kind in (("edit", EDITED), ("drawn", DRAWN)):
        path = tmp_path / f"{name}.{ending}"
        details = json.loads(path.with_suffix(".json").read_text())
        with Image.open(path) as opened:
            assert provenance.read(opened) == (kind, details)
        assert details["model"] == model.digest and details["seed"] == 7
        assert details["mask"] and details["text"] == ("a man" * (name == "edit"))
        options = details["decode"]
        digest = options["watermark_key_digest"]
        assert options["watermark"] == 2.0 and digest == provenance.key_digest(secret)
        # What was there before is replaced only where it is ours.
        other = path.with_name(f"other.{ending}")
        other.write_bytes(b"precious")
        with pytest.raises(ValueError, match="not of an earlier edit"):
            (edit if name == "edit" else drawn).save(other)
    plain = model.inpaint(face, region="mouth").details["decode"]
    assert plain["watermark"] == 0.0 and "watermark_key_digest" not in plain
    with Image.open(files[1]) as strip:
        assert provenance.read(strip)[0] == EDITED


def test_cells_are_where_the_sheet_has_its_pictures():
    shown = [np.full((32, 32, 3), 40 * i, np.uint8) for i in range(5)]
    page = pictures.sheet(shown, 2)
    for picture, (x0, y0, x1, y1) in zip(shown, pictures.cells(5, 2)):
        assert (page[y0:y1, x0:x1] == picture[0, 0]).all()
        assert (page[y0 - 1, x0:x1] == 255).all() and (page[y0:y1, x1] == 255).all()


def test_a_result_in_another_format_has_a_sidecar_of_its_own(tmp_path):
    """It was refused: "s1.json is not of an earlier edit"."""
    picture = np.zeros((4, 4, 3), np.uint8)
    for text, name in (("a", "s.png"), ("b", "s.jpg"), ("c", "s.jpg"), ("d", "s.webp")):
        path, strip, sidecar = api.outputs(tmp_path / name)
        details = {"edited": True, "software": "x", "text": text}
        api.save_with_sidecar(picture, path, details)
        assert json.loads(sidecar.read_text())["text"] == text
        assert strip.name == sidecar.name.replace(".json", ".strip.png")
    names = {"s.png", "s.json", "s.jpg", "s.jpg.json", "s.webp", "s.webp.json"}
    assert {p.name for p in tmp_path.iterdir()} == names
    (tmp_path / "s.json").unlink()
    for name, text in (("s.png", None), ("s.jpg", "c"), ("s.webp", "d")):
        found = provenance.read_sidecar(tmp_path / name)
        assert (found and found["text"]) == text


def test_a_jpeg_holds_what_it_has_room_for(tmp_path):
    """It was refused, after all the work: "XMP data is too long"."""
    grid = (16, 16)
    details = {"edited": False, "software": "x", "text": "a", "grid": list(grid)}
    drawn = results.Samples([Image.new("RGB", (8, 8))] * 300, details)
    with pytest.warns(UserWarning, match="64 KB of XMP: squares in the sidecar alone"):
        path, sidecar = drawn.save(tmp_path / "many.jpg")
    assert len(json.loads(sidecar.read_text())["squares"]) == 300
    sidecar.unlink()
    assert provenance.details_of(path) == {"file": "many.jpg", **details} | {
        "size": list(Image.open(path).size)
    }
    chained = {**details, "edited": True, "chain": [{"open": "1" * 70_000}]}
    assert pictures.left_out("a.jpg", chained) == ["chain"]
    assert not pictures.left_out("a.webp", chained)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    picture = np.zeros((4, 4, 3), np.uint8)
    details = {"edited": True, "software": "x", "text": "a"}

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for earlier in (False, True):
        if earlier:
            api.save_with_sidecar(picture, tmp_path / "a.png", details)
        before = {p: p.read_bytes() for p in tmp_path.iterdir()}
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "save", full)
            with pytest.raises(UserError, match="cannot write '.*a.png': No space"):
                changed = {**details, "text": "b"}
                api.save_with_sidecar(picture, tmp_path / "a.png", changed)
        assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*Not a directory"):
        api.outputs(tmp_path / "file" / "a.png")
    # A folder that is missing is made, when there is something to put into it.
    path = tmp_path / "new" / "folder" / "a.png"
    api.outputs(path)
    assert not path.parent.exists()
    details = {"edited": True, "software": "x"}
    api.save_with_sidecar(np.zeros((4, 4, 3), np.uint8), path, details)
    assert path.is_file() and path.with_suffix(".json").is_file()


@pytest.mark.parametrize(
    "command",
    [
        ("edit", "--image", "a.png", "--text", "a", "--out"),
        ("edit", "--jobs", "jobs", "--text", "a", "--out"),
        ("sample", "--out"),
        ("tag", "--image", "a.png", "--json"),
        ("faces", "--image", "a.png", "--out"),
        ("evaluate", "edits", "--images", "x", "--sheet"),
        ("quickstart", "--out"),
    ],
)
def test_every_verb_looks_where_it_writes_first(
    command, tmp_path, gptface_command, capsys
):
    (tmp_path / "file").write_text("")
    assert gptface_command(*command, tmp_path / "file" / "b.png") == 2
    assert "Not a directory" in capsys.readouterr().err


def test_faces_are_not_written_over_anything_else(
    tmp_path, gptface_command, monkeypatch, capsys
):
    """The sidecar of an edit was overwritten."""
    monkeypatch.setattr(faces, "find", lambda *given, **options: [])
    photo, out = tmp_path / "photo.png", tmp_path / "new.png"
    Image.new("RGB", (64, 64)).save(photo)
    details = {"edited": True, "software": "x"}
    api.save_with_sidecar(np.zeros((4, 4, 3), np.uint8), out, details)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    command = ("faces", "--image", photo, "--out")
    for name in ("new.json", "new.png", "new.jpg"):
        assert gptface_command(*command, tmp_path / name) == 2
        assert "new.json' exists and holds no faces" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    again = tmp_path / "faces.png"
    for _ in range(2):
        assert gptface_command(*command, again) == 0
    again.with_suffix(".json").unlink()
    assert gptface_command(*command, again) == 2


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "edits", "--images", "x", "--sheet", "a.tiff"),
        ("evaluate", "tagging", "--images", "x", "--sheet", "a.bmp"),
        ("evaluate", "masked", "--run", "x", "--plot", "a.bmp"),
        ("evaluate", "probe", "--images", "x", "--plot", "a.bmp"),
        ("plot", "x", "--out", "a.bmp"),
        ("reconstruct", "--images", "x", "--tokenizer", "x", "--out", "a.bmp"),
        ("export", "--format", "taming", "--tokenizer", "x", "--out", "a.npz"),
        ("sample", "--out", "a.gif"),
        ("edit", "--image", "x", "--text", "x", "--propose", "--out", "a.gif"),
        ("faces", "--image", "x", "--out", "a.gif"),
    ],
)
def test_endings_are_refused_before_anything_is_read(command, gptface_command, capsys):
    """What is read is not there, and would be told if it were looked for."""
    assert gptface_command(*command) == 2
    said = capsys.readouterr().err
    assert f"'{command[-1]}'" in said and "end" in said


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "matching", "--images", "x", "--out"),
        ("evaluate", "judge", "--images", "x", "--judge", "x", "--out"),
        ("reconstruct", "--images", "x", "--tokenizer", "x", "--json"),
        ("faces", "--measure", "--images", "x", "--out"),
        ("tag", "--image", "x", "--json"),
    ],
)
def test_a_folder_is_no_file_to_write(command, tmp_path, gptface_command, capsys):
    assert gptface_command(*command, tmp_path) == 2
    assert f"is the folder '{tmp_path}'" in capsys.readouterr().err


def test_a_sidecar_belongs_to_one_file(tmp_path):
    picture = np.zeros((4, 4, 3), np.uint8)
    details = {"edited": True, "software": "x", "text": "a"}
    api.save_with_sidecar(picture, tmp_path / "photo.png", details)
    assert provenance.read_sidecar(tmp_path / "photo.png")["text"] == "a"
    Image.fromarray(picture).save(tmp_path / "photo.jpg")  # what it was made of
    assert provenance.details_of(tmp_path / "photo.jpg") is None
    assert len(api.outputs(tmp_path / "photo.png")) == 3
    with pytest.raises(UserError, match="is not of an earlier edit"):
        api.outputs(tmp_path / "photo.jpg")
    with pytest.raises(UserError, match="ends in '.bmp'"):
        api.outputs(tmp_path / "photo.bmp")
