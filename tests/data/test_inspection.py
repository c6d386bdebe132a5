"""`gptface data`: what it counts, what it finds wrong, and a page that runs nothing."""

import dataclasses
import html.parser
import json
import shutil

import numpy as np
import pytest

from gptface_jax.cli.main import main
from gptface_jax.data import shard_format, shards, sources
from gptface_jax.data.inspection import check, report, resplit, sets, survey
from gptface_jax.data.prepare import finish, sample
from gptface_jax.data.prepare.settings import SplitOptions
from gptface_jax.data.record import Record

GREY = np.full((40, 40, 3), 119, np.uint8)  # L* 50
FIVE = np.array([[12, 15], [28, 15], [20, 22], [14, 30], [26, 30]], np.float32) - 0.5


def record_of(text="a smiling man", image=GREY, **fields):
    labels = {"Smiling": 1.0, "Male": 1.0, "Eyeglasses": 0.0}
    fields = {"labels": labels, "source": "s/1", **fields}
    five = {"landmarks": FIVE, "landmark_scheme": "five"}
    return Record(image=image, text=text, **five, **fields)


def surveyed(records):
    found = survey.Survey()
    for record in records:
        found.add(record)
    return found


def test_how_often_a_text_mentions_what_is_there():
    found = surveyed([
        record_of("a smiling man"), record_of("a man"), record_of("page 3 of 12"),
        record_of("a man with glasses"), record_of(""),
        record_of("", texts=("a man", "someone smiling")),
    ])  # fmt: skip
    values = found.as_json()
    assert values["records"] == 6 and values["texts"] == 6
    assert values["records without a text"] == 1
    smiling, glasses = values["mentions"]["Smiling"], values["mentions"]["Eyeglasses"]
    assert smiling == {
        "present": 6,
        "absent": 0,
        "said": 2,
        "denied": 0,
        "rate": 0.3333,
    }
    assert glasses == {"present": 0, "absent": 6, "said": 0, "denied": 1, "rate": None}
    # Smiling and Male are present in six texts each: 2 + 4 of 12.
    assert values["share of present attributes that a text mentions"] == 0.5
    assert values["share of texts that name nothing about a face"] == 0.1667


def test_the_data_sheet_of_skin_pose_and_size():
    values = surveyed([record_of()]).as_json()
    assert values["histograms"]["luminance"] == {"50": 1}
    assert values["histograms"]["yaw"] == {"0": 1}
    assert values["histograms"]["face"] == {"32": 1}  # 2.2 distances of the eyes
    assert values["sizes"] == {"40 x 40": 1}


def test_what_words_and_numbers_tell_is_counted():
    found = surveyed([
        record_of(expression="happiness", labels={"Age": 33.0}),
        record_of(expression="happiness", labels={"Age": 34.0}),
        record_of(expression="fear", facts={"hair colour": "<red>"}),
        record_of(),
    ])  # fmt: skip
    values = found.as_json()
    assert values["words"] == {
        "expression": {"happiness": 2, "fear": 1}, "hair colour": {"<red>": 1}
    }  # fmt: skip
    assert values["histograms"]["age"] == {"30": 2} and "Age" not in values["labels"]
    page = "".join(report._words(found))
    assert "happiness" in page and "&lt;red&gt;" in page and "<red>" not in page


@pytest.mark.parametrize("level, wanted", [(0, 0), (255, 100), (119, 50.03)])
def test_luminance(level, wanted):
    image = np.full((40, 40, 3), level, np.uint8)
    found = survey.luminance(image, FIVE + 0.5)
    assert found == pytest.approx(wanted, abs=0.01)
    assert np.isnan(survey.luminance(image, FIVE - 100))


def test_copies_among_records():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (40, 40, 3), np.uint8) for _ in range(3)]
    nearly = pictures[0].copy()
    nearly[0, 0] ^= 1
    records = [record_of(image=p) for p in (*pictures, pictures[1], nearly)]
    assert surveyed(records).copies() == {"exact": 1, "near": 2}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("inspected") / "set"
    config = "configs/data/laion_face.py:tiny"
    more = "--config.split.validation=0.3 --config.filters.max_yaw=3.0"
    command = f"prepare --quiet --workers 1 --config {config} --out {out} {more}"
    assert main(command.split()) == 0
    return out


