import csv
import io
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, label_sets, sources, tables
from gptface_jax.data.record import Record


def jpeg(value: int, size=16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def grey(record: Record) -> int:
    return int(image_io.decode(record.image)[0, 0, 0])


@pytest.fixture
def photos(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(jpeg(10 * i))
    return tmp_path


def test_plain_folder(photos):
    source = sources.open_source({"kind": "folder", "path": str(photos)})
    assert [grey(r) for r in source] == [0, 10, 20, 30, 40]
    assert source[2].text == "" and source[2].labels is None


def test_folder_with_jsonl(photos):
    rows = [
        {"file_name": "3.png", "text": "three", "Smiling": 0.95, "identity": 7},
        {"file_name": "1.png", "caption": "one", "Smiling": -1},
    ]
    lines = "\n".join(json.dumps(r) for r in rows) + "\n"
    (photos / "metadata.jsonl").write_text(lines)
    source = sources.open_source({"kind": "folder", "path": photos})
    assert len(source) == 2
    assert [grey(r) for r in source] == [30, 10]
    assert [r.text for r in source] == ["three", "one"]
    assert source[0].labels == {"Smiling": 0.95} and source[0].identity == 7
    assert source[1].labels == {"Smiling": 0.0}  # CelebA writes -1


def test_folder_with_csv(photos):
    with (photos / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "text", "Eyeglasses"])
        writer.writeheader()
        writer.writerow({"file_name": "4.png", "text": "four", "Eyeglasses": "1"})
    source = sources.open_source({"kind": "folder", "path": photos})
    assert grey(source[0]) == 40 and source[0].labels == {"Eyeglasses": 1.0}
    (photos / "metadata.csv").write_text("name,text\n4.png,four\n")
    with pytest.raises(
        UserError, match="metadata.csv' line 2: there is no 'file_name'"
    ):
        sources.open_source({"kind": "folder", "path": photos})


def jsonl(folder, *rows):
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (folder / "metadata.jsonl").write_text(lines)


def test_folder_with_metadata_in_subfolders(tmp_path):
    jsonl(tmp_path / "train", {"file_name": "1.png", "text": "one"})
    jsonl(tmp_path / "test", {"file_name": "deep/2.png", "text": "two"})
    (tmp_path / "train" / "1.png").write_bytes(jpeg(1))
    (tmp_path / "train" / "unnamed.png").write_bytes(jpeg(9))
    (tmp_path / "test" / "deep").mkdir()
    (tmp_path / "test" / "deep" / "2.png").write_bytes(jpeg(2))
    both = sources.Folder(tmp_path)
    assert [(r.text, grey(r)) for r in both] == [("two", 2), ("one", 1)]
    spec = {"kind": "folder", "path": tmp_path, "split": "train"}
    (only,) = sources.open_source(spec)
    assert only.text == "one" and only.source == f"{tmp_path.name}/train/1.png"
    with pytest.raises(UserError, match="no subfolder 'dev'.*it has: test, train"):
        sources.open_source(spec | {"split": "dev"})


def test_split_of_a_folder_with_one_table_or_none(photos):
    jsonl(photos / "a", {"file_name": "5.png"})
    (photos / "a" / "metadata.jsonl").unlink()
    (photos / "a" / "5.png").write_bytes(jpeg(50))
    assert [grey(r) for r in sources.Folder(photos, "a")] == [50]
    jsonl(photos, {"file_name": "0.png"}, {"file_name": "a/5.png", "text": "five"})
    assert [r.text for r in sources.Folder(photos, "a")] == ["five"]
    assert len(sources.Folder(photos)) == 2


def test_faulty_metadata_is_named_with_its_row(photos):
    table = photos / "metadata.jsonl"
    for line, said in (
        ("{'file_name': '1.png'}", "line 2 is not JSON"),
        ("[1]", "line 2 is no JSON object"),
        ('{"text": "x"}', "line 2: there is no 'file_name'"),
        ('{"file_name": null}', "line 2: there is no 'file_name'"),
    ):
        table.write_text('{"file_name": "0.png"}\n' + line + "\n")
        with pytest.raises(UserError, match=f"metadata.jsonl' {said}") as caught:
            sources.Folder(photos)
        assert "\n" not in str(caught.value)
    table.write_bytes(b'{"file_name": "\xff.png"}')
    with pytest.raises(UserError, match="not UTF-8"):
        sources.Folder(photos)
    # A line separator inside a text ends no row, and a byte order mark is no letter.
    row = {"file_name": "0.png", "text": "one\u2028two"}
    table.write_text(json.dumps(row, ensure_ascii=False), "utf-8-sig")
    assert sources.Folder(photos)[0].text == "one\u2028two"


def test_labels():
    row = {
        "Smiling": True,
        "Male": "FALSE",
        "Young": "true ",
        "Bald": -1,
        "Bangs": "1",
        "Eyeglasses": np.float32(0.5),
        "Goatee": "",
        "Mustache": None,
        "Chubby": float("nan"),
        "Blurry": np.bool_(False),
        "Age": "41.5",
        "Other": "anything",
    }
    assert tables.labels_from(row) == {
        **{"Smiling": 1.0, "Male": 0.0, "Young": 1.0, "Bald": 0.0, "Bangs": 1.0},
        **{"Eyeglasses": 0.5, "Blurry": 0.0, "Age": 41.5},
    }
    assert tables.labels_from({"Smiling": "", "Age": None}) is None
    for name, value in (
        ("Smiling", "yes"),
        ("Smiling", 2),
        ("Bald", -0.5),
        ("Bald", [1]),
        ("Age", "old"),
        ("Age", -1),
    ):
        with pytest.raises(UserError) as caught:
            tables.labels_from({name: value})
        assert f"column '{name}' holds {value!r}" in str(caught.value)


@pytest.mark.parametrize("flat", [[1, 2, 3], ["a", 1], 3, [[1], [2, 3]], [1e300, 0]])
def test_landmarks_that_are_none(flat):
    with pytest.raises(UserError, match="column 'landmarks' holds no x0, y0"):
        tables.fields_from({"landmarks": flat})
    known = tables.fields_from({"landmarks": [1.5, float("nan")]})["landmarks"]
    np.testing.assert_array_equal(known, [[1.5, np.nan]])


def test_missing_labels_of_a_float_column_are_unknown(tmp_path):
    labels = np.array([1.0, np.nan])
    table = pa.table({"image": [jpeg(1), jpeg(2)], "Smiling": labels})
    pq.write_table(table, tmp_path / "x.parquet")
    source = sources.Parquet(tmp_path / "x.parquet")
    assert [r.labels for r in source] == [{"Smiling": 1.0}, None]


def test_first_text_of_several():
    captions = {"id": np.array([3, 4]), "text": np.array([b"one", b"two"], object)}
    for row in (
        {"captions": captions},
        {"captions": [{"id": 3, "text": b"one"}]},
        {"text": np.array(["one", "two"])},
        {"text": ["one"]},
        {"text": b"one"},
        {"text": np.str_("one"), "caption": "two"},
        {"text": [], "caption": "one"},
        {"text": None, "caption": np.array(b"one")},
    ):
        assert tables.texts_from(row)[0] == "one"
    assert tables.texts_from({"note": "x", "text": "y"}, "note") == ("x",)
    assert tables.texts_from({"text": "y"}, "note") == ()


def test_tfds_rows_with_several_captions(monkeypatch):
    rows = [
        {"image": jpeg(1), "captions": {"id": [1, 2], "text": [b"a", b"b"]}},
        {"image": jpeg(2), "text": np.array([b"c", b"d"])},
        {"image": jpeg(3), "attributes": {"Smiling": True}, "text": "e"},
    ]
    monkeypatch.setattr(sources.Tfds, "_source", rows)
    source = sources.Tfds("any")
    assert [r.text for r in source] == ["a", "c", "e"]
    assert source[2].labels == {"Smiling": 1.0}


def test_parquet_of_colour_alone(tmp_path):
    def stored(mode, value):
        file = io.BytesIO()
        Image.new(mode, (8, 8), value).save(file, "JPEG")
        return {"bytes": file.getvalue(), "path": ""}

    cells = [stored("L", 1), stored("RGB", (2, 2, 2)), stored("L", 3)]
    path = tmp_path / "faces.parquet"
    pq.write_table(pa.table({"image": cells, "person": list("abc")}), path)
    spec = {"kind": "parquet", "path": path}
    (only,) = sources.open_source({**spec, "colour": True})
    assert only.identity == "b" and len(sources.open_source(spec)) == 3
    pq.write_table(pa.table({"image": cells[::2]}), path)
    with pytest.raises(UserError, match="no picture with colours; leave out colour"):
        sources.open_source({**spec, "colour": True})


def test_parquet(tmp_path):
    table = pa.table(
        {
            "image": [{"bytes": jpeg(v), "path": f"{v}.png"} for v in (5, 6, 7)],
            "caption": ["a", "b", None],
            "Smiling": [0.95, 0.5, None],
            "expression": ["happiness", None, None],
            "person": ["x", "y", "z"],
        }
    )
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    spec = {"kind": "parquet", "path": tmp_path, "split": "train"}
    source = sources.open_source(spec)
    assert [grey(r) for r in source] == [5, 6, 7]
    assert [r.text for r in source] == ["a", "b", ""]
    assert source[0].expression == "happiness" and source[1].expression == ""
    assert source[2].labels is None and source[-1].identity == "z"
    assert grey(pickle.loads(pickle.dumps(source))[1]) == 6
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(UserError, match="no 'test-"):
        sources.open_source({**spec, "split": "test"})
    with pytest.raises(UserError, match="no column 'img'"):
        sources.open_source({**spec, "image_column": "img"})
    with pytest.raises(UserError, match="did you mean 'caption'.*set text_column"):
        sources.open_source({**spec, "text_column": "captoin"})
    happy = {"Happy": "expression=happiness"}
    source = sources.open_source({**spec, "classes": happy})
    assert [r.labels["Happy"] for r in source] == [1, 0, 0]
    assert source[0].labels["Smiling"] == 0.95
    with pytest.raises(UserError, match="no column 'label'; set classes"):
        sources.open_source({**spec, "classes": {"Happy": "label=happiness"}})


def test_celeba(tmp_path):
    folder = tmp_path / "img_align_celeba"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i:06d}.jpg").write_bytes(jpeg(40 + i))
    (tmp_path / "list_attr_celeba.txt").write_text(
        "3\nSmiling Male\n000000.jpg  1 -1\n000001.jpg -1 -1\n000002.jpg 1 1\n"
    )
    (tmp_path / "list_eval_partition.txt").write_text(
        "000000.jpg 0\n000001.jpg 2\n000002.jpg 0\n"
    )
    train = sources.open_source({"kind": "celeba", "path": tmp_path, "split": "train"})
    assert len(train) == 2 and grey(train[1]) == 42
    assert train[0].labels == {"Male": 0.0, "Smiling": 1.0}
    assert len(sources.CelebA(tmp_path)) == 3
    with pytest.raises(UserError, match="train, validation or test"):
        sources.CelebA(tmp_path, "dev")


