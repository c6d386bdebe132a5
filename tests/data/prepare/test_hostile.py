"""What comes off the web is a stranger's: nothing crashes, escapes or is miscounted."""

import json
import os
import tarfile
import time

import hostile_files as hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data import shard_format
from gptface_jax.data.prepare import (
    beam,
    columns,
    metadata,
    opt_out,
    readers,
    sample,
    staging,
    tars,
    texts,
)
from gptface_jax.data.prepare import settings as prepare_settings
from gptface_jax.data.prepare import stages as all_stages
from gptface_jax.data.prepare.sample import Rejected, Sample
from gptface_jax.data.prepare.stages import Stages
from gptface_jax.data.record import Record
from gptface_jax.data.sources import open_source

REASONS = {v for k, v in vars(sample).items() if k.isupper()}
TEXT = b"a woman with brown hair"
BIG = 10**400  # more than a float holds


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


def outcomes_of(config, find=None):
    """What becomes of all samples of a config, as it is written."""
    stages = Stages(config, texts.texts(config.texts), find)
    reader = readers.Reader(config)
    found = []
    for unit in readers.units(config)[0]:
        for outcome in stages(reader(unit)):
            found.append(outcome)
            if isinstance(outcome, Rejected):
                named = outcome.reason.startswith(("error: ", "score: "))
                assert named or outcome.reason in REASONS
                shard_format.pack(staging.thumbnail(outcome))
            else:
                for kept in outcome:
                    shard_format.pack(kept.record)
    return found


def reasons_of(config, find=None):
    """Why each sample of a config is rejected; "" for one that is kept."""
    return [getattr(outcome, "reason", "") for outcome in outcomes_of(config, find)]


