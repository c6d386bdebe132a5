"""Examples of the four tasks, read back from their ids."""

import dataclasses
import pickle

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import (
    composed,
    label_sets,
    label_templates,
    label_text,
    pipeline,
    sources,
    task_examples,
    tasks,
)
from gptface_jax.data.record import Record
from gptface_jax.data.task_examples import TaskOptions, TaskTransform
from gptface_jax.data.tasks import TASKS
from gptface_jax.data.text import TextTokenizer
from gptface_jax.data.transforms import CaptionOptions

TABLE = {n: label_sets.TABLE[n] for n in ("lfw", "faces", "studio", "street", "album")}
GRID, CODES, LENGTH = (2, 3), 8, 80
IDS = np.arange(6, dtype=np.uint16).reshape(GRID)
FACE = Record(
    image_ids=IDS,
    text="a woman with a hat",
    labels={"Male": 0.0, "Smiling": 1.0, "Wearing_Hat": 1.0, "Age": 31.0},
    source="lfw_attributes",
)
CRY = Record(image_ids=IDS, expression="sadness", source="faces")
OWN = CaptionOptions(from_labels=False)


@pytest.fixture(scope="module")
def tokenizer():
    texts = tasks.vocabulary_texts(TABLE, edits=True) + ["a woman with a hat"]
    return TextTokenizer.train(texts * 4, 900)


def _transform(tokenizer, task, length=LENGTH, **options):
    options = TaskOptions(**{"captions": OWN, **options})
    vocab = tokenizer.joint_vocab(CODES)
    return TaskTransform(task, tokenizer, vocab, length, options, TABLE)


def _parts(example, transform):
    """(prompt, prefix, target) as text, images as lists of codes."""
    tokens, segments = example["tokens"], example["segment_ids"]
    first = tokens[segments == 1]
    separators = np.flatnonzero(first == transform.vocab.sep_id)
    assert first[0] == transform.vocab.cls_id and separators[-1] == len(first) - 1
    target = tokens[segments == 2]
    assert target[-1] == transform.vocab.sep_id
    pieces = (first[1 : separators[0]], first[separators[0] + 1 : -1], target[:-1])

    def said(ids):
        if len(ids) and (ids >= transform.vocab.text_size).all():
            return (ids - transform.vocab.text_size).tolist()
        return transform.tokenizer.decode(ids)

    return tuple(map(said, pieces))


def test_each_task_by_hand(tokenizer):
    codes = list(range(6))
    wanted = {
        "image_to_caption": ("to caption", codes, FACE.text),
        "caption_to_image": ("to image", FACE.text, codes),
    }
    for number, task in enumerate(TASKS):
        transform = _transform(tokenizer, task, combined_fraction=0.0)
        example = transform(FACE, np.random.default_rng(0))
        assert example["task"] == number and example["task"].dtype == np.int32
        scored = example["segment_ids"] == 2
        np.testing.assert_array_equal(example["loss_mask"], scored)
        prompt, prefix, target = _parts(example, transform)
        if task in wanted:
            assert (prompt, prefix, target) == wanted[task]
            continue
        assert prompt == f"to {task.split('_to_')[1]}"
        text, image = (target, prefix) if task.startswith("image") else (prefix, target)
        assert image == codes
        reading = label_text.read(text, TABLE)
        truth = {"gender": False, "smiling": True, "wearing hat": True, "age": 31}
        assert reading.data_set == "lfw" and not reading.failures
        assert reading.values.items() <= truth.items() and reading.values


def test_drawing_depends_on_the_rng_alone(tokenizer):
    transform = _transform(tokenizer, "attributes_to_image", combined_fraction=0.5)
    again = pickle.loads(pickle.dumps(transform))
    texts = set()
    for seed in range(30):
        one, two = (t(FACE, np.random.default_rng(seed)) for t in (transform, again))
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
        texts.add(_parts(one, transform)[1])
    assert len(texts) > 15


@pytest.mark.parametrize("task", ["caption_to_image", "attributes_to_image"])
def test_captions_and_attributes_together(tokenizer, task):
    transform = _transform(tokenizer, task, combined_fraction=0.2)
    both = 0
    for seed in range(500):
        prefix = _parts(transform(FACE, np.random.default_rng(seed)), transform)[1]
        both += prefix.startswith(FACE.text + " ; lfw ")
    assert abs(both / 500 - 0.2) < 0.05
    # A record without the other one stays what it is.
    if task == "attributes_to_image":
        always = _transform(tokenizer, task, combined_fraction=1.0)
        prefix = _parts(always(CRY, np.random.default_rng(0)), always)[1]
        assert prefix == "faces expression : sadness"