class _Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.sources, self.handlers = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        self.sources += [v for k, v in attributes if k in ("src", "href")]
        self.handlers += [k for k, _ in attributes if k.startswith("on")]


def test_the_page_shows_what_was_kept_and_rejected(prepared, tmp_path, capsys):
    page = tmp_path / "page.html"
    command = ["data", "inspect", "--quiet", "--images", prepared, "--out", page]
    assert main([str(w) for w in command]) == 0
    text, counts = page.read_text(), finish.read(prepared)["counts"]
    assert counts["rejected"] > 0
    assert f"{counts['read']} read = {counts['records']} records" in text
    assert sample.TURNED in text and "Some of the rejected" in text
    tags = _Tags()
    tags.feed(text)
    assert tags.seen.count("img") == len(tags.sources) >= counts["records"]
    assert all(s.startswith("data:image/jpeg;base64,") for s in tags.sources)


def test_a_token_cache_shows_what_its_codes_decode_to(tiny, tmp_path, capsys):
    out = tmp_path / "page.html"
    command = ["data", "inspect", "--quiet", "--out", str(out), "--images"]
    vqgan = ["--tokenizer", str(tiny / "vqgan")]
    assert main([*command, str(tiny / "tokens")]) == 0
    assert "<img" not in out.read_text()
    assert main([*command, str(tiny / "tokens"), *vqgan]) == 0
    assert out.read_text().count("<img") > 1
    capsys.readouterr()
    drawn = ["synthetic", "--limit", "2", "--data", "size=32"]
    assert main([*command, *drawn, *vqgan]) == 2
    assert "--tokenizer decodes the image ids of a token" in capsys.readouterr().err
    wrong = ["--tokenizer", "demo"]
    assert main([*command, str(tiny / "tokens"), *wrong]) == 2
    assert "--tokenizer 'demo' has the digest" in capsys.readouterr().err


def test_a_text_cannot_become_markup():
    evil = '<script>alert(1)</script><img src=x onerror="a()">\ud800'
    found = sets.Set(evil, {"all": [record_of(evil, source=evil)]},
                     rejected=[Record(text=evil, facts={"reason": evil})])  # fmt: skip
    page, _ = report.report(found, None)
    tags = _Tags()
    tags.feed(page)
    assert "script" not in tags.seen and not tags.handlers
    assert page.encode() and len(tags.sources) == 1


def test_samples_are_even_and_in_order():
    parts = {"a": [Record(text=str(i)) for i in range(900)],
             "b": [Record(text=str(i)) for i in range(900, 1000)]}  # fmt: skip
    found = [(s, int(r.text)) for s, r in sets.Set("x", parts).sample(200)]
    numbers = [n for _, n in found]
    assert numbers == sorted(set(numbers)) and len(numbers) == 200
    assert all((split == "a") == (n < 900) for split, n in found)
    assert sum(n < 500 for n in numbers) == pytest.approx(100, abs=25)
    assert len(list(sets.Set("x", parts).sample(None))) == 1000