@pytest.fixture(scope="module")
def pictures():
    return hostile.drawn(4)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, pictures):
    """A folder of hostile sources, and how many samples each of them has."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "tars").mkdir()
    damaged = list(hostile.damaged_pictures(pictures))
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
    os.mkfifo(root / "tars" / "00008.tar")
    with tarfile.open(root / "tars" / "00009.tar.gz", "w:gz") as tar:
        hostile.add(tar, "a.jpg", good[0])
    # One that holds tars is a folder like any other.
    (root / "tars" / "more.tar").mkdir()
    (root / "tars" / "more.tar" / "0.tar").write_bytes(simple.read_bytes())
    assert len(whole) > 10_000_000  # the large text is really there
    _write_tables(root / "tables", good)
    _write_folder(root / "folder", good)
    assert len({data for _, data in damaged}) >= 300
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
    os.mkfifo(root / "pipe.parquet")
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
    (root / "8.jxl").write_bytes(good[0])
    (root / ".9.jpg").write_bytes(good[0])  # hidden
    (root / "5.txt").write_bytes(TEXT)


def _everything(folder):
    return sorted(str(p) for p in folder.rglob("*"))


def test_a_hostile_corpus_is_counted_and_stays_inside(corpus, tmp_path, capfd):
    root, damaged = corpus
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
    assert first["read"] == damaged == 396
    # Of 120 pictures with one bit flipped most can still be shown.
    assert first["records"] == 86
    assert first["rejected"] == {
        sample.NOT_A_PICTURE: 167, sample.DAMAGED: 119, sample.EMPTY: 20,
        sample.TOO_MANY_PIXELS: 4,
    }  # fmt: skip
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
    lost = {f"webdataset/{name}.tar": sample.NO_FILE
            for name in ("folder", "00007", "00008")}  # fmt: skip
    lost["webdataset/00009.tar.gz"] = sample.COMPRESSED
    lost["parquet/pipe.parquet"] = sample.NO_FILE
    for name, reason in lost.items():
        assert units[name]["rejected"] == {reason: 1}, name
    assert "webdataset/more.tar" not in units
    assert units["webdataset/more.tar/0.tar"]["records"] == 4
    assert units["folder[0:9]"]["records"] == 2
    assert units["folder[0:9]"]["rejected"] == {
        sample.EMPTY: 1, sample.NOT_A_PICTURE: 3, sample.NO_FILE: 2,
        sample.UNSAFE_NAME: 1,
    }  # fmt: skip
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


def test_what_a_folder_passes_over_is_counted(tmp_path, pictures):
    for name in ("a/0", "a/1", "a/2", "b/0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jpg").write_bytes(hostile.encoded(pictures[0]))
    rows = "".join(f"a/{i}.jpg,a man\n" for i in range(2))
    (tmp_path / "metadata.csv").write_text(f"file_name,text\n{rows}")
    os.symlink("gone.jpg", tmp_path / "a" / "3.jpg")
    os.symlink("gone.jpg", tmp_path / "b" / "3.jpg")
    folder = {"kind": "folder", "path": str(tmp_path)}
    lost = [sample.NO_FILE, sample.NO_ROW]
    found = reasons_of(config_of({**folder, "split": "a"}, unit_size=3))
    assert found == ["", "", *lost]
    assert reasons_of(config_of(folder)) == ["", "", lost[0], lost[0], lost[1], lost[1]]
    # Of a part of a source the rest is not asked for.
    assert reasons_of(config_of({**folder, "limit": 1})) == [""]


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


@pytest.mark.parametrize(
    "column, cell",
    [
        ("boxes", [[BIG, 1, 2, 3]]),
        ("faces", [[[0, 0, 9, 9], [[BIG, 0]] * 5, 1]]),
        ("Smiling", BIG),
        ("Age", -BIG),
        ("SAMPLE_ID", BIG),
    ],
)
def test_an_integer_of_400_digits_is_no_number(tmp_path, pictures, column, cell):
    good = {"jpg": hostile.encoded(pictures[0]), "txt": TEXT}
    odd = {**good, "json": json.dumps({column: cell}).encode()}
    hostile.tar_of(tmp_path / "a.tar", [("0", odd), ("1", good)])
    config = config_of({"kind": "webdataset", "path": str(tmp_path)})
    wanted = "" if column == "SAMPLE_ID" else sample.WRONG_TYPE
    assert reasons_of(config) == [wanted, ""]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_chain_of_headers(tmp_path, pictures, kind):
    """`tarfile` calls itself for each."""
    content = {tarfile.GNUTYPE_LONGNAME: b"y\0", tarfile.XHDTYPE: b"9 path=y\n"}
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        hostile.add(tar, "a.jpg", hostile.encoded(pictures[0]))
        hostile.add(tar, "a.txt", TEXT)
        for _ in range(3000):
            hostile.add(tar, "x", content[kind], type=kind)
        hostile.add(tar, "b.jpg", hostile.encoded(pictures[1]))
    config = config_of({"kind": "webdataset", "path": str(tmp_path)})
    assert reasons_of(config) == [sample.ENDS_EARLY]


def odd_cells():
    """Columns whose first cell no value of Python is; the second one is."""

    def numbers(first, kind):
        return pa.array([first, 1], pa.int64()).cast(kind)

    days = pa.array([2**31 - 1, 1], pa.int32()).view(pa.date32())
    return {
        "date": (days, ["error: OverflowError", ""]),
        "duration": (numbers(2**62, pa.duration("s")), ["error: OverflowError", ""]),
        "zone": (
            numbers(5, pa.timestamp("s", tz="Nowhere/X")),
            ["error: UnknownTimeZoneError"] * 2,
        ),
    }


@pytest.mark.parametrize("column", odd_cells())
def test_cells_that_are_no_values_of_python(tmp_path, pictures, column):
    cells, wanted = odd_cells()[column]
    table = {"jpg": [hostile.encoded(p) for p in pictures[:2]], "text": ["a man"] * 2}
    pq.write_table(pa.table({**table, "odd": cells}), tmp_path / "a.parquet")
    config = config_of({"kind": "parquet", "path": str(tmp_path)})
    assert reasons_of(config) == wanted


def test_no_byte_of_a_footer_ends_the_process(tmp_path):
    # pyarrow aborts where the metadata of a column are asked for and damaged.
    path, table = tmp_path / "a.parquet", {"jpg": [b"a"], "text": ["a man"]}
    pq.write_table(pa.table(table), path)
    whole, config = path.read_bytes(), config_of({"kind": "synthetic"})
    footer = int.from_bytes(whole[-8:-4], "little")
    for place in range(len(whole) - 8 - footer, len(whole) - 8):
        damaged = bytearray(whole)
        damaged[place] = (damaged[place] + 1) % 256
        path.write_bytes(damaged)
        groups = range(len(columns.row_groups(path)))
        assert len(list(columns.samples(path, groups, config))) >= 1
        columns.keys(path, groups, config)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_small_file_of_large_cells_is_not_unpacked(tmp_path, dictionary):
    cells = pa.array([bytes(2_000_000)] * 8, pa.binary())
    table = pa.table({"jpg": cells, "text": ["a man"] * 8, "key": [*"01234567"]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=dictionary)
    assert path.stat().st_size < 20_000
    source = {"kind": "parquet", "path": str(tmp_path)}
    config = config_of(source, decoding={"max_bytes": 1_000_000})
    before = pa.default_memory_pool().max_memory()
    assert reasons_of(config) == [sample.TOO_MANY_BYTES] * 8
    assert columns.keys(path, range(1), config) == set()
    assert pa.default_memory_pool().max_memory() == before


def test_more_rows_than_bytes_are_not_counted_for_days(tmp_path):
    table = pa.table({"jpg": pa.nulls(10_000_000, pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10_000_000)
    config = config_of({"kind": "parquet", "path": str(tmp_path)})
    assert reasons_of(config) == [sample.UNREADABLE]


def test_rows_of_a_parquet_are_read_one_by_one(tmp_path):
    """A picture that lies there once, in a dictionary, is in memory once."""
    cell = np.random.default_rng(0).bytes(1_000_000)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"jpg": pa.array([cell] * 64, pa.binary())}), path)
    config = config_of({"kind": "parquet", "path": str(path)})
    before, most = pa.total_allocated_bytes(), 0
    for _ in readers.Reader(config)(readers.units(config)[0][0]):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 1_000_000 <= most < 8_000_000


_NUMBERS = st.floats(width=32) | st.integers(-BIG, BIG) | st.floats(0, 50)


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


_COLUMNS = st.sampled_from(
    "url caption text boxes faces points face_scores Smiling Age expression punsafe "
    "NSFW key SAMPLE_ID jpg landmarks landmark_scheme identity person hair".split()
)
_CELLS = st.recursive(
    st.none() | st.booleans() | st.text(max_size=9) | st.floats()
    | st.integers(-BIG, BIG),
    lambda cell: st.lists(cell, max_size=5)
    | st.dictionaries(st.text(max_size=5), cell, max_size=2),
    max_leaves=12,
)  # fmt: skip


def everything(source):
    """A config that looks at all that a row may tell."""
    return config_of(
        source,
        crop={"mode": "context", "size": 32, "enlarged": 9.0},
        filters={"min_side": 8, "max_scores": {"punsafe": 0.5},
                 "allowed": {"NSFW": ("UNLIKELY",)}},
        texts={"required": False},
    )  # fmt: skip


def no_faces(images):
    none = sample.Faces(*(np.zeros((0, *s), np.float32) for s in ((4,), (5, 2), ())))
    return [none] * len(images)


@settings(max_examples=150, deadline=None)
@given(row=st.dictionaries(_COLUMNS, _CELLS, max_size=5), odd=st.binary(max_size=60))
def test_any_json_in_a_tar(tmp_path_factory, pictures, row, odd):
    path = tmp_path_factory.mktemp("any") / "a.tar"
    good = {"png": hostile.encoded(pictures[0][:9, :9], "png"), "txt": b"a man"}
    hostile.tar_of(path, [("a", {**good, "json": json.dumps(row).encode()}),
                          ("b", {**good, "json": odd}), ("c", good)])  # fmt: skip
    source = {"kind": "webdataset", "path": str(path), "facts": ["hair"]}
    config = everything(source)
    outcomes = outcomes_of(config, no_faces)
    assert len(outcomes) == 3
    assert outcomes[2].reason == sample.NO_FACE  # nothing before it is in its way


_KINDS = st.one_of(
    st.sampled_from([pa.int64(), pa.uint64(), pa.float64(), pa.time64("ns"),
                     pa.date64()]),
    st.builds(pa.duration, st.sampled_from(["s", "ns"])),
    st.builds(pa.timestamp, st.sampled_from(["ms", "us", "ns"]),
              st.sampled_from([None, "UTC", "+99:99", "Nowhere/X", "Europe/Berlin"])),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(name=_COLUMNS, kind=_KINDS, nested=st.booleans(), strings=st.binary(max_size=9),
       cells=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=2),
       data=st.binary(max_size=90), at=st.floats(0, 1))  # fmt: skip
def test_any_cells_and_bytes_in_a_parquet(
    tmp_path_factory, pictures, name, kind, nested, strings, cells, data, at
):
    folder = tmp_path_factory.mktemp("any")
    odd = pa.array(cells, pa.int64()).view(kind)
    if nested:
        odd = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), odd)
    texts = pa.array([strings, b"a man"], pa.binary()).view(pa.string())
    good = hostile.encoded(pictures[0][:9, :9], "png")
    table = {"image": [good, good], "caption": texts, name: odd}
    pq.write_table(pa.table(table), folder / "a.parquet")
    config = everything({"kind": "parquet", "path": str(folder), "facts": ["hair"]})
    assert len(outcomes_of(config, no_faces)) == 2
    whole = bytearray((folder / "a.parquet").read_bytes())
    place = int(at * len(whole))
    whole[place : place + len(data)] = data
    (folder / "a.parquet").write_bytes(whole)
    outcomes_of(config, no_faces)


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


def test_files_of_one_name_in_several_folders(tmp_path, pictures):
    """LAION-FACE's own download writes split_0/00000.tar, split_1/00000.tar, ..."""
    for i in range(2):
        folder = tmp_path / "tars" / f"split_{i}"
        folder.mkdir(parents=True)
        good = {"jpg": hostile.encoded(pictures[i]), "txt": TEXT}
        hostile.tar_of(folder / "00000.tar", [("000", good)])
        meta = tmp_path / "meta" / f"split_{i}"
        meta.mkdir(parents=True)
        rows = pa.table({"key": ["000"], "url": [f"http://h{i}.org"]})
        pq.write_table(rows, meta / "00000.parquet")
    spec = {"kind": "webdataset", "path": str(tmp_path / "tars"), "name": "faces",
            "metadata": str(tmp_path / "meta")}  # fmt: skip
    config = config_of(spec)
    units, _ = readers.units(config)
    items = [item for unit in units for item in readers.Reader(config)(unit)]
    assert [(item.record.source, item.url) for item in items] == [
        ("faces/split_0/00000/000", "http://h0.org"),
        ("faces/split_1/00000/000", "http://h1.org"),
    ]
    assert [beam._name(config, unit) for unit in units] == [
        "faces/split_0/00000.tar",
        "faces/split_1/00000.tar",
    ]


