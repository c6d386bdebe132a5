"""Folders of pictures as people have them: nothing is lost without a word."""

import io
import json
import os
import pickle
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import (
    folders,
    image_io,
    shards,
    sources,
    tables,
    transforms,
)
from gptface_jax.data.record import Record


def png(value=0):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    return tmp_path


def read(folder, **options):
    """Name -> its texts."""
    source = folders.Folder(folder, **options)
    return {
        r.source.partition("/")[2]: r.texts or ((r.text,) if r.text else ())
        for r in source
    }


def test_a_quote_left_open_is_named(photos):
    table = photos / "metadata.csv"
    good = "".join(f"{i}.png,a face\n" for i in range(2, 6))
    for spoilt, line in (
        ('0.png,"a man\n1.png,"a woman"\n' + good, 2),  # closed by the next quote
        ("0.png,a man\n1.png,a woman\n" + good + '5.png,"a man\n', 8),
        ('0.png,"a man" smiling\n', 2),
        ("0.png,a man, smiling\n", 2),
        ("0.png\n", 2),
        ('0.png,"' + "x" * 200_000, 2),  # was a traceback
    ):
        table.write_text("file_name,text\n" + spoilt)
        with pytest.raises(UserError) as caught:
            folders.Folder(photos)
        assert f"'{table}' line {line}" in str(caught.value), spoilt[:30]
    table.write_text('file_name,text\n0.png,"a ""big"", long\nsmile"\n' + good)
    assert read(photos)["0.png"] == ('a "big", long\nsmile',)


