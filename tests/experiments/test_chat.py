"""Sequences that end in heads: made of records, completed in the step, and learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping, load_config, override
from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record
from gptface_jax.experiments import base, chat, facegpt, registry, token_data
from gptface_jax.systems.facegpt import spoken
from gptface_jax.systems.facegpt.coefficients import ENTRIES
from gptface_jax.train import settings, sharding

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """(model config, system of the answers alone, module, their records, texts)."""
    config = load_config("configs/facegpt/chat.py:tiny")
    config.data.train.update(photos={}, pairs={})
    data = base.data_config(config)
    tokenizer = chat._prepare(config, data, tmp_path_factory.mktemp("chat"))
    token_data.set_vocab(config, tokenizer)
    values = settings.plain(config)
    model = from_mapping(chat.ChatConfig, values["model"])
    objective = from_mapping(chat.ChatObjective, values["objective"])
    faces, _ = facegpt.parts(values, model, objective)["faces"]
    answers = chat._answers(values, model, objective, faces.feeds["rendered"].spec)
    found = facegpt.examples(data, tokenizer, model)
    records = chat.records_of(found.feeds["rendered"], tokenizer, model, data)
    return model, faces, answers, records, tokenizer


@pytest.fixture(scope="module")
def batch(experiment):
    *_, records, _ = experiment
    rng = np.random.default_rng(0)
    rows = [records.transform(records.source[i % 16], rng) for i in range(12)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_places_are_filled_in_their_order():
    tokens = jnp.array([[5, 9, 9, 6], [9, 5, 6, 9], [1, 2, 3, 4]])
    values = jnp.array([[1, 2], [3, 4], [7, 8]])
    found = chat.placed(tokens, tokens == 9, values)
    np.testing.assert_array_equal(found, [[5, 1, 2, 6], [3, 5, 6, 4], [1, 2, 3, 4]])


def test_sequences_ask_for_heads_and_end_in_them(experiment, batch):
    model, _, answers, _, tokenizer = experiment
    assert {*batch} == {*answers.feeds["answers"].spec}
    vocab, said = model.vocab, []
    for tokens, segments, scored in zip(
        batch["tokens"], batch["segment_ids"], batch["loss_mask"]
    ):
        prefix, target = tokens[segments == 1], tokens[segments == 2]
        prompt = tokenizer.decode(prefix[1 : np.argmax(prefix == vocab.sep_id)])
        assert (prefix >= vocab.text_size).sum() == 64  # a picture
        heads = target >= vocab.size
        assert heads.sum() == ("and head" in prompt) * 11 and target[-1] == vocab.sep_id
        text = tokenizer.decode(target[~heads])
        assert heads[-1 - heads.sum() : -1].all()  # behind the words
        if "attributes" in prompt:
            key, value = text.split(" : ") if " : " in text else text.split(": ")
            # The key is given, the value with all that follows is predicted.
            words = len(tokenizer.encode([value], 64)[0].nonzero()[0])
            assert scored.sum() == words + heads.sum() + 1
            assert key and value and ";" not in value
        else:
            assert scored.sum() == (segments == 2).sum()
        said.append(prompt)
    assert {*said} == {"to caption", "to caption and head", "to attributes",
                       "to attributes and head"}  # fmt: skip


def test_a_record_without_a_head_is_refused(experiment):
    *_, records, _ = experiment
    plain = Record(image=np.zeros((32, 32, 3), np.uint8), text="a man", source="mine")
    with pytest.raises(UserError, match="record of 'mine' holds no head"):
        records.transform(plain, np.random.default_rng(0))


@pytest.mark.slow
def test_answers_and_heads_are_learnt(experiment, batch):
    """Real steps: words and codes become likelier, and the head is the step's own."""
    model, faces, answers, _, _ = experiment
    params = sharding.unbox(jax.jit(faces.init)(KEY))
    (phase,) = answers.phases

    @jax.jit
    def step(params):
        def loss(params):
            value, (_, found) = phase.loss(
                params, {}, {}, {"answers": batch}, KEY, jnp.int32(0)
            )
            return value, found

        (_, found), slope = jax.value_and_grad(loss, has_aux=True)(params)
        moved = jax.tree.map(lambda p, g: p - 0.3 * g, params, slope)
        return moved, found, slope

    start, first, slope = step(params)
    for _ in range(8):
        start, last, _ = step(start)
    for name in ("text_nll", "face_nll"):
        before, after = (float(f[name][0] / f[name][1]) for f in (first, last))
        assert after < before - 0.05, name
    # 8 of 12 sequences end in a head of 11 tokens, and pictures are not predicted.
    heads = (batch["tokens"] >= model.vocab.size).any(1).sum()
    assert first["face_nll"][1] == 11 * heads > 0 == first["image_nll"][1]
    assert first["head_missed"][1] == heads >= first["head_missed"][0]
    # The codes are learnt as before: sequences only read them.
    flat = trees.flatten(slope)
    assert all((v == 0).all() for k, v in flat.items() if "face_codes/" in k)
    assert (flat["tokens/segment"][2] != 0).any()


@pytest.mark.slow
def test_codes_of_picture_and_head_are_put_in_the_step(experiment, batch):
    model, faces, *_ = experiment
    params = sharding.unbox(jax.jit(faces.init)(KEY))
    filled = jax.jit(chat._filling(model, None))(params, {}, batch)["tokens"]
    module = facegpt.GPTFaceWithFaces(model)
    coeffs = {e: batch[e] for e in ENTRIES.values()}
    heads = np.asarray(spoken.tokens_of(module, params, coeffs))
    for row, before, head, codes in zip(
        np.asarray(filled), batch["tokens"], heads, batch["image_ids"]
    ):
        image = (before >= model.vocab.text_size) & (before < model.vocab.size)
        np.testing.assert_array_equal(row[image] - model.vocab.text_size, codes)
        if (face := before >= model.vocab.size).any():
            np.testing.assert_array_equal(row[face], head)
        np.testing.assert_array_equal(row[~image & ~face], before[~image & ~face])


def test_heads_must_be_codes():
    config = load_config("configs/facegpt/chat.py:tiny")
    override(config, ["model.faces.scheme='grouped'", "model.vocab.face_tokens=5"])
    with pytest.raises(UserError, match="scheme is 'grouped'; answers end in heads of"):
        registry.make(config)