def test_a_picture_without_a_row_of_its_own_is_rejected(tmp_path, pictures):
    """Nobody knows whether it was opted out."""
    good = {"jpg": hostile.encoded(pictures[0]), "txt": TEXT}
    samples = [(key, good) for key in ("one", "none", "twice")]
    samples += [("told", {**good, "json": hostile.about(key="other")}),
                ("same", {**good, "json": hostile.about(key="same")})]  # fmt: skip
    hostile.tar_of(tmp_path / "a.tar", samples)
    (tmp_path / "meta").mkdir()
    keys = ["one", "twice", "twice", "told", "same"]
    rows = pa.table({"key": keys, "url": [f"http://{i}.org" for i in range(5)]})
    pq.write_table(rows, tmp_path / "meta" / "a.parquet")
    config = config_of({"kind": "webdataset", "path": str(tmp_path),
                        "metadata": str(tmp_path / "meta")})  # fmt: skip
    wanted = ["", sample.NO_ROW, sample.NO_ROW, sample.OTHER_KEY, ""]
    assert reasons_of(config) == wanted


def test_a_key_that_is_twice_in_a_parquet(tmp_path, pictures):
    """Also in several units; the second one would lose its row."""
    files = [hostile.encoded(picture) for picture in pictures]
    table = {"jpg": files, "text": ["a man"] * 4, "key": ["a", "a", "b", "a"]}
    pq.write_table(pa.table(table), tmp_path / "x.parquet", row_group_size=2)
    (tmp_path / "meta").mkdir()
    rows = pa.table({"key": ["a", "b", "c"], "url": ["u", "v", "w"]})
    pq.write_table(rows, tmp_path / "meta" / "x.parquet")
    config = config_of({"kind": "parquet", "path": str(tmp_path / "x.parquet"),
                        "metadata": str(tmp_path / "meta")}, unit_size=2)  # fmt: skip
    assert len(readers.units(config)[0]) == 2
    twice = sample.DUPLICATE_KEY
    assert reasons_of(config) == ["", twice, "", twice, sample.ROW_ALONE]


