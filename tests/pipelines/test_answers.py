"""Answers of a sequence model: chances of closed questions, and what is written."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_vqgan
from flax import linen as nn

from gptface_jax.core.errors import UserError
from gptface_jax.data import label_templates
from gptface_jax.data.tasks import vocabulary_texts
from gptface_jax.data.text import TextTokenizer
from gptface_jax.nn.prefix_lm import PrefixLM, PrefixLMConfig
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.pipelines import answers, ranking, sequence_model
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.networks import Network
from gptface_jax.pipelines.sequence_model import (
    Learnt,
    SequenceModel,
    generate_options,
)
from gptface_jax.systems.talk2face.model import logits

SETS = {
    "toy": {
        "keys": {
            "gender": {"label": "Male", "values": ["female", "male"]},
            "age": {"kind": "integer", "label": "Age"},
            "mood": {"kind": "word", "values": ["calm", "merry", "very merry"]},
        }
    }
}
CONTENT = {"data_sets": SETS, "age_tokens": "word", "max_prefix": 20}


@pytest.fixture(scope="module")
def model():
    texts = vocabulary_texts(label_templates.from_mapping(SETS))
    tokenizer = TextTokenizer.train(50 * texts, 400)
    vqgan = tiny_vqgan.network()
    config = PrefixLMConfig(
        transformer=TransformerConfig(2, 16, 2, 24, "dense", init="fan_in"),
        vocab=tokenizer.joint_vocab(64),
        grid=(4, 4),
        length=48,
        max_positions=64,
        embedding_init=0.3,
    )
    module = PrefixLM(config)
    init = jax.jit(
        lambda key: module.init(key, np.zeros((1, 4), int), method="init_all")
    )
    params = nn.meta.unbox(init(jax.random.key(0))["params"])
    network = Network(module, params, "digest", {})
    return SequenceModel(
        network, ImageTokenizer(vqgan), tokenizer, Learnt.from_json(CONTENT)
    )


@pytest.fixture(scope="module")
def image_ids(model):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    return model.image_ids(pixels)


def said(model, prefix, text: str, given: str, end: str) -> float:
    """log p of a text and what ends it after what is given, token by token."""
    vocab = model.network.config.vocab
    start = [*prefix, *model.ids(given)]
    rest = [*model.ids(text), *(model.ids(end) if end else [vocab.sep_id])]
    tokens = np.array([[*start, *rest]], np.int32)
    segments = np.where(np.arange(tokens.shape[1]) < len(prefix), 1, 2)[None]
    found = logits(model.network.config, model.network.params, tokens, segments)
    found = np.array(found[0, :, : vocab.text_size])
    found[:, [i for i in vocab.special_ids if i != vocab.sep_id]] = -np.inf
    found = np.array(jax.nn.log_softmax(found))
    return sum(found[len(start) - 1 + i, t] for i, t in enumerate(rest))


@pytest.mark.slow
def test_chances_are_those_of_the_whole_texts(model, image_ids):
    """An answer is said and then ends: "merry" is not the start of another."""
    question = answers.found_question(model, "mood")
    found = answers.ask(model, image_ids, question)
    words = ("calm", "merry", "very merry")
    for ids, answer in zip(image_ids, found):
        prefix = model.image_prefix(answers.PROMPT, ids)
        scores = np.array(
            [
                np.logaddexp(
                    *(said(model, prefix, w, "toy mood:", e) for e in ("", ";"))
                )
                for w in words
            ]
        )
        chances = np.exp(scores) / np.exp(scores).sum()
        assert answer.value == answer.text == words[chances.argmax()]
        for word, chance in zip(words, chances):
            np.testing.assert_allclose(answer.probabilities[word], chance, atol=1e-4)
        np.testing.assert_allclose(answer.confidence, chances.max(), atol=1e-4)


def test_many_answers_are_scored_some_at_a_time(model, image_ids, monkeypatch):
    question = answers.found_question(model, "mood")
    together = answers.ask(model, image_ids, question)
    monkeypatch.setattr(sequence_model, "_SCORED_OF_ALL", 3 * 2 * 8)  # 6 in 3 parts
    apart = answers.ask(model, image_ids, question)
    for first, second in zip(together, apart):
        assert first.probabilities == pytest.approx(second.probabilities, abs=1e-5)


@pytest.mark.slow
def test_pictures_are_answered_one_by_one_alike(model, image_ids):
    question = answers.found_question(model, "gender")
    together = answers.ask(model, image_ids, question)
    alone = [answers.ask(model, image_ids[i : i + 1], question)[0] for i in range(3)]
    for first, second in zip(together, alone):
        assert first.value is second.value and first.value in (True, False)
        np.testing.assert_allclose(first.confidence, second.confidence, atol=1e-5)


def test_a_number_is_the_middle_of_what_is_believed(model, image_ids):
    question = answers.found_question(model, "age")
    assert len(answers.candidates_of(question)) == 120
    chances = np.zeros(120)
    chances[[20, 30, 90]] = [0.3, 0.3, 0.4]
    answer = answers._chosen(question, answers.candidates_of(question), chances)
    assert answer.value == 30 and answer.text == "30"
    assert list(answer.probabilities)[0] == "90"
    (real, *_) = answers.ask(model, image_ids, question)
    assert 0 <= real.value < 120


def test_a_prior_takes_away_what_is_said_of_nothing(model, image_ids):
    """Chances are divided by those of a grey picture, of which nothing is left."""
    question = answers.found_question(model, "mood")
    grey = model.image_ids(np.full((1, 16, 16, 3), 128, np.uint8))
    with_prior = answers.AskOptions(prior=True)
    (answer,) = answers.ask(model, grey, question, with_prior)
    np.testing.assert_allclose(list(answer.probabilities.values()), 1 / 3, atol=1e-5)
    ids = np.concatenate([image_ids[:1], grey])
    plain, nothing = (a.probabilities for a in answers.ask(model, ids, question))
    (answer,) = answers.ask(model, image_ids[:1], question, with_prior)
    ratios = {word: plain[word] / nothing[word] for word in plain}
    for word, chance in answer.probabilities.items():
        assert chance == pytest.approx(ratios[word] / sum(ratios.values()), rel=1e-3)


def test_a_mean_does_not_count_tokens_against_an_answer(model, image_ids):
    question = answers.found_question(model, "mood")
    (summed,) = answers.ask(model, image_ids[:1], question)
    by_mean = answers.AskOptions(score="mean")
    (mean,) = answers.ask(model, image_ids[:1], question, by_mean)
    prefix = model.image_prefix(answers.PROMPT, image_ids[0])
    powers = {}
    for word in summed.probabilities:
        ends = [said(model, prefix, word, "toy mood:", end) for end in ("", ";")]
        powers[word] = np.exp(np.logaddexp(*ends) / (len(model.ids(word)) + 1))
    assert len({len(model.ids(word)) for word in powers}) > 1
    for word, chance in mean.probabilities.items():
        assert chance == pytest.approx(powers[word] / sum(powers.values()), abs=1e-4)


def test_answers_that_are_written_are_not_weighed():
    with pytest.raises(UserError, match="'best' is unknown; use sum or mean"):
        answers.AskOptions(score="best")
    for wrong in ({"prior": True}, {"score": "mean"}):
        with pytest.raises(UserError, match="leave them out where the model writes"):
            answers.AskOptions(closed=False, **wrong)


def test_what_is_written_freely_may_mean_nothing(model, image_ids):
    question = answers.found_question(model, "gender")
    freely = answers.AskOptions(closed=False)
    for answer in answers.ask(model, image_ids, question, freely):
        assert answer.value == question.read(answer.text)
        assert 0 < answer.confidence <= 1 and answer.probabilities == {}
    nothing = answers.Answer("toy mood", "blue", None, 0.1)
    assert str(nothing) == "toy mood: 'blue' (no answer)  0.10"


def test_unknown_questions_are_named(model):
    with pytest.raises(UserError, match="did you mean 'gender'"):
        answers.found_question(model, "gendr")


def test_attention_lies_on_the_image(model, image_ids):
    prefix = model.image_prefix(answers.PROMPT, image_ids[0])
    found = model.attention_map(prefix, model.ids("toy mood:"))
    assert found.shape == (4, 4) and (found > 0).all()
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
    other = model.attention_map(prefix, model.ids("toy age:"))
    assert np.abs(found - other).max() > 1e-4


def test_prefixes_of_text_are_cut_with_a_note(model):
    short, notes = model.text_prefix("to image", "toy gender: male")
    assert short.shape == (20,) and notes == []
    long, notes = model.text_prefix("to image", "male " * 40)
    assert (long != 0).all() and long[-1] == model.tokenizer.sep_id
    (note,) = notes
    assert note.startswith("the text was cut to its first ")


def test_a_long_text_leaves_its_attributes(model, image_ids):
    """The text is cut, as in training, and what is asked for stays."""
    said, sep = "toy gender: male", model.tokenizer.sep_id
    behind = model.ids(f"; {said}")
    whole, notes = model.text_prefix("to image", "calm", said)
    wanted = model.text_prefix("to image", f"calm; {said}")[0]
    np.testing.assert_array_equal(whole, wanted)
    assert notes == []
    for prefix, notes in (
        model.text_prefix("to image", "merry " * 40, said),
        model.edit_prefix("to edit", image_ids[0], "merry " * 40, said),
    ):
        end = np.flatnonzero(prefix == sep)[-1]
        np.testing.assert_array_equal(prefix[end - len(behind) : end], behind)
        assert model.tokenizer.decode(prefix[:end]).count("merry") > 1
        assert notes[0].startswith("the text was cut to its first ")
    alone, notes = model.text_prefix("to image", "", said)
    assert notes == [] and model.tokenizer.decode(alone).endswith("toy gender : male")
    many = "; ".join([said] * 6)
    for text in ("", "merry"):
        with pytest.raises(UserError, match=r"the attributes are \d+ tokens.*fewer"):
            model.text_prefix("to image", text, many)


def test_a_kernel_of_another_device_is_not_needed(model, image_ids):
    """As trained on a TPU: lengths of prefixes are none that 128 divides."""
    config = model.network.config
    for kernel in ("splash", "cudnn"):
        layers = dataclasses.replace(config.transformer, attention=kernel)
        trained = PrefixLM(dataclasses.replace(config, transformer=layers))
        network = dataclasses.replace(model.network, module=trained)
        again = SequenceModel(network, model.vqgan, model.tokenizer, model.learnt)
        assert again.module == model.module  # compiled programs are shared
        assert again.network.config.transformer.attention == kernel
        question = answers.found_question(again, "gender")
        ours, theirs = (
            answers.ask(m, image_ids[:1], question)[0] for m in (model, again)
        )
        assert ours == theirs


def test_pictures_come_back_from_their_codes(model, image_ids):
    joint = model.network.config.vocab.image_to_joint(image_ids)
    assert model.pictures(joint).shape == (3, 16, 16, 3)


def test_networks_must_belong_together(model):
    config = dataclasses.replace(tiny_vqgan.CONFIG, codebook_size=32)
    vqgan = dataclasses.replace(
        tiny_vqgan.network(), module=type(tiny_vqgan.network().module)(config)
    )
    with pytest.raises(UserError, match="has 32 codes, the transformer 64"):
        SequenceModel(
            model.network, ImageTokenizer(vqgan), model.tokenizer, model.learnt
        )


def test_options_that_make_no_sense():
    with pytest.raises(UserError, match="top_p is 2"):
        generate_options({"top_p": 2})
    with pytest.raises(UserError, match="top_q"):
        generate_options({"top_q": 2})


def test_pictures_are_ranked_by_the_probability_of_what_is_wanted(model):
    """A sentence is scored as a caption, keys and values as attributes."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    wanted = {
        "very merry": ranking.by_probability(model, "image_to_caption"),
        "toy gender: male": ranking.by_probability(model, "image_to_attributes"),
    }
    found = ranking.scores(pixels, wanted)
    for score, ids in zip(found, model.image_ids(pixels)):
        by_hand = sum(
            said(model, model.image_prefix(prompt, ids), text, "", "")
            for prompt, text in zip(("to caption", "to attributes"), wanted)
        )
        assert score == pytest.approx(by_hand, abs=1e-3)
    assert found[0] != found[1]
