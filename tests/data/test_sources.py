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
from gptface_jax.data import image, shards, sources
from gptface_jax.data.record import Record


def jpeg(value: int, size=16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def grey(record: Record) -> int:
    return int(image.decode(record.image)[0, 0, 0])


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
    with pytest.raises(UserError, match="'file_name'"):
        sources.open_source({"kind": "folder", "path": photos})


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
    writer = shards.Writer(tmp_path / "set", {"note": "x"}, shard_size=2)
    for record in records:
        writer.write(record)
    manifest = writer.finish()
    assert manifest["num_records"] == 5 and len(manifest["shards"]) == 3
    source = sources.open_source({"kind": "arrayrecord", "path": tmp_path / "set"})
    assert len(source) == 5
    for ours, theirs in zip(records, pickle.loads(pickle.dumps(source))):
        np.testing.assert_array_equal(image.decode(theirs.image), ours.image)
        np.testing.assert_array_equal(theirs.landmarks, ours.landmarks)
        np.testing.assert_array_equal(theirs.image_ids, ours.image_ids)
        assert theirs.text == ours.text and theirs.labels == ours.labels
    with pytest.raises(UserError, match="already holds"):
        shards.Writer(tmp_path / "set", {})


def test_token_cache_of_another_tokenizer_is_refused(tmp_path):
    writer = shards.Writer(tmp_path / "a", {"tokenizer_digest": "abc"})
    writer.write(Record(image_ids=np.zeros((2, 2), np.uint16)))
    writer.finish()
    spec = {"kind": "tokens", "path": tmp_path / "a"}
    assert len(sources.open_source(spec | {"tokenizer_digest": "abc"})) == 1
    with pytest.raises(UserError, match="made by tokenizer abc, not by xyz"):
        sources.open_source(spec | {"tokenizer_digest": "xyz"})
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(UserError, match="no finished set"):
        sources.open_source(spec)


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


def test_wrong_specs(tmp_path):
    with pytest.raises(UserError, match="did you mean 'folder'"):
        sources.open_source({"kind": "foldr", "path": "x"})
    with pytest.raises(UserError, match="does not exist"):
        sources.open_source({"kind": "folder", "path": tmp_path / "none"})
    with pytest.raises(UserError, match="holds no picture"):
        sources.open_source({"kind": "folder", "path": tmp_path})
    with pytest.raises(UserError, match="unexpected keyword"):
        sources.open_source({"kind": "folder", "path": tmp_path, "pth": 1})