ASKED = [
    ("opt_out", "list.txt"),
    ("filters", {"max_scores": {"punsafe": 0.5}}),
    ("filters", {"allowed": {"NSFW": ["UNLIKELY"]}}),
]


@pytest.mark.parametrize("key, value", ASKED)
def test_what_a_source_cannot_tell_is_not_asked_for(tmp_path, pictures, key, value):
    (tmp_path / "a.jpg").write_bytes(hostile.encoded(pictures[0]))
    row = hostile.about(file_name="a.jpg", address="http://bad.org", unsafe=0.9)
    (tmp_path / "metadata.jsonl").write_bytes(row)
    folder = {"kind": "folder", "path": str(tmp_path), "limit": 1}
    with pytest.raises(UserError, match=f"{key}.* kind 'folder' has no column .*apart"):
        readers.units(config_of(folder, **{key: value}))
    drawn = {"kind": "synthetic", "count": 2}
    assert len(readers.units(config_of(drawn, **{key: value}))[0]) == 1


@pytest.mark.parametrize("limit", [None, 2])
def test_a_folder_s_table_tells_addresses_scores_and_faces(tmp_path, pictures, limit):
    rows = []
    for i, unsafe in enumerate([0.1, 0.9]):
        (tmp_path / f"{i}.jpg").write_bytes(hostile.encoded(pictures[i]))
        row = {"file_name": f"{i}.jpg", "url": f"http://a.org/{i}", "punsafe": unsafe}
        rows.append(hostile.about(**row, text="a man", boxes=[[1, 2, 30, 40]]))
    (tmp_path / "metadata.jsonl").write_bytes(b"\n".join(rows))
    folder = {"kind": "folder", "path": str(tmp_path), "limit": limit}
    config = config_of(folder, filters={"min_side": 8, "max_scores": {"punsafe": 0.5}})
    (unit,), _ = readers.units(config)
    found = list(readers.Reader(config)(unit))
    assert [item.url for item in found] == ["http://a.org/0", "http://a.org/1"]
    np.testing.assert_array_equal(found[0].faces.boxes, [[1, 2, 30, 40]])
    assert not found[0].record.facts  # nor does the score become a fact
    assert reasons_of(config) == ["", "score: punsafe too high"]