def test_tfds_by_name(tmp_path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "attributes": {"Smiling": np.bool_},
                "text": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                yield (
                    i,
                    {
                        "image": io.BytesIO(jpeg(20 * i)),
                        "attributes": {"Smiling": i == 1},
                        "text": f"face {i}",
                    },
                )

    builder = Tiny(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    source = sources.open_source(
        {"kind": "tfds", "name": "tiny", "split": "train", "data_dir": str(tmp_path)}
    )
    found = {r.text: (grey(r), r.labels) for r in source}
    assert found["face 1"] == (20, {"Smiling": 1.0})
    assert found["face 2"] == (40, {"Smiling": 0.0})
    with pytest.raises(UserError, match="cannot be opened"):
        sources.open_source(
            {"kind": "tfds", "name": "no_such_set", "data_dir": str(tmp_path)}
        )


def test_mixture_keeps_proportions(photos):
    part = {"kind": "folder", "path": str(photos)}
    other = {"kind": "synthetic", "count": 3, "size": 32}
    mixed = sources.open_source(
        {"kind": "mixture", "sources": [part, other], "weights": [1, 3], "length": 20}
    )
    kinds = [r.source == "synthetic" for r in mixed]
    assert len(mixed) == 20 and sum(kinds) == 15
    assert sources.open_source(part | {"limit": 2})[1].source.endswith("/1.png")
    assert len(sources.open_source(part | {"limit": 2})) == 2
    with pytest.raises(UserError, match="weights"):
        sources.open_source({"kind": "mixture", "sources": [part], "weights": [1, 2]})
    with pytest.raises(UserError, match="no argument 'weight'.*'weights'"):
        sources.open_source({"kind": "mixture", "sources": [part], "weight": [1]})
    for empty in ({}, {"sources": []}):
        with pytest.raises(UserError, match="a mixture needs sources"):
            sources.open_source({"kind": "mixture", **empty})


def test_records_under_another_name(photos):
    part = {"kind": "folder", "path": str(photos)}
    spec = {"kind": "named", "source": part, "name": "street", "start": 2}
    named = sources.open_source(spec)
    assert [r.source for r in named] == ["street"] * 3
    assert [grey(r) for r in named] == [20, 30, 40]
    again = pickle.loads(pickle.dumps(named))
    assert grey(again[-1]) == 40 and sources.summaries(named) == sources.summaries(
        sources.open_source(part)
    )
    with pytest.raises(UserError, match="5 to None of 'street' are none; .* has 5"):
        sources.open_source(spec | {"start": 5})
    with pytest.raises(UserError, match="data source 'named'.*'source'"):
        sources.open_source({"kind": "named", "name": "x"})


def test_folds_keep_people_apart(photos):
    rows = ["file_name,identity"] + [f"{i}.png,{n}" for i, n in enumerate("aabcc")]
    (photos / "metadata.csv").write_text("\n".join(rows))
    part = {"kind": "folder", "path": str(photos)}

    def values(fold, **options):
        spec = {"kind": "fold", "source": part, "folds": 3, "fold": fold, **options}
        return [grey(record) for record in sources.open_source(spec)]

    assert [values(i, held_out=True) for i in range(3)] == [[0, 10], [30, 40], [20]]
    assert [values(i) for i in range(3)] == [[20, 30, 40], [0, 10, 20], [0, 10, 30, 40]]
    with pytest.raises(UserError, match="fold 3 of 3.*from 0"):
        values(3)
    with pytest.raises(UserError, match="4 folds of 3 people"):
        values(0, folds=4)


def test_a_source_is_cut_by_the_folds_of_another(tmp_path):
    """Whom one holds out, the other does not show."""

    def part(name, people):
        folder, rows = tmp_path / name, ["file_name,identity"]
        folder.mkdir(exist_ok=True)
        for i, person in enumerate(people):
            (folder / f"{i}.png").write_bytes(jpeg(10 * i))
            rows.append(f"{i}.png,{person}")
        (folder / "metadata.csv").write_text("\n".join(rows))
        return {"kind": "folder", "path": str(folder)}

    asked = part("asked", "aabcc")

    def values(fold, people="cabdd", **options):
        spec = {"kind": "fold", "source": part("other", people), "people_of": asked}
        spec |= {"folds": 3, "fold": fold, **options}
        return [grey(record) for record in sources.open_source(spec)]

    # The folds are those of `asked`: a, c and b.
    assert [values(i, held_out=True) for i in range(3)] == [[10], [0], [20]]
    wanted = [[0, 20, 30, 40], [10, 20, 30, 40], [0, 10, 30, 40]]
    assert [values(i) for i in range(3)] == wanted
    with pytest.raises(UserError, match="record 4 .* has no identity, and may show"):
        values(0, ("c", "a", "b", "d", ""))
    with pytest.raises(UserError, match="none of the 3 people .* among the 3 of"):
        values(0, "ddefd")


def test_further_columns_are_facts(photos, tmp_path):
    """A table as FairFace has it becomes text, the words of its columns as they are."""
    rows = "file_name,age,gender,race,service_test\n3.png,10-19,Female,East Asian,1\n"
    (photos / "metadata.csv").write_text(rows + "1.png,more than 70,,,0\n")
    spec = {"kind": "folder", "path": photos, "facts": ["age", "gender", "race"]}
    source = sources.open_source(spec)
    assert source[0].facts == {"age": "10-19", "gender": "Female", "race": "East Asian"}
    fairface = label_sets.TABLE["fairface"]
    assert [fairface.pairs(record) for record in source] == [
        [("age", "10-19"), ("gender", "female"), ("race", "east asian")],
        [("age", "more than 70")],
    ]
    assert "service_test" in source.summary() and "race" not in source.summary()
    with pytest.raises(UserError, match="no table.*'rase'.*did you mean 'ra"):
        sources.open_source(spec | {"facts": ["rase"]})
    table = pa.table({"image": [jpeg(3)], "race": ["White"]})
    pq.write_table(table, tmp_path / "x.parquet")
    spec = {"kind": "parquet", "path": str(tmp_path / "x.parquet")}
    assert sources.open_source(spec | {"facts": ["race"]})[0].facts == {"race": "White"}
    assert sources.open_source(spec)[0].facts == {}
    with pytest.raises(UserError, match="no column 'rase'.*set facts"):
        sources.open_source(spec | {"facts": ["rase"]})


def test_wrong_specs(tmp_path):
    with pytest.raises(UserError, match="did you mean 'folder'"):
        sources.open_source({"kind": "foldr", "path": "x"})
    with pytest.raises(UserError, match="does not exist"):
        sources.open_source({"kind": "folder", "path": tmp_path / "none"})
    with pytest.raises(UserError, match="holds no picture"):
        sources.open_source({"kind": "folder", "path": tmp_path})
    with pytest.raises(UserError, match="no argument 'pth'.*did you mean 'path'"):
        sources.open_source({"kind": "folder", "path": tmp_path, "pth": 1})
    with pytest.raises(UserError, match="data source 'folder': .*'path'"):
        sources.open_source({"kind": "folder"})