def test_windows_files(photos):
    """A byte order mark, \\r\\n, backslashes, and spaces in the header."""
    (photos / "sub").mkdir()
    (photos / "sub" / "0.png").write_bytes(png())
    text = "file_name, text\r\n0.png,one\r\nsub\\0.png,two\r\n"
    (photos / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read(photos) == {"0.png": ("one",), "sub/0.png": ("two",)}
    lines = '{"file_name": "0.png", "text": "one"}\r\n\r\n'
    (photos / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert read(photos) == {"0.png": ("one",)}
    (photos / "metadata.jsonl").unlink()
    (photos / "metadata.csv").unlink()
    (photos / "1.txt").write_bytes(b"\xef\xbb\xbfa man\r\na smiling man\r\n")
    assert read(photos)["1.png"] == ("a man", "a smiling man")


def test_null_and_nan_are_no_text(photos):
    rows = ['"text": NaN', '"text": null', '"text": ""', '"text": ["", "two", null]']
    lines = [f'{{"file_name": "{i}.png", {row}}}' for i, row in enumerate(rows)]
    (photos / "metadata.jsonl").write_text("\n".join(lines))
    nothing = {f"{i}.png": () for i in range(3)}
    assert read(photos) == nothing | {"3.png": ("two",)}
    (photos / "metadata.jsonl").unlink()
    lines = ["file_name,text,Smiling", "0.png,nan,", "1.png,NULL,NaN", "2.png,,1"]
    (photos / "metadata.csv").write_text("\n".join(lines))
    assert read(photos) == nothing
    assert folders.Folder(photos)[2].labels == {"Smiling": 1.0}
    table = pa.table(
        {"image": [png()] * 3, "text": [np.nan, 3.0, None], "person": [np.nan, 1.0, 2]}
    )
    pq.write_table(table, photos / "x.parquet")
    source = sources.Parquet(photos / "x.parquet")
    assert [r.text for r in source] == ["", "3.0", ""]
    assert [r.identity for r in source] == [None, 1.0, 2.0]


def test_what_is_no_text_is_named_with_its_line(photos):
    for value in ("true", '{"en": "a man"}', "[true]"):
        line = f'{{"file_name": "0.png", "text": {value}}}'
        (photos / "metadata.jsonl").write_text("\n" + line)
        with pytest.raises(UserError, match="metadata.jsonl' line 2: column 'text' h"):
            folders.Folder(photos)
    line = '{"file_name": "0.png", "Smiling": "yes"}'
    (photos / "metadata.jsonl").write_text(line)
    with pytest.raises(UserError, match="line 1: column 'Smiling' holds 'yes'"):
        folders.Folder(photos)


def test_all_texts_of_several_are_used(photos, tmp_path):
    row = {"file_name": "0.png", "captions": ["", "one", "two", "three"]}
    (photos / "metadata.jsonl").write_text(json.dumps(row))
    (record,) = folders.Folder(photos)
    assert record.text == "one" and record.texts == ("one", "two", "three")
    assert shards.unpack(shards.pack(record)).texts == record.texts
    options = transforms.CaptionOptions()
    rng = np.random.default_rng(0)
    drawn = [options.text(record, rng) for _ in range(300)]
    counts = [drawn.count(text) for text in record.texts]
    assert sum(counts) == 300 and min(counts) > 70
    assert options.words(record) == "one two three"
    # One text draws nothing: batches of such data are what they were.
    state = rng.bit_generator.state
    assert options.text(Record(text="one"), rng) == "one"
    assert rng.bit_generator.state == state


def test_the_line_says_what_is_not_used(photos):
    rows = [
        {"file_name": "0.png", "text": "a man", "prompt": "x"},
        {"file_name": "1.png", "Smiling": 1, "smiling": 1},
        {"file_name": "2.png", "prompt": "a woman"},
        {"file_name": "3.png", "text": "a woman"},
    ]
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (photos / "metadata.csv").write_text("file_name\n4.png\n")
    (photos / "6.jxl").touch()
    (photos / "._0.png").touch()
    assert folders.Folder(photos).summary() == (
        f"'{photos}': 6 photos, 2 without a row, left out, 1 without text or labels; "
        "columns ignored: prompt, smiling (did you mean 'Smiling'?); tables ignored: "
        "metadata.csv; skipped: 1 .jxl, 1 hidden (understood: "
        f"{tables.UNDERSTOOD}; texts in 0.txt beside 0.jpg)"
    )
    with pytest.raises(UserError, match="did you mean 'prompt'"):
        folders.Folder(photos, text_column="promt")
    assert read(photos, text_column="prompt")["2.png"] == ("a woman",)


def test_a_folder_without_faults_is_told_in_a_word(photos, capsys):
    rows = [{"file_name": f"{i}.png", "text": "a man"} for i in range(6)]
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    part = {"kind": "folder", "path": photos, "limit": 3}
    sources.open_source(part)
    assert capsys.readouterr().err == ""
    sources.open_source(part, report=True)
    assert capsys.readouterr().err == f"'{photos}': 6 photos\n"
    sources.open_source({"kind": "mixture", "sources": [part, part]}, report=True)
    assert capsys.readouterr().err == f"'{photos}': 6 photos\n"


def test_texts_beside_pictures(photos):
    (photos / "0.txt").write_text("a man\n\n a smiling man \n")
    (photos / "1.txt").touch()
    expected = {f"{i}.png": () for i in range(6)}
    expected |= {"0.png": ("a man", "a smiling man")}
    assert read(photos) == expected
    assert "5 without text or labels" in folders.Folder(photos).summary()
    # With a table: where the row has no text, or where there is no row.
    rows = [{"file_name": "0.png"}, {"file_name": "2.png", "text": "two"}]
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (photos / "2.txt").write_text("not this one")
    (photos / "3.txt").write_text("three")
    expected = {"0.png": ("a man", "a smiling man"), "2.png": ("two",)}
    assert read(photos) == expected | {"3.png": ("three",)}
    assert "3 without a row" in folders.Folder(photos).summary()
    (photos / "0.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="0.txt' is not UTF-8"):
        folders.Folder(photos)[0]


def test_a_table_in_parquet(photos):
    table = pa.table(
        {"file_name": ["1.png", "0.png"], "text": [["a", "b"], []], "Smiling": [1, 0]}
    )
    pq.write_table(table, photos / "metadata.parquet")
    assert read(photos) == {"1.png": ("a", "b"), "0.png": ()}
    assert pickle.loads(pickle.dumps(folders.Folder(photos)))[0].labels == {
        "Smiling": 1.0
    }
    (photos / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="metadata.parquet' is no readable Parquet"):
        folders.Folder(photos)


def test_pictures_missing_from_a_parquet(photos):
    images = [
        {"bytes": png(1), "path": "gone.png"},
        {"bytes": None, "path": "3.png"},
        {"bytes": None, "path": "gone.png"},
        {"bytes": None, "path": None},
        None,
    ]
    texts = ["", "b", "c", "d", "e"]
    table = pa.table({"image": images, "text": texts, "prompt": texts})
    pq.write_table(table, photos / "x.parquet")
    source = sources.Parquet(photos / "x.parquet")
    assert [r.text for r in source] == ["", "b"]
    assert source[1].image == png(3)
    assert source.summary().startswith(
        "'x': 2 photos, 3 rows without a picture, left out, 1 without text or labels; "
        "columns ignored: prompt (understood: "
    )
    pq.write_table(table.slice(3), photos / "x.parquet")
    with pytest.raises(UserError, match="holds no picture in column 'image'"):
        sources.Parquet(photos / "x.parquet")


def test_what_other_programs_leave_is_no_photo(photos):
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "6.jxl", "7.gif"):
        (photos / name).write_bytes(b"")
    for folder in ("__MACOSX", ".ipynb_checkpoints", "album.jpg", "sub/.thumbs"):
        (photos / folder).mkdir(parents=True)
        (photos / folder / "0.png").write_bytes(png())
    (photos / "broken.jpg").symlink_to(photos / "nowhere.jpg")
    os.mkfifo(photos / "pipe.png")
    found = folders.listing(photos)
    own = [f"{i}.png" for i in range(6)]
    assert found.pictures == (*own, "7.gif", "album.jpg/0.png")
    assert found.skipped_words() == "1 .jxl, 1 hidden, 2 no files"
    assert folders.listing(photos, deep=False).pictures == (*own, "7.gif")
    rows = [{"file_name": "0.png", "text": "a"}]
    (photos / "__MACOSX" / "metadata.jsonl").write_text(json.dumps(rows[0]))
    assert len(folders.Folder(photos)) == 8


def test_names_in_either_normal_form(tmp_path):
    composed, apart = (
        unicodedata.normalize(f, "J\u00fcrgen.png") for f in ("NFC", "NFD")
    )
    assert composed != apart
    for stored, written in ((composed, apart), (apart, composed)):
        folder = tmp_path / str(len(stored))
        folder.mkdir()
        (folder / stored).write_bytes(png())
        row = {"file_name": written, "text": "a man"}
        (folder / "metadata.jsonl").write_text(json.dumps(row))
        assert read(folder) == {stored: ("a man",)}
        assert "without a row" not in folders.Folder(folder).summary()


def test_a_row_of_no_picture(photos):
    rows = [{"file_name": "0.png"}, {"file_name": "9.png"}]
    (photos / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match="line 2: there is no picture '9.png'"):
        folders.Folder(photos)


def test_a_torn_celeba_table(tmp_path):
    table = tmp_path / "list_attr_celeba.txt"
    table.write_text("2\nSmiling Male\n000000.jpg  1 -1\n000001.jpg -1")
    with pytest.raises(UserError, match="of '000001.jpg' has 1 values and .* 2 names"):
        sources.CelebA(tmp_path)
    table.write_text("")
    assert len(sources.CelebA(tmp_path)) == 0


def test_files_that_a_name_means(tmp_path):
    (tmp_path / "Ju\u0308" / "sub").mkdir(parents=True)
    path = tmp_path / "Ju\u0308" / "sub" / "e\u0301.png"
    path.touch()
    for name in (
        "Ju\u0308/sub/e\u0301.png",
        "J\u00fc/sub/\u00e9.png",
        "J\u00fc\\sub\\\u00e9.png",
    ):
        assert folders.resolve(tmp_path, name) == path
    assert folders.resolve(tmp_path, str(path)) == path
    assert folders.resolve(tmp_path, "sub/none.png") == tmp_path / "sub/none.png"


MAP = np.uint8([[0, 1], [2, 17]])


def classes_png(pixels, palette=False):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if palette:
        image = Image.fromarray(pixels, "P")
        image.putpalette(np.arange(768, dtype=np.uint8).tobytes())
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("palette", [False, True])
def test_landmarks_and_maps_of_a_folder_s_table(photos, palette):
    (photos / "maps").mkdir()
    (photos / "maps" / "0.png").write_bytes(classes_png(MAP, palette))
    points = [[1.5, 2, 3, 4], None, "5, 6, 7, 8", "[1, 2, 3, 4]"]
    rows = [{"file_name": f"{i}.png", "landmarks": p} for i, p in enumerate(points)]
    rows[0] |= {"parsing": "maps/0.png", "parsing_scheme": "lapa", "person": 3}
    table = photos / "metadata.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = folders.Folder(photos)
    first, bare, third, fourth = source
    np.testing.assert_array_equal(first.landmarks, [[1.5, 2], [3, 4]])
    np.testing.assert_array_equal(third.landmarks, [[5, 6], [7, 8]])
    np.testing.assert_array_equal(fourth.landmarks, [[1, 2], [3, 4]])
    # At the size of the picture, 8 x 8.
    np.testing.assert_array_equal(first.parsing, MAP.repeat(4, 0).repeat(4, 1))
    assert first.parsing_scheme == "lapa" and first.identity == 3
    assert bare.landmarks is None and bare.parsing is None
    said = source.summary()  # a map is no picture without a row
    assert "1 without text" in said and "2 without a row" in said
    assert "ignored" not in said
    for wrong, message in (
        ({"parsing": "maps/none.png"}, "line 1: there is no map 'maps/none.png'"),
        ({"parsing": "../0.png"}, "there is no map"),
        ({"landmarks": "left"}, "column 'landmarks' holds no x0, y0"),
        ({"parsing": "maps/0.png", "parsing_scheme": "lappa"}, "'lappa'; known are"),
    ):
        table.write_text(json.dumps({"file_name": "0.png", **wrong}))
        with pytest.raises(UserError, match=message):
            folders.Folder(photos)
    (photos / "maps" / "0.png").write_bytes(png(3))  # colours
    table.write_text(json.dumps({"file_name": "0.png", "parsing": "maps/0.png"}))
    with pytest.raises(UserError, match="maps/0.png' has mode RGB; give a map"):
        folders.Folder(photos)[0]


def test_maps_of_a_parquet(tmp_path):
    held = {"bytes": classes_png(MAP), "path": None}
    (tmp_path / "1.png").write_bytes(classes_png(MAP.T))
    beside = {"bytes": None, "path": "1.png"}
    image = {"bytes": png(), "path": None}
    table = {"image": [image] * 3, "parsing": [held, beside, None], "text": ["a"] * 3}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    first, second, third = sources.open_source(
        {"kind": "parquet", "path": str(tmp_path / "a.parquet")}
    )
    large = MAP.repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(first.parsing, large)
    np.testing.assert_array_equal(second.parsing, large.T)
    assert third.parsing is None and first.parsing_scheme == "celebamask-hq"


def test_size_of_a_picture_that_lies_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 5)).save(tmp_path / "a.jpg", exif=exif)
    assert image_io.size(tmp_path / "a.jpg") == (9, 5)
    assert image_io.decode(tmp_path / "a.jpg").shape == (9, 5, 3)
    Image.new("RGB", (9, 5)).save(tmp_path / "b.jpg")
    assert image_io.size(tmp_path / "b.jpg") == (5, 9)