@pytest.mark.parametrize("kind", ["metadata", "detections"])
def test_other_metadata_are_another_set(tmp_path, pictures, kind):
    good = {"jpg": hostile.encoded(pictures[0]), "txt": TEXT}
    hostile.tar_of(tmp_path / "a.tar", [("0", good)])
    (tmp_path / kind).mkdir()

    def told(address):
        if kind == "metadata":
            rows = pa.table({"key": ["0"], "url": [address]})
            pq.write_table(rows, tmp_path / kind / "a.parquet")
        else:
            for name in ("ids", "starts", "faces"):
                np.save(tmp_path / kind / f"{name}.npy", np.arange(len(address)))
        spec = {"kind": "webdataset", "path": str(tmp_path / "a.tar")}
        return readers.units(config_of({**spec, kind: str(tmp_path / kind)}))[1]

    assert told("http://a.org") == told("http://a.org") != told("http://bad.org")


def test_with_opt_outs_a_picture_of_no_address_is_rejected(tmp_path, pictures):
    """Nobody knows whether it was opted out, and nothing of it is kept."""
    data = hostile.encoded(pictures[0])
    (tmp_path / "list.txt").write_text("bad.org\n")
    told = {"jpg": data, "txt": TEXT, "json": hostile.about(url="http://a.org/0")}
    (tmp_path / "tars").mkdir()
    hostile.tar_of(
        tmp_path / "tars" / "a.tar",
        [("0", told), ("1", {"jpg": data, "txt": TEXT}),
         ("2", {**told, "json": hostile.about(caption="a man")}),
         ("3", {**told, "json": hostile.about(url=None)})],
    )  # fmt: skip
    (tmp_path / "folder").mkdir()
    for i in range(2):  # of the second one the table says nothing
        (tmp_path / "folder" / f"{i}.jpg").write_bytes(data)
        (tmp_path / "folder" / f"{i}.txt").write_bytes(TEXT)
    row = hostile.about(file_name="0.jpg", url="http://a.org/0")
    (tmp_path / "folder" / "metadata.jsonl").write_bytes(row)
    listed = {"opt_out": str(tmp_path / "list.txt")}
    for kind, name, count in (("webdataset", "tars", 3), ("folder", "folder", 1)):
        spec = {"kind": kind, "path": str(tmp_path / name)}
        unknown = [sample.NO_ADDRESS] * count
        assert reasons_of(config_of(spec, **listed)) == ["", *unknown]
        assert reasons_of(config_of(spec)) == [""] * (1 + count)
        config = config_of(spec, **listed)
        found = list(readers.Reader(config)(readers.units(config)[0][0]))
        assert all(item.record is None for item in found[1:])
    drawn = config_of({"kind": "synthetic", "count": 1, "size": 32}, **listed)
    assert reasons_of(drawn) == [""]