def test_check_finds_nothing_wrong(prepared, capsys):
    assert main(["data", "check", "--quiet", "--images", str(prepared)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["records"] == finish.read(prepared)["counts"]["records"]
    assert result["shards"] == result["digests"] >= 4 and result["faults"] == {}
    few = ["--sample", "3"]
    assert main(["data", "check", "--quiet", "--images", str(prepared), *few]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["digests"] == 0 and result["records"] == 3


def _spoil(prepared, tmp_path, name):
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    shard = copy / "train" / "part-000000.arrayrecord"
    if name == "missing":
        shard.unlink()
    elif name == "another digest":
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(bytes(data))
    elif name == "not in the manifest":
        shutil.copy(shard, shard.with_name("part-000099.arrayrecord"))
    elif name == "cannot be read":
        shard.write_bytes(b"no shard")
    elif name == "of a split":
        (shard.parent / "manifest.json").write_text("{")
    elif name == "rejected":
        (copy / "rejected" / shard.name).write_bytes(b"")
    elif name == "two splits":
        shutil.copytree(copy / "train", copy / "more")
        path = copy / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["splits"]["more"] = manifest["splits"]["train"]
        path.write_text(json.dumps(manifest))
    elif name == "do not add up":
        path = copy / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["counts"]["read"] += 1
        path.write_text(json.dumps(manifest))
    return copy


@pytest.mark.parametrize(
    "name, fault",
    [
        ("another digest", "train/part-000000.arrayrecord: another digest"),
        ("two splits", "one picture in two splits"),
        ("do not add up", "read is not records"),
        ("missing", "train/part-000000.arrayrecord: missing"),
        ("cannot be read", "train/part-000000.arrayrecord: cannot be read"),
        ("not in the manifest", "train/part-000099.arrayrecord: not in the manifest"),
        ("of a split", "train: no manifest that can be read"),
        ("rejected", "rejected/part-000000.arrayrecord: another digest"),
    ],
)
def test_check_finds_what_is_wrong(prepared, tmp_path, capsys, name, fault):
    copy = _spoil(prepared, tmp_path, name)
    assert main(["data", "check", "--quiet", "--images", str(copy)]) == 2
    assert fault in capsys.readouterr().err


@pytest.fixture
def split(tmp_path):
    """A folder of two splits, the first in three shards."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (40, 40, 40, 3), np.uint8)
    records = [record_of(image=p, source=f"s/{i}") for i, p in enumerate(pictures)]
    counts = resplit.resplit(records, tmp_path / "s", SplitOptions(0.3), shard_size=10)
    assert counts == {"train": 24, "validation": 16}
    return tmp_path / "s"


def checked(folder, capsys, wanted):
    assert main(["data", "check", "--quiet", "--images", str(folder)]) == wanted
    return json.loads(capsys.readouterr().out)


def test_check_lists_all_faults_of_a_folder_of_splits(split, capsys, tmp_path):
    shards = {"shards": 5, "digests": 5}
    assert checked(split, capsys, 0) == {**shards, "records": 40, "faults": {}}
    page = ["--out", str(tmp_path / "page.html")]
    assert main(["data", "inspect", "--quiet", "--images", str(split), *page]) == 0
    assert main(["data", "stats", "--quiet", "--images", str(split)]) == 0
    capsys.readouterr()
    train, name = split / "train", "part-0000{}.arrayrecord".format
    (train / name(0)).unlink()
    whole = bytearray((train / name(1)).read_bytes())
    whole[20_000] ^= 255  # in one of its ten records
    (train / name(1)).write_bytes(bytes(whole))
    (train / name(2)).write_bytes((split / "validation" / name(1)).read_bytes())
    shutil.copy(train / name(2), train / name(7))
    found = checked(split, capsys, 2)
    damaged = f"shard train/{name(1)}: cannot be read from record"
    (told,) = [fault for fault in found["faults"] if fault.startswith(damaged)]
    assert found["faults"] == {
        told: 1,
        f"shard train/{name(0)}: missing": 1,
        f"shard train/{name(1)}: another digest": 1,
        f"shard train/{name(2)}: another digest": 1,
        f"shard train/{name(2)}: 6 records, not 4": 1,
        f"shard train/{name(7)}: not in the manifest": 1,
        "one picture in two splits": 6,
    }


def test_a_folder_of_pictures_beside_shards_is_one_of_pictures(split, capsys):
    (split / "a.png").write_bytes(shard_format.unpack(shard_format.pack(
        record_of())).image)  # fmt: skip
    assert checked(split, capsys, 0)["records"] == 1


def test_check_counts_files_that_cannot_be_read(tmp_path, capsys):
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"no picture")
    faults = checked(tmp_path, capsys, 2)["faults"]
    assert faults == {"record: the picture cannot be decoded": 3}


def test_prepared_pictures_have_digests(tmp_path, capsys):
    command = "prepare --quiet --images synthetic --limit 4 --data size=32 --workers 1"
    assert main([*command.split(), "--out", str(tmp_path / "p")]) == 0
    capsys.readouterr()
    found = checked(tmp_path / "p", capsys, 0)
    assert found == {"shards": 1, "digests": 1, "records": 4, "faults": {}}


def test_check_of_records():
    good = record_of()
    wrong = [
        dataclasses.replace(good, image=b"no picture"),
        dataclasses.replace(good, image=None),
        dataclasses.replace(good, text=""),
    ]
    manifest = {"crop": {"size": 40}, "config": {"texts": {"required": True}}}
    found = check.check(sets.Set("x", {"all": [good, *wrong]}, manifest), None)
    assert found == {"shards": 0, "digests": 0, "records": 4, "faults": {
        "record: the picture cannot be decoded": 1,
        "record: neither picture nor image ids": 1,
        "record: no text": 1,
    }}  # fmt: skip


def test_splits_keep_persons_and_copies_together(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (8, 8, 3), np.uint8) for _ in range(60)]
    records = [
        record_of(image=pictures[i % 60], identity=i % 7, source=f"s/{i}")
        for i in range(120)
    ]
    options = SplitOptions(0.3, 0.2)
    for by in resplit.KEYS:
        out = tmp_path / by
        counts = resplit.resplit(records, out, options, by, shard_size=16)
        assert sum(counts.values()) == 120 and len(counts) > 1
        where = {}
        for split in counts:
            part = sources.open_source({"kind": "arrayrecord", "path": out / split})
            assert len(part) == counts[split]
            for i in range(len(part)):
                key = resplit.key_of(part[i], by)
                if by == "picture":
                    key = part[i].image
                assert where.setdefault(key, split) == split


@pytest.mark.parametrize("named", [True, False])
def test_a_mirror_image_goes_with_its_picture(tmp_path, capsys, named):
    """Also where the source names a set and not a picture."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 99, (120, 4, 4)).astype(np.uint16)
    records = [
        Record(image_ids=own, text=str(i // 2), source=f"x/{i // 2}" if named else "x")
        for i, own in enumerate(ids)
    ]
    writer = shards.Writer(tmp_path / "cache", {"mirrored": True}, 120, 50)
    for index in writer.missing:
        writer.write(index, [records[i] for i in writer.records(index)])
    np.save(tmp_path / "cache" / shards.CODEBOOK, np.zeros(3))
    writer.finish()
    out, limit = tmp_path / "s", "--limit 110"
    command = f"data split --quiet --images {tmp_path}/cache {limit} --out {out}"
    assert main([*command.split(), "--validation", "0.4"]) == 0
    parts = {p: shards.Records(out / p) for p in ("train", "validation")}
    texts = [{part[i].text for i in range(len(part))} for part in parts.values()]
    assert all(texts) and not texts[0] & texts[1]
    assert sum(map(len, parts.values())) == 110
    assert all(part.manifest["mirrored"] for part in parts.values())
    assert all((out / p / shards.CODEBOOK).is_file() for p in parts)


def test_faces_of_one_picture_are_in_one_split():
    rng = np.random.default_rng(0)
    records = [
        record_of(image=rng.integers(0, 255, (8, 8, 3), np.uint8), source=f"x/{i % 50}")
        for i in range(100)
    ]
    where = {}
    for split, record in resplit.splits_of(records, SplitOptions(0.4), "picture"):
        assert where.setdefault(record.source, split) == split
    assert len(where) == 50 and {*where.values()} == {"train", "validation"}


def test_split_by_the_command(prepared, tmp_path, capsys):
    command = f"data split --quiet --images {prepared} --out {tmp_path}/s --test 0.4"
    assert main(command.split()) == 0
    manifest = shard_format.read_manifest(tmp_path / "s" / "test")
    assert manifest["split_by"] == "picture" and manifest["crop"]["size"] == 64
    assert main(command.split()) == 2
    assert "holds files" in capsys.readouterr().err
    assert main([*command.split()[:-1], "1.5"]) == 2


def test_a_prepared_set_is_explained_to_other_verbs(prepared, tmp_path, capsys):
    command = f"prepare --quiet --images {prepared} --out {tmp_path}/p --workers 1"
    assert main(command.split()) == 2
    assert f"{prepared}/train" in capsys.readouterr().err
