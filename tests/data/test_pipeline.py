import collections
import dataclasses
import pickle
import types

import numpy as np
import pytest
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import composed, geometry, pipeline, sources, transforms
from gptface_jax.data.record import Record
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.data.text import TextTokenizer


class Numbers:
    """Records that only carry their number."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return Record(identity=index)


def number(record, rng):
    return {"id": np.int64(record.identity), "noise": rng.random()}


def run(count, **options):
    feed = pipeline.Pipeline(Numbers(20), number, 4, 7, **options)
    iterator = feed.batches(options.pop("start", 0))
    batches = [next(iterator) for _ in range(count)]
    iterator.close()
    return batches


def test_every_record_once_an_epoch_in_another_order():
    batches = run(10)
    first = np.concatenate([b["id"] for b in batches[:5]])
    second = np.concatenate([b["id"] for b in batches[5:]])
    assert sorted(first) == sorted(second) == list(range(20))
    assert list(first) != list(second)
    assert set(batches[0]["noise"]).isdisjoint(batches[5]["noise"])


def test_position_is_one_integer():
    whole = run(9)
    feed = pipeline.Pipeline(Numbers(20), number, 4, 7)
    tail = feed.batches(6)  # behind the end of the first epoch
    for expected in whole[6:]:
        batch = next(tail)
        np.testing.assert_array_equal(batch["id"], expected["id"])
        np.testing.assert_array_equal(batch["noise"], expected["noise"])
    tail.close()


def test_global_batches_do_not_depend_on_the_number_of_processes():
    whole = run(12)  # more than two epochs
    for processes in (2, 4):
        size = 4 // processes
        feeds = [
            pipeline.Pipeline(
                Numbers(20), number, size, 7, shard=i, num_shards=processes
            ).batches()
            for i in range(processes)
        ]
        for expected in whole:
            parts = [next(f) for f in feeds]
            assert noise_of(*parts) == noise_of(expected)  # row by row


def noise_of(*batches):
    """(id, noise) of every example."""
    return [pair for b in batches for pair in zip(b["id"], b["noise"])]


def test_draws_are_those_of_earlier_runs():
    batch = run(4)[3]
    assert batch["id"].tolist() == [5, 2, 4, 16]
    expected = [0.48800135, 0.64516587, 0.90814732, 0.02023076]
    np.testing.assert_allclose(batch["noise"], expected, atol=1e-8)


@pytest.mark.slow
def test_workers_give_the_same_batches():
    for ours, theirs in zip(run(6), run(6, workers=2)):
        np.testing.assert_array_equal(ours["id"], theirs["id"])
        np.testing.assert_array_equal(ours["noise"], theirs["noise"])


def test_an_empty_source_is_refused():
    with pytest.raises(UserError, match="holds 0 records"):
        pipeline.Pipeline(Numbers(0), number, 4, 0)


def test_held_out_is_the_same_at_every_call():
    rows = pipeline.held_out_rows(7, 4)
    first, again = (pipeline.HeldOut(Numbers(7), number, rows) for _ in range(2))
    assert [len(b["id"]) for b in first] == [4, 3]
    np.testing.assert_array_equal(first[1]["noise"], again[1]["noise"])


def test_held_out_batches_are_made_when_they_are_asked_for():
    made = []

    def example(record, rng):
        made.append(record.identity)
        return number(record, rng)

    rows = pipeline.held_out_rows(7, 4)
    batches = pipeline.HeldOut(
        Numbers(7), example, rows, more={"row": np.arange(10, 17)}, threads=2
    )
    assert not made and len(batches) == 2
    first = next(iter(batches))
    assert sorted(made) == [0, 1, 2, 3] == first["id"].tolist()
    assert [batch["row"].tolist() for batch in batches] == [
        [10, 11, 12, 13], [14, 15, 16],
    ]  # fmt: skip


def test_processes_share_the_held_out_batches_row_by_row():
    assert pipeline.held_out_rows(11, 4) == [range(0, 4), range(4, 8), range(8, 11)]
    shares = [pipeline.held_out_rows(11, 4, shard, 2) for shard in (0, 1)]
    assert shares[0] == [range(0, 2), range(4, 6), range(8, 9)]
    assert shares[1] == [range(2, 4), range(6, 8), range(9, 10)]
    # One record cannot be shared by two.
    assert pipeline.held_out_rows(5, 4, 1, 2) == [range(2, 4)]
    # Nor three, or six, by two processes of two devices each.
    assert pipeline.held_out_rows(7, 4, 1, 2, ways=4) == [range(2, 4)]
    assert pipeline.held_out_rows(14, 8, 1, 2, ways=4) == [range(4, 8), range(10, 12)]
    assert pipeline.held_out_rows(7, 4, ways=4) == [range(0, 4), range(4, 7)]


@pytest.fixture(scope="module")
def tokenizer():
    faces = SyntheticFaces(size=32, count=40)
    return TextTokenizer.train([faces[i].text for i in range(40)] * 5, 300)


def test_image_and_label_transforms():
    face = SyntheticFaces(size=32, count=4)[1]
    rng = np.random.default_rng(0)
    example = transforms.ImageTransform(32, flip=False)(face, rng)
    assert example["image"].shape == (32, 32, 3)
    np.testing.assert_allclose((example["image"] + 1) * 127.5, face.image, atol=1e-3)
    labels = {"Smiling": 0.95, "Male": 0.05, "Young": 0.5}
    record = Record(image=face.image, labels=labels)
    names = ("Smiling", "Male", "Young", "Bald")
    example = transforms.LabelTransform(16, names)(record, rng)
    assert example["labels"].tolist() == [1, 0, 0, 0]
    assert example["label_mask"].tolist() == [1, 1, 0, 0]
    with pytest.raises(UserError, match="holds no picture"):
        transforms.ImageTransform(8)(Record(), rng)


def test_landmarks_go_through_the_same_geometry():
    """Marked pixels are found again where the points say, cropped and mirrored."""
    picture = np.zeros((40, 60, 3), np.uint8)
    points = np.full((68, 2), 30.0, np.float32)
    left, right, cut = (22, 12), (40, 15), (2, 20)
    points[36], points[45], points[0] = left, right, cut
    picture[left[1], left[0]], picture[right[1], right[0]] = (250, 0, 0), (0, 250, 0)
    record = Record(image=picture, landmarks=points)

    def place(example, channel):
        row, column = divmod(int(example["image"][..., channel].argmax()), 40)
        return (column + 0.5) / 40, (row + 0.5) / 40

    transform = transforms.ImageTransform(40, landmarks=True)
    seen = set()
    for seed in range(8):
        example = transform(record, np.random.default_rng(seed))
        found = example["landmarks"]
        assert found.shape == (68, 2) and found.dtype == np.float32
        mirrored = place(example, 0)[0] > 0.5
        seen.add(mirrored)
        # The point that is the left eye's in the picture is so in its mirror too.
        for number, channel in ((36, 0), (45, 1)):
            np.testing.assert_allclose(
                found[number], place(example, 1 - channel if mirrored else channel)
            )
        assert found[16 if mirrored else 0][0] == pytest.approx(
            (1 + 7.5 / 40) if mirrored else -7.5 / 40
        )
        plain = transforms.ImageTransform(40)(record, np.random.default_rng(seed))
        np.testing.assert_array_equal(plain["image"], example["image"])
        assert set(plain) == {"image"}
    assert seen == {False, True}


def test_records_without_landmarks_have_none(tokenizer):
    rng = np.random.default_rng(0)
    transform = transforms.ImageTransform(16, landmarks=True)
    example = transform(Record(image=np.zeros((8, 8, 3), np.uint8)), rng)
    assert np.isnan(example["landmarks"]).all()
    five = Record(image=np.zeros((8, 8, 3), np.uint8), landmarks=np.zeros((5, 2)))
    with pytest.raises(UserError, match=r"landmarks \[5, 2\].*68 iBUG"):
        transform(five, rng)


def test_points_of_a_mirrored_face():
    """Of a drawn face the order stays what it says."""
    face = SyntheticFaces(size=64, count=1)[0]
    mirror = geometry.mirrored(face)
    for one in (face, mirror):
        x, y = one.landmarks.T
        assert x[0] < x[16] and x[17] < x[26] and x[36] < x[39] < x[42] < x[45]
        assert x[48] < x[54] and x[60] < x[64] and x[31] < x[35] and y[27] < y[30]
        assert x[0] < x[6] < x[8] < x[10] and (np.diff(x[48:55]) > 0).all()
        assert y[57] > y[51] and y[66] > y[62] and y[41] > y[37] and y[46] > y[44]


def test_a_damaged_picture_is_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.jpg")
    data = (tmp_path / "good.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    cut, good = sources.Folder(tmp_path)
    rng = np.random.default_rng(0)
    for transform in (
        transforms.ImageTransform(16),
        transforms.LabelTransform(16, ("Smiling",)),
        transforms.WithPalette(transforms.PaletteIds((), (2, 2), 3), number),
    ):
        with pytest.raises(UserError, match="cut.jpg': .*damaged"):
            transform(cut, rng)
    assert transforms.decode_picture(good).shape == (64, 64, 3)


def test_softened_pictures_lose_detail_inside_a_rectangle_only():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    for seed in range(20):
        soft = transforms._soften(noise, np.random.default_rng(seed))
        changed = (soft != noise).any(-1)
        if not changed.any():
            continue  # drawn at a factor of 1
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert changed[box].mean() > 0.9
        assert changed[box].sum() == changed.sum()
        assert soft[box].std() < noise[box].std()


def test_negatives_never_equal_the_text(tokenizer):
    # "7" is no known piece: two texts of the same ids count as equal too.
    texts = ("a man smiling", "a woman", "a man  Smiling", "a man 7", "a man 8")
    faces = [Record(text=t) for t in texts]
    options = transforms.CaptionOptions(from_labels=False)
    transform = transforms.TokenTransform(tokenizer, 12, faces, options)
    seen = collections.Counter()
    for i in range(60):
        text = "A man smiling" if i % 2 else "a man 9"
        record = Record(text=text, image_ids=np.zeros((2, 2), np.uint16))
        example = transform(record, np.random.default_rng(i))
        assert (example["text_ids"] != example["negative_ids"]).any()
        seen[tokenizer.decode(example["negative_ids"])] += 1
    assert seen["a woman"] > 10


def test_negatives_come_from_the_same_data_set(tokenizer):
    pool = [Record(text="a man", source="one/1.jpg")] * 30
    pool += [Record(text="a woman smiling", source="two/7.jpg")]
    pool += [Record(text="a woman", source="two/8.jpg")]
    options = transforms.CaptionOptions(from_labels=False)
    transform = transforms.TokenTransform(tokenizer, 12, pool, options)
    record = Record(
        text="a woman", source="two/9.jpg", image_ids=np.zeros((2, 2), np.uint16)
    )
    for i in range(10):
        example = transform(record, np.random.default_rng(i))
        assert tokenizer.decode(example["negative_ids"]) == "a woman smiling"


def test_negatives_of_a_small_part_of_a_mixture_are_its_own(tokenizer):
    many = [Record(text="a man", source=f"one/{i}") for i in range(5000)]
    few = [Record(text=t, source="two/1") for t in ("a woman", "a woman smiling")]
    pool = composed.Mixture([many, composed.Mixture([few, many[:10]])])
    assert composed.parts(pool) == [
        range(5000), range(5000, 5002), range(5002, 5012)
    ]  # fmt: skip
    # Filled by less than a pass, or more: the records are where they are read.
    half = composed.Mixture([many[:10], few], weights=[1, 1])
    assert composed.parts(half) == [range(6), range(6, 12)]
    options = transforms.CaptionOptions(from_labels=False)
    transform = transforms.TokenTransform(tokenizer, 12, pool, options)
    record = dataclasses.replace(few[0], image_ids=np.zeros((2, 2), np.uint16))
    for i in range(20):
        example = transform(record, np.random.default_rng(i))
        assert tokenizer.decode(example["negative_ids"]) == "a woman smiling"
    again = pickle.loads(pickle.dumps(transform))
    assert again(record, np.random.default_rng(0)).keys() == example.keys()


def test_a_picture_without_a_text_gets_none(tokenizer):
    pool = [Record(), Record(text="a man"), Record()]
    for options in (
        transforms.CaptionOptions(), transforms.CaptionOptions(from_labels=False)
    ):  # fmt: skip
        assert options.text(Record(), np.random.default_rng(0)) == ""
        transform = transforms.TokenTransform(tokenizer, 12, pool, options)
        ids = np.zeros((2, 2), np.uint16)
        example = transform(Record(image_ids=ids), np.random.default_rng(0))
        for name in ("text_ids", "negative_ids", "word_ids"):
            assert (example[name] == tokenizer.pad_id).all()
        # Nor is one the mismatch of another picture.
        record = Record(text="a woman", image_ids=ids)
        for i in range(5):
            example = transform(record, np.random.default_rng(i))
            assert tokenizer.decode(example["negative_ids"]) == "a man"


def test_token_transform_shapes_and_empty_texts(tokenizer):
    faces = SyntheticFaces(size=32, count=16)
    palette = transforms.PaletteIds(faces, (4, 4), 3)
    record = palette[0]
    assert record.image_ids.shape == (4, 4) and record.image_ids.max() < 27
    options = transforms.CaptionOptions(hard_fraction=0.5, empty_fraction=0.5)
    transform = transforms.TokenTransform(tokenizer, 20, faces, options)
    empty = 0
    for i in range(40):
        example = transform(record, np.random.default_rng(i))
        assert example["image_ids"].shape == (16,)
        assert example["text_ids"].shape == example["negative_ids"].shape == (20,)
        if (example["text_ids"] == tokenizer.pad_id).all():
            assert (example["negative_ids"] == tokenizer.pad_id).all()
            empty += 1
    assert 8 < empty < 32
    with pytest.raises(UserError, match="gptface tokenize"):
        transform(faces[0], np.random.default_rng(0))


def test_palette_by_hand():
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[:8, 8:] = (255, 0, 130)
    ids = transforms.PaletteIds([Record(image=picture)], (2, 2), 3)[0].image_ids
    assert ids.tolist() == [[0, 2 * 9 + 0 * 3 + 1], [0, 0]]
    assert transforms.palette_levels(64) == 4
    with pytest.raises(UserError, match="need a cube"):
        transforms.palette_levels(100)


def test_packed_rows_take_turns_that_do_not_divide_them(monkeypatch):
    """Three sources, 8 sequences in two rows: each place is of its own source."""

    def stream(number):
        def examples(places):
            return ({"place": np.array([number, place])} for place in places)

        return types.SimpleNamespace(examples=examples)

    def pack(rows, packing):
        return {"place": np.stack([row["place"] for row in rows])}

    monkeypatch.setattr(pipeline, "pack", pack)
    packing = types.SimpleNamespace(rows=2, examples=4)
    batch = pipeline._Batch([stream(n) for n in range(3)], 4, 0, 1, packing)
    for number in range(3):
        places = range(8 * number, 8 * number + 8)
        found = batch(number)["place"].tolist()
        assert found == [[place % 3, place // 3] for place in places]