@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_an_empty_cell_of_the_metadata_hides_nothing(tmp_path, pictures, kind):
    data, url = hostile.encoded(pictures[0]), "http://bad.org/0"
    (tmp_path / "set").mkdir()
    if kind == "webdataset":
        about = {"jpg": data, "txt": TEXT, "json": hostile.about(url=url, punsafe=0.9)}
        hostile.tar_of(tmp_path / "set" / "a.tar", [("0", about)])
    else:
        row = {"key": "0", "jpg": data, "text": "a man", "url": url, "punsafe": 0.9}
        table = pa.table({name: [cell] for name, cell in row.items()})
        pq.write_table(table, tmp_path / "set" / "a.parquet")
    (tmp_path / "meta").mkdir()
    rows = {"key": ["0"], "url": pa.array([None], pa.string()), "punsafe": [0.1]}
    pq.write_table(pa.table(rows), tmp_path / "meta" / "a.parquet")
    config = config_of({"kind": kind, "path": str(tmp_path / "set"),
                        "metadata": str(tmp_path / "meta")})  # fmt: skip
    (found,) = readers.Reader(config)(readers.units(config)[0][0])
    assert found.url == url and found.row["punsafe"] == 0.1


def test_links_to_folders_are_counted(tmp_path, pictures):
    for name in ("pictures", "tars", "elsewhere"):
        (tmp_path / name).mkdir()
        os.symlink(tmp_path / "elsewhere", tmp_path / name / "more")
    (tmp_path / "pictures" / "0.jpg").write_bytes(hostile.encoded(pictures[0]))
    good = {"jpg": hostile.encoded(pictures[0]), "txt": TEXT}
    hostile.tar_of(tmp_path / "tars" / "a.tar", [("0", good)])
    for kind, name in (("folder", "pictures"), ("webdataset", "tars")):
        config = config_of(
            {"kind": kind, "path": str(tmp_path / name)}, texts={"required": False}
        )
        assert reasons_of(config) == ["", sample.NO_FILE]


