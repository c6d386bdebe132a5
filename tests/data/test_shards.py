import dataclasses
import json
import pickle
import resource

import msgpack
import numpy as np
import pytest
from array_record.python import array_record_module
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, shards, sources
from gptface_jax.data.record import Record

SMALL = Record(text="x", image_ids=np.zeros((2, 2), np.uint16))


def made(folder, manifest, records, shard_size=8192) -> dict:
    """Writes a whole set; returns its manifest."""
    writer = shards.Writer(folder, manifest, len(records), shard_size)
    for i in writer.missing:
        writer.write(i, [records[j] for j in writer.records(i)])
    return writer.finish()


def names(folder) -> list[str]:
    return sorted(f.name for f in folder.iterdir())


def test_arrayrecord_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    records = [
        Record(
            image=rng.integers(0, 256, (8, 8, 3), dtype=np.uint8),
            text=f"number {i}",
            labels={"Smiling": 1.0},
            landmarks=rng.random((68, 2)).astype(np.float32),
            identity=i,
            image_ids=rng.integers(0, 9, (2, 2)).astype(np.uint16),
        )
        for i in range(5)
    ]
    manifest = made(tmp_path / "set", {"note": "x"}, records, shard_size=2)
    assert manifest["num_records"] == 5 and len(manifest["shards"]) == 3
    assert json.loads((tmp_path / "set" / "manifest.json").read_text()) == manifest
    source = sources.open_source({"kind": "arrayrecord", "path": tmp_path / "set"})
    assert len(source) == 5
    for ours, theirs in zip(records, pickle.loads(pickle.dumps(source))):
        np.testing.assert_array_equal(image_io.decode(theirs.image), ours.image)
        np.testing.assert_array_equal(theirs.landmarks, ours.landmarks)
        np.testing.assert_array_equal(theirs.image_ids, ours.image_ids)
        assert theirs.text == ours.text and theirs.labels == ours.labels
    with pytest.raises(UserError, match="already holds"):
        made(tmp_path / "set", {"note": "x"}, records, shard_size=2)


words = st.text(max_size=6)


@settings(max_examples=30)
@given(st.dictionaries(words, words), st.dictionaries(words, st.floats(0, 1)))
def test_all_that_is_known_goes_through_bytes(facts, labels):
    record = Record(
        image=b"a file",
        facts=facts,
        labels=labels,
        landmarks=np.arange(10, dtype=np.float32).reshape(5, 2),
        landmark_scheme="five",
        parsing=np.eye(3, dtype=np.uint8),
        parsing_scheme="lapa",
        boxes=np.array([[0, 0, 3, 3.5]], np.float32),
    )
    again = shards.unpack(shards.pack(record))
    for field in dataclasses.fields(Record):
        ours, theirs = getattr(record, field.name), getattr(again, field.name)
        if isinstance(ours, np.ndarray):
            assert theirs.dtype == ours.dtype
            np.testing.assert_array_equal(theirs, ours)
        else:
            assert theirs == ours, field.name


def test_names_of_arrays_are_facts_too():
    facts = {"d": "1", "s": "2", "b": "3"}
    assert shards.unpack(shards.pack(Record(facts=facts))).facts == facts
    assert shards.unpack(shards.pack(Record())) == Record()


def test_older_shards_open(tmp_path):
    """What version 0.1.0 wrote: no schemes, boxes or facts."""
    points = {"d": "<f4", "s": (68, 2), "b": np.ones((68, 2), "<f4").tobytes()}
    parsing = {"d": "|u1", "s": (2, 3), "b": bytes(range(6))}
    five = {"d": "<f4", "s": (5, 2), "b": np.zeros((5, 2), "<f4").tobytes()}
    about = {"text": "drawn", "labels": {"Smiling": 0.75}, "source": "old/1"}
    path = tmp_path / "part-00000.arrayrecord"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    writer.write(msgpack.packb(about | {"landmarks": points, "parsing": parsing}))
    writer.write(msgpack.packb({"texts": ("a", "b"), "text": "a", "landmarks": five}))
    writer.close()
    manifest = {"format": "gptface-tokens/1", "num_records": 2, "shard_size": 2}
    (tmp_path / "manifest.json").write_text(
        json.dumps(manifest | {"shards": [path.name]})
    )
    first, second = shards.Records(tmp_path)
    assert first.text == "drawn" and first.labels == {"Smiling": 0.75}
    np.testing.assert_array_equal(first.landmarks, np.ones((68, 2), np.float32))
    np.testing.assert_array_equal(first.parsing, [[0, 1, 2], [3, 4, 5]])
    assert first.landmark_scheme == "ibug68" and first.boxes is None
    assert first.parsing_scheme == "celebamask-hq" and first.facts == {}
    assert second.landmark_scheme == "five" and second.texts == ("a", "b")


def test_bytes_of_what_older_versions_know_stay():
    """They go on reading new shards of the 68 points and the 19 classes."""
    record = Record(text="a", landmarks=np.zeros((68, 2)), parsing=np.zeros((2, 2)))
    fields = msgpack.unpackb(shards.pack(record))
    assert set(fields) == {"text", "landmarks", "parsing"}


