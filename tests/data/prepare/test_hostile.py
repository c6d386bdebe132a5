"""What comes off the web is a stranger's: nothing crashes, escapes or is miscounted."""

import os
import tarfile

import hostile_files as hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data.prepare import metadata, readers, sample, tars, texts
from gptface_jax.data.prepare import settings as prepare_settings
from gptface_jax.data.prepare.sample import Rejected, Sample
from gptface_jax.data.prepare.stages import Stages
from gptface_jax.data.record import Record
from gptface_jax.data.sources import open_source

REASONS = {v for k, v in vars(sample).items() if k.isupper()}
TEXT = b"a woman with brown hair"


def config_of(*sources, **more):
    values = {
        "sources": sources,
        "unit_size": 16,
        "crop": {"mode": "whole", "size": 32, "enlarged": 9.0},
        "filters": {"min_side": 8, "near_duplicates": -1},
        "split": {"validation": 0.0},
        **more,
    }
    return prepare_settings.read(values)


@pytest.fixture(scope="module")
def pictures():
    return hostile.drawn(4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, pictures):
    """A folder of hostile sources, and how many samples each of them has."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "tars").mkdir()
    damaged = list(hostile.damaged_pictures(pictures[:3]))
    hostile.tar_of(
        root / "tars" / "00000.tar",
        [(f"{i:06d}", {end: data, "txt": TEXT}) for i, (end, data) in
         enumerate(damaged)],
    )  # fmt: skip
    good = [hostile.encoded(picture) for picture in pictures]
    odd = [
        {"jpg": good[0], "txt": b"a man " * 2_000_000},
        {"jpg": good[0], "txt": b"\xff\xfe\xfa no text at all"},
        {"jpg": good[0], "json": b"{"},
        {"jpg": good[0], "json": b"[" * 100_000},
        {"jpg": good[0], "json": b"[1, 2]"},
        {"jpg": good[0], "json": hostile.about(url=[1], caption="a man")},
        {"jpg": good[0], "json": hostile.about(url="u", caption={"a": 1})},
        {"jpg": good[0], "json": hostile.about(caption="a man", faces=[[1, 2], 3])},
        {"jpg": good[0], "json": b'{"caption": "a man", "n": ' + b"9" * 5000 + b"}"},
        {"txt": TEXT},
        {"json": hostile.about(url="http://a.org/b.jpg")},
        {"jpg": good[0], "png": good[0], "txt": TEXT},
    ]
    with tarfile.open(root / "tars" / "00001.tar", "w") as tar:
        for i, parts in enumerate(odd):
            for ending, data in parts.items():
                hostile.add(tar, f"odd{i:03d}.{ending}", data)
        for name in ("/tmp/gptface_escaped.jpg", "../../escaped.jpg", "a/../../b.jpg"):
            hostile.add(tar, name, good[0])
        hostile.add(tar, "link.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        hostile.add(tar, "hard.jpg", type=tarfile.LNKTYPE, linkname="odd000.jpg")
        hostile.add(tar, "device.jpg", type=tarfile.CHRTYPE, devmajor=1, devminor=3)
        hostile.add(tar, "pipe.jpg", type=tarfile.FIFOTYPE)
        hostile.add(tar, "folder.jpg", type=tarfile.DIRTYPE)
        hostile.add(tar, "__MACOSX/a.jpg", good[0])  # no folder of its own: counted
        hostile.add(tar, ".hidden.jpg", good[0])
        for key in ("one", "two", "one"):
            hostile.add(tar, f"{key}.jpg", good[1])
            hostile.add(tar, f"{key}.txt", TEXT)
        for i, data in enumerate(hostile.polyglots(pictures[2])):
            hostile.add(tar, f"poly{i}.jpg", data)
            hostile.add(tar, f"poly{i}.txt", TEXT)
    whole = (root / "tars" / "00001.tar").read_bytes()
    (root / "tars" / "00002.tar").write_bytes(b"")
    (root / "tars" / "00003.tar").write_bytes(b"no tar at all" * 99)
    simple = hostile.tar_of(
        root / "tars" / "00004.tar",
        [(f"{i}", {"jpg": good[i], "txt": TEXT}) for i in range(4)],
    )
    with tarfile.open(simple) as tar:
        third = tar.getmembers()[2].offset
    (root / "tars" / "00005.tar").write_bytes(simple.read_bytes()[: third + 600])
    hurt = bytearray(simple.read_bytes())
    hurt[third : third + 100] = b"\xff" * 100  # its header
    (root / "tars" / "00006.tar").write_bytes(bytes(hurt))
    (root / "tars" / "folder.tar").mkdir()
    os.symlink("00000.tar.gone", root / "tars" / "00007.tar")
    assert len(whole) > 10_000_000  # the large text is really there
    _write_tables(root / "tables", good)
    _write_folder(root / "folder", good)
    return root, len(damaged)


def _write_tables(root, good):
    root.mkdir()

    def write(name, **columns):
        pq.write_table(pa.table(columns), root / f"{name}.parquet")

    (root / "beside.jpg").write_bytes(good[3])
    paths = ["beside.jpg", "../tars/00000.tar", "/etc/passwd", "gone.jpg", "a\0b", None]
    write("paths", image=[{"bytes": None, "path": p} for p in paths], text=["x y"] * 6)
    write("numbers", image=[1, 2, 3], text=["x y"] * 3)
    write("words", jpg=["no", "bytes"], caption=["x y"] * 2)
    write("none", text=["x y"] * 2)
    write("types", jpg=[good[0]] * 2, caption=pa.array([{"a": 1}, {"a": 2}]))
    write("urls", jpg=[good[0]] * 2, caption=["x y"] * 2, url=[1.5, 2.5])
    write("boxes", jpg=[good[0]] * 2, caption=["x y"] * 2, boxes=[["a"], ["b"]])
    bad = pa.array([b"good text", b"\xff\xfe"], pa.binary()).view(pa.string())
    write("utf8", jpg=[good[3], good[2]], caption=bad)
    write("empty", jpg=pa.array([], pa.binary()))
    (root / "garbage.parquet").write_bytes(b"PAR1" + b"\0" * 200 + b"PAR1")
    whole = (root / "urls.parquet").read_bytes()
    hurt = bytearray(whole)
    hurt[4:200] = b"\xff" * 196
    (root / "hurt.parquet").write_bytes(bytes(hurt))
    (root / "cut.parquet").write_bytes(whole[: len(whole) // 2])


def _write_folder(root, good):
    root.mkdir()
    for i, data in enumerate([good[0], b"", good[1][:100], b"text", good[2]]):
        (root / f"{i}.jpg").write_bytes(data)
        (root / f"{i}.txt").write_bytes(TEXT)
    os.symlink("/etc/passwd", root / "5.jpg")
    os.symlink("6.jpg", root / "6.jpg")  # of itself
    os.mkfifo(root / "7.jpg")
    (root / "5.txt").write_bytes(TEXT)


def _everything(folder):
    return sorted(str(p) for p in folder.rglob("*"))


def test_a_hostile_corpus_is_counted_and_stays_inside(corpus, tmp_path, capfd):
    root, damaged = corpus
    assert damaged >= 300
    before = _everything(root)
    config = tmp_path / "config.py"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(arg):\n"
        "    return ConfigDict({'sources': ("
        f"{{'kind': 'webdataset', 'path': '{root}/tars'}},"
        f"{{'kind': 'parquet', 'path': '{root}/tables'}},"
        f"{{'kind': 'folder', 'path': '{root}/folder'}}),"
        "'crop': {'mode': 'whole', 'size': 32},"
        "'texts': {'required': True, 'max_bytes': 65536},"
        "'decoding': {'max_pixels': 10**6},"
        "'filters': {'min_side': 8, 'near_duplicates': -1,"
        " 'exact_duplicates': False},"
        "'split': {'validation': 0.0}})\n"
    )
    out = tmp_path / "out"
    command = f"prepare --quiet --workers 1 --config {config} --out {out}"
    assert main(command.split()) == 0
    assert _everything(root) == before
    # Python itself keeps the config's bytecode beside it.
    left = {p.name for p in tmp_path.iterdir()} - {"__pycache__"}
    assert left == {"config.py", "out"}
    assert not os.path.exists("/tmp/gptface_escaped.jpg")

    from gptface_jax.data.prepare import finish

    manifest = finish.read(out)
    counts, rejected = manifest["counts"], manifest["rejected"]
    assert counts["read"] == counts["records"] + counts["rejected"]
    assert set(rejected) <= REASONS
    units = {u["name"]: u for u in manifest["units"]}
    first = units["webdataset/00000.tar"]
    assert first["read"] == damaged
    # A flipped bit may leave a picture that can be shown.
    assert first["rejected"].get(sample.DAMAGED, 0) > 30
    assert first["rejected"][sample.NOT_A_PICTURE] > 80
    assert first["rejected"][sample.EMPTY] == 15
    assert first["rejected"][sample.TOO_MANY_PIXELS] >= 3
    second = units["webdataset/00001.tar"]["rejected"]
    assert second == {
        sample.LONG_TEXT: 1, sample.NOT_UTF8: 1, sample.NO_METADATA: 4,
        sample.WRONG_TYPE: 3, sample.NO_PICTURE: 2, sample.DUPLICATE_KEY: 2,
        sample.UNSAFE_NAME: 3, sample.NO_FILE: 4, sample.NO_TEXT: 1,
    }  # fmt: skip
    assert units["webdataset/00001.tar"]["records"] == 2 + 3
    for name in ("00002", "00003"):
        assert units[f"webdataset/{name}.tar"]["rejected"] == {sample.UNREADABLE: 1}
    assert units["webdataset/00004.tar"]["records"] == 4
    early = [units[f"webdataset/0000{i}.tar"]["rejected"] for i in (5, 6)]
    assert early == [{sample.ENDS_EARLY: 1}] * 2
    tables = {n.split("/")[1].split(".")[0]: u for n, u in units.items() if "parq" in n}
    assert tables["paths"]["records"] == 1
    assert tables["paths"]["rejected"] == {
        sample.UNSAFE_NAME: 2, sample.NO_PICTURE: 2, sample.UNREADABLE: 1
    }  # fmt: skip
    assert tables["utf8"]["rejected"] == {sample.NOT_UTF8: 1}
    for name, count in {
        "numbers": 3,
        "words": 2,
        "types": 2,
        "urls": 2,
        "boxes": 2,
    }.items():
        assert tables[name]["rejected"] == {sample.WRONG_TYPE: count}, name
    assert tables["none"]["rejected"] == {sample.NO_PICTURE: 2}
    for name in ("garbage", "cut", "hurt", "empty"):
        assert set(tables[name]["rejected"]) == {sample.UNREADABLE}, name
    assert units["folder[0:6]"]["records"] == 2
    # What is kept are pictures of our own, without what else the files held.
    records = open_source({"kind": "arrayrecord", "path": out / "train"})
    for i in range(len(records)):
        image = records[i].image
        assert image[:2] == b"\xff\xd8" and b"php" not in image and b"PK\5" not in image


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=3000), cut=st.integers(0, 6000), at=st.integers(0, 6000))
def test_any_bytes_in_a_tar(tmp_path_factory, pictures, data, cut, at):
    """A tar whose bytes were replaced and cut off anywhere."""
    path = tmp_path_factory.mktemp("any") / "a.tar"
    hostile.tar_of(path, [("a", {"png": hostile.encoded(pictures[0][:9, :9], "png"),
                                 "json": hostile.about(caption="a man", url="u")}),
                          ("b", {"txt": b"a man"})])  # fmt: skip
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(bytes(whole[: max(cut, at)]))
    config = config_of({"kind": "webdataset", "path": str(path)})
    stages = Stages(config, texts.texts(config.texts))
    for outcome in stages(tars.samples(path, config)):
        assert isinstance(outcome, tuple) or outcome.reason in REASONS


def test_a_header_as_large_as_a_file_is_not_read(tmp_path, pictures, monkeypatch):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        hostile.add(tar, "a.jpg", hostile.encoded(pictures[0]))
        hostile.add(tar, "a.txt", TEXT)
        hostile.add(tar, "x", b"9" * (2 << 20), type=tarfile.XHDTYPE)
        hostile.add(tar, "b.jpg", hostile.encoded(pictures[1]))
    config = config_of({"kind": "webdataset", "path": str(path)})
    found = list(tars.samples(path, config))
    assert [getattr(item, "reason", None) for item in found] == [sample.ENDS_EARLY]


_NUMBERS = st.floats(width=32) | st.integers(-(10**40), 10**40) | st.floats(0, 50)


@settings(max_examples=150, deadline=None)
@given(faces=st.lists(st.tuples(st.lists(_NUMBERS, min_size=4, max_size=4),
                                st.lists(_NUMBERS, min_size=10, max_size=10),
                                st.floats()), max_size=3),
       mode=st.sampled_from(["context", "upright"]))  # fmt: skip
def test_any_faces_that_metadata_may_tell(pictures, faces, mode):
    """No number makes a crop fail, or as large as memory."""
    from gptface_jax.experiments import prepare

    crop = {"mode": mode, "size": 32, "enlarged": 9.0}
    config = config_of({"kind": "synthetic"}, crop=crop)
    none = sample.Faces(*(np.zeros((0, *s), np.float32) for s in ((4,), (5, 2), ())))
    stages = Stages(config, texts.texts(config.texts),
                    lambda images: [none] * len(images), prepare.upright)  # fmt: skip
    try:
        told = metadata.faces_of({"faces": faces})
    except UserError:
        return
    item = Sample("a", Record(image=pictures[0], text="a man"), faces=told)
    (outcome,) = stages([item])
    assert isinstance(outcome, tuple) or outcome.reason in REASONS


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=200), ending=st.sampled_from(sorted(hostile.FORMATS)),
       at=st.floats(0, 1))  # fmt: skip
def test_any_bytes_in_a_picture(pictures, data, ending, at):
    good = bytearray(hostile.encoded(pictures[0], ending))
    place = int(at * len(good))
    good[place : place + len(data)] = data
    config = config_of({"kind": "synthetic"})
    stages = Stages(config, texts.texts(config.texts))
    item = Sample("a", Record(image=bytes(good), text="a man"))
    (outcome,) = stages([item])
    assert isinstance(outcome, tuple) or outcome.reason in REASONS


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=400))
def test_any_text(text):
    cleaned = texts.clean(text)
    assert cleaned == cleaned.strip() and "\n" not in cleaned
    cleaned.encode("utf-8")  # no lone surrogate is left


def test_metadata_of_another_shard_and_none_at_all(tmp_path, pictures):
    """Rows of other keys say nothing; without the table nobody knows who opted out."""
    good = {"jpg": hostile.encoded(pictures[0]), "txt": TEXT}
    for name in ("00000", "00001"):
        hostile.tar_of(tmp_path / f"{name}.tar", [(f"{name}0", good)])
    (tmp_path / "meta").mkdir()
    table = pa.table(
        {"key": ["000000", "999"], "url": ["http://a.org", "http://b.org"]}
    )
    pq.write_table(table, tmp_path / "meta" / "00000.parquet")
    spec = {"kind": "webdataset", "path": str(tmp_path),
            "metadata": str(tmp_path / "meta")}  # fmt: skip
    config = config_of(spec)
    units, _ = readers.units(config)
    found = [list(readers.Reader(config)(unit)) for unit in units]
    first, alone = found[0]
    assert first.url == "http://a.org"
    assert (alone.key, alone.reason) == ("999", sample.ROW_ALONE)
    assert [type(item) for item in found[1]] == [Rejected]
    assert found[1][0].reason == sample.NO_METADATA


@pytest.mark.shared
def test_damaged_photographs(shared, tmp_path):
    """The same with real JPEG files, every one hurt in its own way."""
    rng = np.random.default_rng(1)
    table = pq.read_table(shared / "data" / "masks" / "test-00000-of-00001.parquet")
    samples = []
    for i, row in enumerate(table["image"].to_pylist()[:80]):
        data = bytearray(row["bytes"])
        if i % 4 == 0:
            data = data[: int(rng.integers(1, len(data)))]
        elif i % 4 == 1:
            data[int(rng.integers(len(data)))] ^= 0xFF
        elif i % 4 == 2:
            data = bytearray(rng.bytes(50)) + data
        samples.append((f"{i:04d}", {"jpg": bytes(data), "txt": TEXT}))
    path = hostile.tar_of(tmp_path / "a.tar", samples)
    config = config_of({"kind": "webdataset", "path": str(path)})
    outcomes = list(
        Stages(config, texts.texts(config.texts))(tars.samples(path, config))
    )
    kept = [isinstance(o, tuple) for o in outcomes]
    assert len(outcomes) == 80 and all(kept[3::4]) and not any(kept[2::4])
    assert not any(kept[0::4])
