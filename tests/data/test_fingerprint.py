"""Data that were moved are the same, and data that were changed are not."""

import json
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import fingerprint, prepare, shards, sources


def folder(root):
    for i in range(3):
        (root / f"{i}.png").write_bytes(bytes(range(10 + i)))
    rows = [{"file_name": f"{i}.png", "text": "a man"} for i in range(2)]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "2.txt").write_text("a woman")
    return {"kind": "folder", "path": root}, root / "metadata.jsonl"


def celeba(root):
    (root / "img_align_celeba").mkdir()
    (root / "img_align_celeba" / "0.jpg").write_bytes(b"x")
    (root / "list_attr_celeba.txt").write_text("1\nSmiling\n0.jpg 1\n")
    return {"kind": "celeba", "path": root}, root / "list_attr_celeba.txt"


def parquet(root):
    table = pa.table({"image": [b"x", b"y"], "text": ["a", "b"]})
    pq.write_table(table, root / "a.parquet")
    return {"kind": "parquet", "path": root / "a.parquet"}, root / "a.parquet"


def arrayrecord(root):
    spec = {"kind": "synthetic", "count": 3, "size": 32}
    prepare.prepare(spec, root / "set", workers=1, progress=False)
    return {"kind": "arrayrecord", "path": root / "set"}, None


@pytest.mark.parametrize("make", [folder, celeba, parquet, arrayrecord])
def test_moved_and_changed(tmp_path, make, monkeypatch):
    (tmp_path / "here").mkdir()
    spec, table = make(tmp_path / "here")
    before = fingerprint.of(sources.open_source(spec))
    assert len(before) == 16
    there = tmp_path / "there"
    shutil.copytree(tmp_path / "here", there)
    moved = there / spec["path"].relative_to(tmp_path / "here")
    assert fingerprint.of(sources.open_source({**spec, "path": moved})) == before
    monkeypatch.chdir(moved.parent)
    relative = {**spec, "path": pathlib.Path(moved.name), "limit": 1}
    assert fingerprint.of(sources.open_source(relative)) == before
    mixed = {"kind": "mixture", "sources": [spec, {"kind": "synthetic", "count": 2}]}
    assert fingerprint.of(sources.open_source(mixed)) == [before, ""]
    if table is None:
        return
    if table.suffix == ".parquet":
        pq.write_table(pa.table({"image": [b"x"], "text": ["a"]}), table)
    else:
        table.write_text(table.read_text().replace("man", "boy").replace("g\n", "d\n"))
    assert fingerprint.of(sources.open_source(spec)) != before


def test_another_picture_or_caption(tmp_path):
    spec, _ = folder(tmp_path)
    found = {fingerprint.of(sources.open_source(spec))}
    for name, content in (("1.png", b"longer than before"), ("2.txt", b"a boy")):
        (tmp_path / name).write_bytes(content)
        found.add(fingerprint.of(sources.open_source(spec)))
    (tmp_path / "3.png").touch()  # without a row: it is not among the data
    found.add(fingerprint.of(sources.open_source(spec)))
    assert len(found) == 3


def test_of_many_files_the_sizes_of_some_are_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(fingerprint, "_size", lambda path: asked.append(path) or 1)
    fingerprint.many_files(tmp_path, [f"{i}.png" for i in range(100_000)])
    assert 512 < len(asked) <= 1024 and asked[0] == tmp_path / "0.png"


def test_an_unfinished_set_goes_on_with_pictures_that_were_moved(tmp_path):
    small = shards.Record(text="x", image_ids=np.zeros((2, 2), np.uint16))

    def begin(path, digits):
        manifest = {"photos": {"kind": "folder", "path": path}, "fingerprint": digits}
        manifest["order"] = "same"
        return shards.Writer(tmp_path / "set", manifest, 2, shard_size=1)

    begin("here", "abc").write(0, [small])
    assert begin("/there", "abc").missing == [1]
    manifest = json.loads((tmp_path / "set" / shards.UNFINISHED).read_text())
    assert manifest["photos"]["path"] == "/there"
    with pytest.raises(
        UserError, match="unfinished set with photos .*/there"
    ) as caught:
        begin("here", "xyz")
    assert "delete" not in str(caught.value)
    assert begin("/there", "xyz").missing == [1]  # a picture was mended


@pytest.mark.parametrize("make", [folder, celeba])
def test_order_is_that_of_names_and_tables(tmp_path, make):
    spec, table = make(tmp_path)
    before = fingerprint.order_of(sources.open_source(spec))
    picture = next(f for f in tmp_path.rglob("0.*") if f.suffix in (".png", ".jpg"))
    picture.write_bytes(b"mended, and longer than it was before")
    again = sources.open_source({**spec, "limit": 1})
    assert fingerprint.order_of(again) == before != fingerprint.of(again)
    table.write_text(table.read_text().replace("man", "boy").replace("g\n", "d\n"))
    assert fingerprint.order_of(sources.open_source(spec)) != before


@pytest.mark.parametrize("older", [False, True])
def test_an_unfinished_set_does_not_go_on_with_others_of_the_same_number(
    tmp_path, older
):
    spec, table = folder(tmp_path)
    table.unlink()

    def begin():
        source = sources.open_source(spec)
        return shards.Writer(tmp_path / "set", shards.prints_of(source), len(source), 1)

    assert begin().missing == [0, 1, 2]
    plan = tmp_path / "set" / shards.UNFINISHED
    if older:  # which told the fingerprint alone
        entries = json.loads(plan.read_text())
        del entries["order"]
        plan.write_text(json.dumps(entries))
        assert begin().missing == [0, 1, 2]
        plan.write_text(json.dumps(entries))
    (tmp_path / "2.png").unlink()
    (tmp_path / "00.png").write_bytes(b"one before the others")
    with pytest.raises(UserError, match="other pictures: .* added, removed or renamed"):
        begin()