def test_a_long_caption_leaves_room_for_attributes(tokenizer):
    long = dataclasses.replace(FACE, text=" ".join([FACE.text] * 30))
    for task in ("caption_to_image", "attributes_to_image"):
        transform = _transform(tokenizer, task, combined_fraction=1.0, max_prefix=40)
        for seed in range(20):
            example = transform(long, np.random.default_rng(seed))
            assert np.sum(example["segment_ids"] == 1) <= 40
            prefix = _parts(example, transform)[1]
            attributes = prefix[prefix.index("lfw") :]
            assert not label_text.read(attributes, TABLE).failures


def test_attributes_fit_the_length(tokenizer):
    scores = {name: 1.0 for name in label_sets.CELEBA_ATTRIBUTES}
    many = dataclasses.replace(FACE, labels=scores)
    task = "image_to_attributes"
    transform = _transform(tokenizer, task, length=30)
    counts = []
    for seed in range(50):
        example = transform(many, np.random.default_rng(seed))
        reading = label_text.read(_parts(example, transform)[2], TABLE)
        assert reading.values and not reading.failures
        counts.append(len(reading.values))
    assert max(counts) < 6
    with pytest.raises(UserError, match="not one attribute of data set 'lfw' fits"):
        _transform(tokenizer, task, length=12)(many, np.random.default_rng(0))


def test_a_given_key_is_not_predicted(tokenizer):
    transform = _transform(tokenizer, "image_to_attributes", given_fraction=1.0)
    example = transform(CRY, np.random.default_rng(0))
    predicted = example["tokens"][example["loss_mask"]]
    assert tokenizer.decode(predicted[:-1]) == "sadness"
    assert predicted[-1] == tokenizer.sep_id
    assert _parts(example, transform)[2] == "faces expression : sadness"


def test_of_given_keys_the_values_are_predicted_and_where_they_end(tokenizer):
    """Every ";" and the last [SEP] say that "3" is not the start of "31"."""
    many = dataclasses.replace(FACE, labels={"Male": 0.0, "Smiling": 1.0, "Age": 31.0})
    transform = _transform(
        tokenizer, "image_to_attributes", given_fraction=1.0, given_keys="all"
    )
    seen = set()
    for seed in range(12):
        example = transform(many, np.random.default_rng(seed))
        ids = example["tokens"][example["loss_mask"]]
        values = tokenizer.decode(ids[ids != tokenizer.sep_id]).split(" ; ")
        target = _parts(example, transform)[2]
        assert values == [pair.split(" : ")[1] for pair in target.split(" ; ")]
        assert ids[-1] == tokenizer.sep_id
        seen |= set(values)
    assert seen == {"female", "true", "31"}
    with pytest.raises(ValueError, match="given_keys 'none' is none of first, all"):
        TaskOptions(given_keys="none")


def test_names_of_data_sets_may_be_left_out(tokenizer):
    transform = _transform(
        tokenizer, "image_to_attributes", name_data_sets=False, given_fraction=1.0
    )
    example = transform(CRY, np.random.default_rng(0))
    assert _parts(example, transform)[2] == "expression : sadness"
    said = tokenizer.decode(example["tokens"][example["loss_mask"]][:-1])
    assert said == "sadness"


def test_an_edit_is_a_picture_and_a_sentence_then_the_other_picture(tokenizer):
    before = Record(image_ids=IDS, text="a woman with a hat")
    after = Record(image_ids=IDS[::-1].copy(), text="a woman")
    transform = _transform(tokenizer, "edit", length=40, edits=True)
    rng, seen = np.random.default_rng(0), []
    for _ in range(8):
        example = transform((before, after), rng)
        tokens, segments = example["tokens"], example["segment_ids"]
        codes = IDS.reshape(-1), IDS[::-1].reshape(-1)
        image = tokens >= transform.vocab.text_size
        forth = (
            tokens[image][: IDS.size] - transform.vocab.text_size == codes[0]
        ).all()
        first, second = codes if forth else codes[::-1]
        for segment, wanted in ((1, first), (2, second)):
            found = tokens[image & (segments == segment)] - transform.vocab.text_size
            np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(example["loss_mask"], segments == 2)
        words = tokenizer.decode(tokens[~image & (segments == 1)])
        said = "a woman" if forth else "a woman with a hat"
        assert words == f"to edit {said}"
        seen.append(forth)
    assert {*seen} == {True, False}
    alone = dataclasses.replace(before, text="")  # no words for the way back
    for _ in range(8):
        tokens = transform((alone, after), rng)["tokens"]
        found = tokens[tokens >= transform.vocab.text_size][IDS.size :]
        np.testing.assert_array_equal(found - transform.vocab.text_size, codes[1])
    with pytest.raises(UserError, match="the target holds an image of .* longer"):
        _transform(tokenizer, "edit", length=12, edits=True)((before, after), rng)