def test_foreign_files_stay_and_keep_a_set_out(tmp_path):
    theirs = tmp_path / "part-00000.arrayrecord"
    theirs.write_bytes(b"precious")
    with pytest.raises(UserError, match="holds other files"):
        shards.Writer(tmp_path, {}, 1)
    assert theirs.read_bytes() == b"precious" and names(tmp_path) == [theirs.name]
    with pytest.raises(UserError, match="shards of 0 records"):
        shards.Writer(tmp_path / "new", {}, 1, shard_size=0)
    assert not (tmp_path / "new").exists()


def test_an_unfinished_set_is_gone_on_with(tmp_path):
    manifest = {"grid": (2, 2)}  # a tuple is read again as a list
    writer = shards.Writer(tmp_path, manifest, 7, shard_size=3)
    assert writer.missing == [0, 1, 2]
    assert [writer.records(i) for i in (0, 2)] == [range(0, 3), range(6, 7)]
    writer.write(1, [SMALL] * 3)

    def breaks():
        yield SMALL
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write(0, breaks())
    (tmp_path / "notes.txt").write_text("mine")
    partial = ["manifest.json.partial", "notes.txt"]
    assert names(tmp_path) == [*partial, "part-00001.arrayrecord", "part-00001.json"]
    with pytest.raises(UserError, match="part-00000.arrayrecord' is still missing"):
        writer.finish()
    with pytest.raises(UserError, match="unfinished set; run the command"):
        shards.Records(tmp_path)
    killed = tmp_path / ".part-00000.arrayrecord.abcdef.partial"
    killed.touch()
    again = shards.Writer(tmp_path, manifest, 7, shard_size=3)
    assert not killed.exists()
    assert again.missing == [0, 2]
    again.write(2, [SMALL])
    again.write(0, [SMALL] * 3)
    again.finish()
    there = ["manifest.json", "notes.txt", *again.manifest["shards"]]
    assert names(tmp_path) == there
    assert len(shards.Records(tmp_path)) == 7
    found = shards.read_manifest(tmp_path)
    digests = [files.sha256(tmp_path / name) for name in found["shards"]]
    assert found["sha256"] == digests and len(set(digests)) == 2  # two are alike


def test_a_shard_whose_count_of_dropped_was_not_written_is_made_again(tmp_path):
    writer = shards.Writer(tmp_path, {}, 4, shard_size=2, drops=True)
    writer.write(0, [SMALL, "dark"])
    writer.write(1, [SMALL, SMALL])
    (tmp_path / "part-00000.json").unlink()  # killed before it
    again = shards.Writer(tmp_path, {}, 4, shard_size=2, drops=True)
    assert again.missing == [0]
    again.write(0, [SMALL, "dark"])
    manifest = again.finish()
    assert manifest["counts"] == [1, 2] and manifest["dropped"] == {"dark": 1}
    assert names(tmp_path) == ["manifest.json", *manifest["shards"]]


def test_an_unfinished_set_of_another_kind_is_refused(tmp_path):
    first = shards.Writer(tmp_path, {"tokenizer_digest": "abc"}, 4, shard_size=2)
    first.write(0, [SMALL] * 2)
    before = names(tmp_path)
    for manifest, size, said in (
        ({"tokenizer_digest": "xyz"}, 2, "tokenizer_digest abc, not xyz"),
        ({"tokenizer_digest": "abc", "mirrored": True}, 2, "mirrored None, not True"),
        ({}, 2, "tokenizer_digest abc, not None"),
        ({"tokenizer_digest": "abc"}, 4, "shard_size 2, not 4"),
    ):
        with pytest.raises(UserError, match=f"unfinished set with {said}"):
            shards.Writer(tmp_path, manifest, 4, size)
    assert names(tmp_path) == before
    damaged = tmp_path / first.manifest["shards"][0]
    damaged.write_bytes(damaged.read_bytes()[:-1000])
    with pytest.raises(UserError, match="no complete shard of this set; move it"):
        shards.Writer(tmp_path, {"tokenizer_digest": "abc"}, 4, 2)
    (tmp_path / shards.UNFINISHED).write_text("{}\n")
    with pytest.raises(UserError, match="unfinished set with format None"):
        shards.Writer(tmp_path, {"tokenizer_digest": "abc"}, 4, 2)


def test_a_full_disk_is_reported(tmp_path):
    ids = np.random.default_rng(0).integers(0, 2**16, (300, 300)).astype(np.uint16)
    writer = shards.Writer(tmp_path / "set", {}, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(
            UserError, match="cannot write '.*set/part-00000.*free space"
        ):
            writer.write(0, [Record(image_ids=ids)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "set").glob("*.arrayrecord"))


def test_token_cache_of_another_tokenizer_is_refused(tmp_path):
    made(tmp_path / "a", {"tokenizer_digest": "abc"}, [SMALL])
    spec = {"kind": "tokens", "path": tmp_path / "a"}
    assert len(sources.open_source(spec | {"tokenizer_digest": "abc"})) == 1
    with pytest.raises(UserError, match="made by tokenizer abc, not by xyz"):
        sources.open_source(spec | {"tokenizer_digest": "xyz"})
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(UserError, match="no finished set"):
        sources.open_source(spec)
