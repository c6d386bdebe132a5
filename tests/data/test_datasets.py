"""Data sets of others, from miniatures in their layout to records, no TensorFlow."""

import json
import sys

import hostile_files as hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data import datasets, schemes, sources
from gptface_jax.data.prepare import detections, readers, settings
from gptface_jax.data.tables import CELEBA_ATTRIBUTES


@pytest.fixture(scope="module")
def files():
    return [hostile.encoded(picture) for picture in hostile.drawn(3)]


def records_of(root, name, split="train"):
    spec = {"kind": "tfds", "name": name, "split": split, "data_dir": str(root / "out")}
    source = sources.open_source(spec)
    return [source[i] for i in range(len(source))]


def build(root, name, *more):
    command = ["data", "build", name, "--source", root / "in", "--out", root / "out"]
    return main([str(word) for word in (*command, *more)])


def attributes(path, names, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.choice([-1, 1], (len(names), 40))
    lines = [str(len(names)), " ".join(CELEBA_ATTRIBUTES)]
    lines += [f"{n}  {' '.join(map(str, row))}" for n, row in zip(names, rows)]
    path.write_text("\n".join(lines) + "\n")
    return rows


def celeba(root, files):
    (root / "in" / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06d}.jpg" for i in (1, 2, 3)]
    for name, data in zip(names, files):
        (root / "in" / "img_align_celeba" / name).write_bytes(data)
    rows = attributes(root / "in" / "list_attr_celeba.txt", names)
    parts = "\n".join(f"{n} {c}" for n, c in zip(names, "012"))
    (root / "in" / "list_eval_partition.txt").write_text(parts)
    points = "\n".join(f"{n}  " + " ".join("12 13 14 15 16 17 18 19 20 21".split())
                       for n in names)  # fmt: skip
    (root / "in" / "list_landmarks_align_celeba.txt").write_text(
        "3\nlefteye_x lefteye_y\n" + points
    )
    captions = {names[0]: {"overall_caption": "She smiles."}, names[1]: ["a", "b"]}
    (root / "in" / "captions.json").write_text(json.dumps(captions))
    return rows


def test_celeba(tmp_path, files, capsys):
    rows = celeba(tmp_path, files)
    assert build(tmp_path, "face_celeba") == 2
    assert "train has 1 of 162,770" in capsys.readouterr().err
    assert build(tmp_path, "face_celeba", "--partial") == 0
    (record,) = records_of(tmp_path, "face_celeba")
    assert record.image == files[0] and record.text == "She smiles."
    assert record.source == "celeba/000001.jpg" and record.landmark_scheme == "five"
    np.testing.assert_array_equal(record.landmarks[2], [16, 17])
    wanted = dict(zip(CELEBA_ATTRIBUTES, (rows[0] == 1).astype(float)))
    assert record.labels == wanted and record.identity is None
    (record,) = records_of(tmp_path, "face_celeba", "validation")
    assert record.texts == ("a", "b")
    (record,) = records_of(tmp_path, "face_celeba", "test")
    assert record.text == ""
    assert "tensorflow" not in sys.modules


def celebamask(root, files):
    folder = root / "in"
    (folder / "CelebA-HQ-img").mkdir(parents=True)
    (folder / "CelebA-HQ-img" / "2001.jpg").write_bytes(files[0])
    (folder / "CelebA-HQ-img" / "0.jpg").write_bytes(files[1])
    for number in (0, 2001):
        where = folder / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        where.mkdir(parents=True)
        for part, rows in {"skin": (4, 20), "hair": (0, 6), "l_eye": (8, 10)}.items():
            mask = np.zeros((24, 24), np.uint8)
            mask[rows[0] : rows[1]] = 255
            Image.fromarray(mask).save(where / f"{number:05d}_{part}.png")
    (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text(
        "idx orig_idx orig_file\n0 162770 162770.jpg\n2001 182638 182638.jpg\n"
    )
    (folder / "celeba-caption").mkdir()
    (folder / "celeba-caption" / "0.txt").write_text("She is young.\n\nHer hair ...\n")


def test_celebamask_hq(tmp_path, files):
    celebamask(tmp_path, files)
    assert build(tmp_path, "face_celebamask_hq", "--partial") == 0
    (record,) = records_of(tmp_path, "face_celebamask_hq")
    assert record.texts == ("She is young.", "Her hair ...")
    assert record.parsing.shape == (48, 48)  # of the picture
    names = schemes.PARSING["celebamask-hq"]
    found = [names[int(record.parsing[2 * row, 5])] for row in (1, 5, 8, 12, 22)]
    # Hair was painted over skin, an eye over both.
    assert found == ["hair", "hair", "l_eye", "skin", "background"]
    assert not list(records_of(tmp_path, "face_celebamask_hq", "test")[0].texts)
    assert record.labels is None  # their table is not there


def test_celebamask_hq_with_attributes(tmp_path, files):
    celebamask(tmp_path, files)
    table = tmp_path / "in" / "CelebAMask-HQ-attribute-anno.txt"
    rows = attributes(table, ["0.jpg", "2001.jpg"])
    assert build(tmp_path, "face_celebamask_hq", "--partial") == 0
    (record,) = records_of(tmp_path, "face_celebamask_hq")
    assert record.labels == dict(zip(CELEBA_ATTRIBUTES, (rows[0] == 1).astype(float)))


def test_more_of_a_set_than_was_built_is_not_passed_over(tmp_path, files, capsys):
    rafdb(tmp_path, files)
    assert build(tmp_path, "face_rafdb", "--partial") == 0
    assert build(tmp_path, "face_rafdb", "--partial") == 0  # the same again
    table = tmp_path / "in" / "basic" / "EmoLabel" / "list_patition_label.txt"
    table.write_text("\n".join(table.read_text().splitlines()[1:]))
    capsys.readouterr()
    assert build(tmp_path, "face_rafdb", "--partial") == 2
    said = capsys.readouterr().err
    assert "train has 2 examples there and 1 in" in said and "move it away" in said


def wflw(root, files):
    folder = root / "in"
    (folder / "WFLW_images" / "0--Parade").mkdir(parents=True)
    (folder / "WFLW_images" / "0--Parade" / "a.jpg").write_bytes(files[0])
    lists = folder / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    lists.mkdir(parents=True)
    line = [*(f"{v / 4:.6f}" for v in range(196)), "1", "2", "40", "44",
            *"010001", "0--Parade/a.jpg"]  # fmt: skip
    for split, count in (("train", 2), ("test", 1)):
        text = "\n".join([" ".join(line)] * count)
        (lists / f"list_98pt_rect_attr_{split}.txt").write_text(text)
    return lists


def test_wflw(tmp_path, files):
    wflw(tmp_path, files)
    assert build(tmp_path, "face_wflw", "--partial") == 0
    first, second = records_of(tmp_path, "face_wflw")
    assert first.landmark_scheme == "wflw98" and len(first.landmarks) == 98
    np.testing.assert_allclose(second.landmarks[97], [194 / 4, 195 / 4])
    np.testing.assert_array_equal(first.boxes, [[1, 2, 40, 44]])


def rafdb(root, files):
    folder = root / "in" / "basic"
    (folder / "EmoLabel").mkdir(parents=True)
    (folder / "Image" / "aligned").mkdir(parents=True)
    lines = ["train_00001.jpg 4", "train_00002.jpg 1", "test_0001.jpg 7"]
    for line, data in zip(lines, files):
        name = line.split(".")[0]
        (folder / "Image" / "aligned" / f"{name}_aligned.jpg").write_bytes(data)
    (folder / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(lines))
    return folder


def test_rafdb(tmp_path, files):
    rafdb(tmp_path, files)
    assert build(tmp_path, "face_rafdb", "--partial") == 0
    found = [r.expression for r in records_of(tmp_path, "face_rafdb")]
    assert found == ["happiness", "surprise"]
    assert records_of(tmp_path, "face_rafdb", "test")[0].expression == "neutral"


def test_a_set_goes_through_the_preparation(tmp_path, files):
    """TFDS and Hugging Face's Parquet as sources of one set."""
    rafdb(tmp_path, files)
    assert build(tmp_path, "face_rafdb", "--partial") == 0
    struct = pa.array([{"bytes": files[2], "path": "x.jpg"}])
    table = pa.table(
        {
            "image": struct,
            "text": ["a man"],
            "Smiling": [1],
            "landmarks": [[9, 9, 30, 9, 20, 20, 10, 30, 28, 30]],
            "identity": ["p7"],
            "race": ["x"],
        }
    )
    pq.write_table(table, tmp_path / "hf.parquet")
    parts = (
        {"kind": "tfds", "name": "face_rafdb", "data_dir": str(tmp_path / "out")},
        {
            "kind": "parquet",
            "path": str(tmp_path / "hf.parquet"),
            "name": "hf",
            "facts": ["race"],
        },
    )
    values = {
        "sources": parts,
        "crop": {"mode": "whole", "size": 64},
        "texts": {"required": False},
        "filters": {"min_side": 8, "near_duplicates": -1},
        "split": {"validation": 0.0},
    }
    (tmp_path / "config.py").write_text(
        "from ml_collections import ConfigDict\n"
        f"def get_config(arg):\n    return ConfigDict({values!r})\n"
    )
    words = ["prepare", "--quiet", "--workers", "1", "--out", tmp_path / "set",
             "--config", tmp_path / "config.py"]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    spec = {"kind": "arrayrecord", "path": tmp_path / "set" / "train"}
    first, second, third = sources.open_source(spec)
    assert (first.expression, second.expression) == ("happiness", "surprise")
    assert first.source == "raf_db/train_00001.jpg" and first.text == ""
    assert (third.source, third.text) == ("hf/hf/0-0", "a man")
    assert third.labels == {"Smiling": 1.0}
    assert (third.identity, third.facts) == ("p7", {"race": "x"})
    assert third.landmarks.shape == (5, 2) and third.landmark_scheme == "five"


def test_laion_face(tmp_path, files):
    (tmp_path / "in").mkdir()
    samples = [
        (f"{i}", {"jpg": data, "json": hostile.about(
            caption=f"face number {i}", url=f"http://a.org/{i}", SAMPLE_ID=i)})
        for i, data in enumerate([*files, b"damaged"])
    ]  # fmt: skip
    hostile.tar_of(tmp_path / "in" / "00000.tar", samples)
    faces = {1: [([4, 5, 40, 41], [[1, 1]] * 5, 0.9)], 2: []}
    detections.write(tmp_path / "in" / "detections" / "0", faces)
    with pytest.warns(UserWarning, match="left out: 1 picture: none that can be read"):
        assert build(tmp_path, "face_laion") == 0
    records = records_of(tmp_path, "face_laion")
    assert [r.text for r in records] == [f"face number {i}" for i in range(3)]
    assert records[0].image == files[0]
    np.testing.assert_array_equal(records[1].boxes, [[4, 5, 40, 41]])

    # Prepared again, addresses are known: opt-outs are honoured. Scores are not there.
    spec = {"kind": "tfds", "name": "face_laion", "data_dir": str(tmp_path / "out")}
    config = settings.read({"sources": (spec,), "opt_out": "list.txt"})
    (unit,), _ = readers.units(config)
    prepared = list(readers.Reader(config)(unit))
    assert [s.url for s in prepared] == [f"http://a.org/{i}" for i in range(3)]
    assert [s.faces is None for s in prepared] == [True, False, True]
    limits = {"max_scores": {"punsafe": 0.5}}
    config = settings.read({"sources": (spec,), "filters": limits})
    with pytest.raises(UserError, match="'tfds' has no column punsafe"):
        readers.units(config)


TABLES = {
    "partition": (celeba, "list_eval_partition.txt", "\n000001.jpg 0\n2.jpg\n",
                  "partition.txt' line 3: '2.jpg' is no file and 0, 1 or 2"),
    "code": (celeba, "list_eval_partition.txt", "1.jpg 01\n", "line 1: '1.jpg 01'"),
    "points": (celeba, "list_landmarks_align_celeba.txt", "1\nx y\n000001.jpg 1 2\n",
               "line 3 has 2 numbers, not 10"),
    "expression": (rafdb, "basic/EmoLabel/list_patition_label.txt",
                   "train_00001.jpg 12\n", "line 1: 'train_00001.jpg 12' is no file"),
    "letters": (rafdb, "basic/EmoLabel/list_patition_label.txt",
                "train_00001.jpg 1\ntr\xe4in_00002.jpg 1\n", "line 2 is not UTF-8"),
    "caption": (celebamask, "celeba-caption/0.txt", "a man\n\xe4", "line 2 is not UTF"),
    "mask": (celebamask, "CelebAMask-HQ-mask-anno/0/00000_skin.png", "\x89PNG",
             "'.*00000_skin.png' "),
}  # fmt: skip


@pytest.mark.parametrize("fault", TABLES)
def test_a_line_of_another_format_is_named(tmp_path, files, fault):
    make, table, content, message = TABLES[fault]
    make(tmp_path, files)
    (tmp_path / "in" / table).write_bytes(content.encode("latin-1"))
    name = f"face_{make.__name__}".replace("mask", "mask_hq")
    with pytest.raises(UserError, match=message):
        datasets.build(name, tmp_path / "in", tmp_path / "out", partial=True)


FAULTS = {
    "face_celeba": (
        celeba, "list_attr_celeba.txt", "3\nA B\n000001.jpg 1\n", "1 values.*2 names"
    ),
    "face_celebamask_hq": (
        celebamask, "CelebA-HQ-to-CelebA-mapping.txt", "h\nx y\n", "no pair of numbers"
    ),
    "face_wflw": (
        wflw,
        "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_train.txt",
        "1 2 3 a.jpg\n", "line 1 has 4 columns, not 207",
    ),
    "face_rafdb": (
        rafdb, "basic/EmoLabel/list_patition_label.txt", "train_1.jpg 9\n", "1 to 7"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_tables_of_another_format_are_named(tmp_path, files, name):
    make, table, content, message = FAULTS[name]
    make(tmp_path, files)
    (tmp_path / "in" / table).write_text(content)
    with pytest.raises(UserError, match=message):
        datasets.build(name, tmp_path / "in", tmp_path / "out", partial=True)


def test_a_table_cannot_name_files_elsewhere(tmp_path, files):
    lists = wflw(tmp_path, files)
    (tmp_path / "b.jpg").write_bytes(files[0])
    table = lists / "list_98pt_rect_attr_train.txt"
    table.write_text(table.read_text().replace("0--Parade/a.jpg", "../../b.jpg"))
    with pytest.raises(UserError, match="leads out of"):
        datasets.build("face_wflw", tmp_path / "in", tmp_path / "out", partial=True)


def test_what_is_not_there(tmp_path, capsys):
    with pytest.raises(UserError, match="face_wlfw.*did you mean 'face_wflw'"):
        datasets.builder("face_wlfw", tmp_path, tmp_path)
    with pytest.raises(UserError, match="is no folder"):
        datasets.builder("face_wflw", tmp_path / "none", tmp_path)
    assert main(["data", "build", "face_rafdb", "--layout"]) == 0
    assert "whdeng.cn" in capsys.readouterr().out
    assert main(["data", "build", "face_rafdb"]) == 2
    (tmp_path / "in").mkdir()
    assert build(tmp_path, "face_wflw", "--partial") == 2
    assert "is missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", datasets.NAMES)
def test_every_set_says_where_its_files_and_terms_are(name):
    about = datasets.about(name)
    assert "Files: http" in about and "https://github.com" in about