def test_pairs_serve_edits_alone(mixed):
    pair = [Record(image_ids=IDS, text="a man", source="synthetic_edits")] * 6
    whole = sources.Mixture([*mixed.sources, pair])
    found = tasks.task_sources(whole, OWN, TABLE, edits=True)
    assert [*found] == [*TASKS, "edit"] and len(found["edit"]) == 3
    assert found["edit"][2] == (pair[4], pair[5])
    without = tasks.task_sources(whole, OWN, TABLE)
    assert [*without] == [*TASKS]
    assert len(without["image_to_caption"]) == len(found["image_to_caption"])
    with pytest.raises(UserError, match="learns from pairs, and there are none; add"):
        tasks.task_sources(mixed, OWN, TABLE, edits=True)


def test_soft_targets_stand_at_the_age(tokenizer):
    transform = _transform(
        tokenizer, "image_to_attributes", age_tokens="ordinal", max_attributes=4
    )
    seen = set()
    for seed in range(40):
        example = transform(FACE, np.random.default_rng(seed))
        text = _parts(example, transform)[2]
        position, weights = int(example["soft_position"]), example["soft_weights"]
        seen.add("age" in text)
        if "age" not in text:
            assert position == -1 and not weights.any()
            continue
        assert tokenizer.decode([example["tokens"][position]]) == "31"
        assert example["loss_mask"][position]
        assert weights.sum() == pytest.approx(1) and weights.argmax() == 5
        numbers = [tokenizer.decode([i]) for i in example["soft_ids"]]
        assert numbers == [str(n) for n in range(26, 37)]
    assert seen == {True, False}
    other = _transform(tokenizer, "image_to_caption", age_tokens="ordinal")
    example = other(FACE, np.random.default_rng(0))
    assert example["soft_position"] == -1  # the same entries in every feed


def test_a_vocabulary_is_learnt_from_labels_as_they_are_written():
    texts = tasks.vocabulary_texts(label_sets.TABLE)
    said = [t for t in texts if ": " in t and ":  " not in t]
    assert len(said) > 1500 and len(set(texts)) == len(texts)
    for text in said:
        reading = label_text.read(text, label_sets.TABLE)
        assert len(reading.values) == 1 and not reading.failures, text
    assert "street age: 20-29" in texts and "to caption" in texts


def test_a_vocabulary_that_lacks_what_labels_need():
    small = TextTokenizer.train(["to attributes: lfw"] * 4, 64)
    transform = _transform(small, "image_to_attributes")
    with pytest.raises(UserError, match="cannot spell 'lfw .*vocabulary_texts"):
        transform(FACE, np.random.default_rng(0))
    with pytest.raises(UserError, match="cannot spell 'to image'"):
        _transform(small, "attributes_to_image")(FACE, np.random.default_rng(0))


def test_ages_that_are_no_token(tokenizer):
    small = TextTokenizer.train(["age 1 2 3 4 5 6 7 8 9 0"] * 4, 64)
    with pytest.raises(UserError, match="'ordinal' needs .* has no 10; use BERT's"):
        _transform(small, "image_to_attributes", age_tokens="ordinal")


@pytest.fixture
def mixed():
    """400 with attributes, 100 with expressions, 4 nobody knows."""
    number = [dataclasses.replace(FACE, identity=i) for i in range(400)]
    cries = [dataclasses.replace(CRY, identity=1000 + i) for i in range(100)]
    strangers = [dataclasses.replace(FACE, source="x", text="") for _ in range(4)]
    return sources.Mixture([number, cries, strangers])