def test_a_folder_that_names_others_files_reads_none(tmp_path, pictures):
    """Neither by a row nor by a link; what is wrong with a row is counted."""
    data, folder = hostile.encoded(pictures[0]), tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "secret.jpg", folder / "0.jpg", folder / "1.jpg"):
        path.write_bytes(data)
    os.symlink(tmp_path / "secret.jpg", folder / "linked.jpg")
    os.symlink(folder / "1.jpg", folder / "sub" / "inside.jpg")
    os.symlink(tmp_path, folder / "up")
    rows = [
        {"file_name": "0.jpg", "text": "a man"},
        {"file_name": "sub/inside.jpg", "text": "a man"},
        {"file_name": "../secret.jpg", "text": "a man"},
        {"file_name": str(tmp_path / "secret.jpg"), "text": "a man"},
        {"file_name": "up/secret.jpg", "text": "a man"},
        {"file_name": "gone.jpg", "text": "a man"},
        {"file_name": "1.jpg", "text": {"no": "text"}},
        {"text": "a man"},
        ["no", "row"],
    ]
    lines = [*map(json.dumps, rows), "{", "[" * 100_000, '{"text": ' + "9" * 9999 + "}"]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    spec = {"kind": "folder", "path": str(folder)}
    wanted = ["", "", sample.NO_FILE, sample.UNSAFE_NAME]
    wanted += [sample.BAD_ROW] * 10 + [sample.NO_ROW]
    found = reasons_of(config_of(spec, unit_size=4))
    assert sorted(found) == sorted(wanted)
    # One that is not a stranger's tells where the fault is.
    with pytest.raises(UserError, match="metadata.jsonl' line"):
        open_source(spec)


def test_cells_of_a_torn_csv_are_counted(tmp_path, pictures):
    (tmp_path / "0.jpg").write_bytes(hostile.encoded(pictures[0]))
    lines = ["file_name,text", "0.jpg,a man", "0.jpg", "0.jpg,a,b,c", 'x.jpg,"open']
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    found = reasons_of(config_of({"kind": "folder", "path": str(tmp_path)}))
    assert found == ["", *[sample.BAD_ROW] * 3]


def test_a_large_file_of_a_folder_is_not_read(tmp_path, pictures):
    for name in "012":
        (tmp_path / f"{name}.jpg").write_bytes(hostile.encoded(pictures[0]))
        (tmp_path / f"{name}.txt").write_bytes(TEXT)
    (tmp_path / "1.jpg").write_bytes(bytes(100_000))
    (tmp_path / "2.txt").write_bytes(b"a" * 100_000)
    config = config_of(
        {"kind": "folder", "path": str(tmp_path)}, decoding={"max_bytes": 50_000}
    )
    assert reasons_of(config) == ["", *[sample.TOO_MANY_BYTES] * 2]