def test_shares_within_a_task(mixed):
    """400^.5 : 100^.5 = 2 : 1, and everything is read in one pass."""
    said: dict = {}
    found = tasks.task_sources(mixed, OWN, TABLE, keys=said)
    assert set(found) == set(TASKS)
    assert said["faces"] == {"expression"} and "smiling" in said["lfw"]
    labelled = found["image_to_attributes"]
    assert labelled is found["attributes_to_image"]
    people = [labelled[i].identity for i in range(len(labelled))]
    from_faces = np.mean([p >= 1000 for p in people])
    assert from_faces == pytest.approx(1 / 3, abs=0.01)
    assert set(people) == {*range(400), *range(1000, 1100)}
    captioned = found["image_to_caption"]
    assert len(captioned) == 400 and captioned[7].identity == 7


def test_parts_of_one_data_set_are_drawn_as_before(mixed):
    """20 : 10 of ceil(100 * 30 / 10) + 2 = 602; a run goes on with the same records."""
    labelled = tasks.task_sources(mixed, OWN, TABLE)["image_to_attributes"]
    people = [labelled[i].identity for i in range(len(labelled))]
    wanted = [*range(400), 0, *(1000 + i % 100 for i in range(201))]
    assert people == wanted and labelled.weights == [20, 10]


def test_data_sets_of_one_part_have_their_shares(mixed):
    """One cache of both is drawn as the two; weights given to parts are kept."""
    together = [*mixed.sources[1], *mixed.sources[0]]
    apart = sources.Mixture([mixed.sources[1], mixed.sources[0]])
    for task in ("image_to_attributes", "image_to_caption"):
        one, two = (
            tasks.task_sources(source, OWN, TABLE)[task] for source in (together, apart)
        )
        assert [*one] == [*two]
    weighted = sources.Mixture([together, mixed.sources[1]], [1, 1])
    labelled = tasks.task_sources(weighted, OWN, TABLE)["image_to_attributes"]
    assert [r.identity for r in labelled][:500] == [r.identity for r in together]


def test_only_needed_tasks_must_have_records():
    needed = ("image_to_caption",)
    spoken = dataclasses.replace(FACE, labels=None)
    found = tasks.task_sources([spoken], OWN, TABLE, needed=needed)
    assert [*found] == ["image_to_caption", "caption_to_image"]
    # Others are served where they can be, such as in held-out data.
    found = tasks.task_sources([FACE], OWN, TABLE, edits=True, needed=needed)
    assert [*found] == [*TASKS]
    with pytest.raises(UserError, match="no record has caption, among 1 of 'faces'"):
        tasks.task_sources([CRY], OWN, TABLE, needed=needed)


def test_a_misspelt_label_is_told(caplog):
    own = {"keys": {"glad": "Smilng", "gender": "Male", "hat": "wears"}}
    own |= {"sources": "lfw_attributes"}
    table = label_templates.open_table({"mine": own})
    record = dataclasses.replace(FACE, facts={"wears": "true"})
    tasks.task_sources([record], OWN, table)
    (told,) = caplog.messages
    assert "label 'Smilng' (did you mean 'Smiling'?)" in told and "key 'glad'" in told


def test_given_weights_are_kept(mixed):
    weighted = sources.Mixture(mixed.sources, [1, 3, 5])
    found = tasks.task_sources(weighted, OWN, TABLE)
    labelled = found["image_to_attributes"]
    own = [labelled[i].source == "faces" for i in range(len(labelled))]
    assert np.mean(own) == pytest.approx(0.75, abs=0.01)


def test_a_task_without_records():
    with pytest.raises(UserError, match="no record has caption, among 1 of 'faces'"):
        tasks.task_sources([CRY], CaptionOptions(), TABLE)
    nobody = [dataclasses.replace(FACE, source="x")]
    with pytest.raises(UserError, match="no record has attributes, among 1 of 'x'"):
        tasks.task_sources(nobody, CaptionOptions(), TABLE)


def test_wrong_task_and_records(tokenizer):
    with pytest.raises(UserError, match="'image_to_captions' is unknown.*'image_to_c"):
        _transform(tokenizer, "image_to_captions")
    transform = _transform(tokenizer, "image_to_attributes")
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="'x' says nothing of the keys of a known"):
        transform(dataclasses.replace(FACE, source="x"), rng)
    with pytest.raises(UserError, match="holds no image ids; run"):
        transform(dataclasses.replace(FACE, image_ids=None), rng)


def _batches(tokenizer, mixed, start, count, size=8, turns=(), **options):
    source = tasks.interleaved(tasks.task_sources(mixed, OWN, TABLE), turns)
    vocab = tokenizer.joint_vocab(CODES)
    texts = TaskOptions(captions=OWN, turns=turns)
    transform = task_examples.all_tasks(tokenizer, vocab, LENGTH, texts, TABLE)
    feed = pipeline.Pipeline(source, transform, size, seed=3, **options).batches(start)
    found = [next(feed) for _ in range(count)]
    feed.close()
    return found


def test_batches_are_balanced_and_resume(tokenizer, mixed):
    """A batch of 4k holds k of each, and is the same from any step on."""
    batches = _batches(tokenizer, mixed, 0, 4)
    for batch in batches:
        assert batch["task"].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]
        assert batch["tokens"].shape == (8, LENGTH)
    (later,) = _batches(tokenizer, mixed, 3, 1)
    for name, value in later.items():
        np.testing.assert_array_equal(value, batches[3][name])
    assert not (batches[0]["tokens"] == batches[1]["tokens"]).all()


def test_rows_take_turns_as_told(tokenizer, mixed):
    turns = ("image_to_attributes", "image_to_attributes", "image_to_caption")
    (batch,) = _batches(tokenizer, mixed, 0, 1, size=9, turns=turns)
    assert batch["task"].tolist() == [2, 2, 0] * 3
    # Two turns of one task are not twice the same examples.
    assert (batch["tokens"][0] != batch["tokens"][1]).any()
    with pytest.raises(UserError, match="'edits' is unknown.*'edit'.*image_to_capt"):
        TaskOptions(turns=("edits",), edits=True)
    with pytest.raises(UserError, match="task 'edit' is unknown"):
        TaskOptions(turns=("edit",))


def test_processes_share_balanced_batches(tokenizer, mixed):
    (whole,) = _batches(tokenizer, mixed, 1, 1)
    for shard in (0, 1):
        (part,) = _batches(tokenizer, mixed, 1, 1, size=4, shard=shard, num_shards=2)
        for name, value in part.items():
            np.testing.assert_array_equal(value, whole[name][4 * shard :][:4])
    with pytest.raises(UserError, match="batch of 6 .* each of 4 parts.*multiple of 4"):
        _batches(tokenizer, mixed, 0, 1, size=6)


def test_workers_change_nothing(tokenizer, mixed):
    (alone,) = _batches(tokenizer, mixed, 0, 1)
    (helped,) = _batches(tokenizer, mixed, 0, 1, workers=1)
    for name, value in helped.items():
        np.testing.assert_array_equal(value, alone[name])


def test_each_part_is_read_whole_and_shuffled():
    """Two parts of 5 and 3: in ten turns one goes round twice, one three times."""
    parts = [
        [Record(identity=i) for i in range(n, n + k)] for n, k in ((0, 5), (10, 3))
    ]
    source = composed.Interleaved(parts)
    assert [(n, r.identity) for n, r in source][:8] == [
        (0, 0), (1, 10), (0, 1), (1, 11), (0, 2), (1, 12), (0, 3), (1, 10)
    ]  # fmt: skip
    assert len(source) == 10
    with pytest.raises(UserError, match="sources of \\[5, 0\\] records"):
        composed.Interleaved([parts[0], []])
    feed = pipeline.Pipeline(source, _identity, 2, seed=0).batches()
    drawn = np.array([next(feed)["identity"] for _ in range(15)])  # [15, 2]
    feed.close()
    for start in range(0, 15, 5):
        assert set(drawn[start : start + 5, 0]) == set(range(5))
    for start in range(0, 15, 3):
        assert set(drawn[start : start + 3, 1]) == {10, 11, 12}
    assert drawn[:5, 0].tolist() != drawn[5:10, 0].tolist()


def _identity(item, rng):
    return {"identity": np.int32(item[1].identity)}


def test_held_out_records_take_turns(tokenizer, mixed):
    source = tasks.interleaved(tasks.task_sources(mixed, OWN, TABLE))
    vocab = tokenizer.joint_vocab(CODES)
    transform = task_examples.all_tasks(
        tokenizer, vocab, LENGTH, TaskOptions(captions=OWN), TABLE
    )
    rows = pipeline.held_out_rows(20, 8)
    batches = pipeline.HeldOut(source, transform, rows)
    numbers = np.concatenate([batch["task"] for batch in batches])
    assert np.bincount(numbers).tolist() == [5, 5, 5, 5]