def test_a_source_that_shrinks_fails_the_job(tmp_path, pictures):
    """Between the plan and a worker; in = out + rejected."""
    for i in range(4):
        data = hostile.encoded(pictures[i % len(pictures)])
        (tmp_path / f"{i}.jpg").write_bytes(data)
        (tmp_path / f"{i}.txt").write_bytes(TEXT)
    config = config_of({"kind": "folder", "path": str(tmp_path)})
    (unit,), _ = readers.units(config)
    (tmp_path / "3.jpg").unlink()
    outcomes = Stages(config, texts.texts(config.texts))(readers.Reader(config)(unit))
    folder = staging.Folder(tmp_path / "out")
    folder.staging.mkdir(parents=True)
    with pytest.raises(UserError, match="has 4 records by the plan, and 3 were read"):
        staging.write_unit(folder, 0, outcomes, 0, unit.records)
    assert not folder.report(0).exists()


def test_rows_of_metadata_that_no_picture_has(tmp_path, pictures):
    """Each is counted, also one that is there twice, or that has no key."""
    good = {"jpg": hostile.encoded(pictures[0]), "txt": TEXT}
    hostile.tar_of(tmp_path / "a.tar", [("./0", good), ("1", good)])
    (tmp_path / "meta").mkdir()
    keys = ["0", "1", "2", "3", "3", None]
    rows = pa.table({"key": keys, "url": [f"http://{i}.org" for i in range(6)]})
    pq.write_table(rows, tmp_path / "meta" / "a.parquet")
    config = config_of({"kind": "webdataset", "path": str(tmp_path),
                        "metadata": str(tmp_path / "meta")})  # fmt: skip
    wanted = ["", "", sample.ROW_ALONE, sample.BAD_ROW, sample.DUPLICATE_KEY]
    assert sorted(reasons_of(config)) == sorted(wanted)
    first, *_ = readers.Reader(config)(readers.units(config)[0][0])
    assert first.url == "http://0.org"


@pytest.mark.parametrize(
    "text",
    [
        "a@" * 32_000, "a" * 65_000, "." * 65_000, "a." * 32_000, "<a" * 32_000,
        "&" * 65_000, "www." * 16_000, "e" + "\u0301\u0316" * 16_000, "@" * 65_000,
        "\u4f60" * 20_000,
    ],
    ids=lambda text: repr(text[:4]),
)  # fmt: skip
def test_no_text_takes_long(text):
    """Patterns that look back take time with the square of the length, or worse."""
    begin = time.process_time()
    cleaned = texts.clean(text)
    opt_out._normal(f"https://{text}/{text}")
    assert time.process_time() - begin < 2
    assert cleaned.count("\u0301") <= 30


def test_addresses_are_still_taken_out():
    given = "write to me.too@mail.example.org, see www.a.org/b?c or http://x.y now"
    assert texts.clean(given) == "write to , see or now"
    assert texts.clean("@handle at 5@ night a@b") == "@handle at 5@ night a@b"


def test_decoded_pictures_that_are_rejected_do_not_pile_up():
    """A batch is bounded by all the pixels that it holds."""
    wide = Record(image=np.zeros((400, 100_000, 3), np.uint8))
    items = [Rejected(str(i), sample.TOO_SMALL, wide) for i in range(4)]
    assert [len(batch) for batch in all_stages._batches(items)] == [1] * 4


def test_a_record_that_cannot_be_read_is_rejected_alone(monkeypatch):
    class Source(list):
        def __getitem__(self, index):
            raise [MemoryError, OSError, UserError][index]()

    monkeypatch.setattr(readers, "_opened", lambda *_: Source(range(3)))
    reasons = reasons_of(config_of({"kind": "synthetic"}))
    assert reasons == ["error: MemoryError", *[sample.UNREADABLE] * 2]


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
