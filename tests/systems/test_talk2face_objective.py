"""Loss of targets, by hand and by what must not change it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_talk2face as t2f

from gptface_jax.core.types import Phase
from gptface_jax.data import packing, sequences
from gptface_jax.ops import losses
from gptface_jax.systems import talk2face
from gptface_jax.systems.talk2face import objective
from gptface_jax.systems.talk2face.model import logits
from gptface_jax.systems.talk2face.objective import ObjectiveConfig
from gptface_jax.train.step import phase_gradients

IMAGE = [t2f.CODES + c for c in (3, 0, 7, 2)]
TASKS = ("image_to_caption", "caption_to_image")
KEY = jax.random.key(0)
DEFAULT = ObjectiveConfig()


def examples() -> dict[str, np.ndarray]:
    """An image whose caption is asked for, and a text whose image is."""
    length = t2f.config().length
    rows = [
        sequences.assemble([5], IMAGE, [6, 7], tiny.VOCAB, length, given=1),
        sequences.assemble([8], [9, 10], IMAGE, tiny.VOCAB, length),
    ]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return batch | {"task": np.arange(2, dtype=np.int32)}


def metrics_of(batch, options=DEFAULT):
    module, params = t2f.model()
    run = jax.jit(lambda p, b: objective.make_eval(module, options, TASKS)(
        p, {}, {}, b, KEY
    ))  # fmt: skip
    return {k: tuple(map(float, v)) for k, v in run(params, batch).items()}


def nll_of(batch, row: int, places) -> list[float]:
    """-log p of the tokens at these places, by the model itself."""
    module, params = t2f.model()
    said = logits(
        module.config, params, batch["tokens"][[row]], batch["segment_ids"][[row]]
    )
    said = jax.nn.log_softmax(said[0])
    return [-float(said[p - 1, batch["tokens"][row, p]]) for p in places]


def test_the_loss_is_that_of_the_targets():
    batch = examples()
    found = metrics_of(batch)
    # [CLS] 5 [SEP] i i i i [SEP] 6 7 [SEP], of which 6 is given
    text = nll_of(batch, 0, [9, 10])
    # [CLS] 8 [SEP] 9 10 [SEP] i i i i [SEP]
    image, end = nll_of(batch, 1, [6, 7, 8, 9]), nll_of(batch, 1, [10])
    for name, expected in (("image_nll", image), ("text_nll", text + end)):
        total, count = found[name]
        assert count == len(expected)
        np.testing.assert_allclose(total, sum(expected), atol=1e-4)
    for name, expected in (
        ("image_to_caption_nll", text),
        ("caption_to_image_nll", image + end),
    ):
        np.testing.assert_allclose(found[name], (sum(expected), len(expected)), 1e-5)
    pooled = sum(image + text + end) / 7
    np.testing.assert_allclose(found["loss"][0] / found["loss"][1], pooled, rtol=1e-5)


def test_microbatches_of_unequal_targets_have_the_gradient_of_the_batch():
    module, params = t2f.model()
    batch = {k: np.repeat(v, 2, axis=0) for k, v in examples().items()}
    batch["loss_mask"][0] &= np.arange(batch["tokens"].shape[1]) == 10  # one target
    phase = Phase("", ".*", objective.make_loss(module, DEFAULT))

    def gradient(batches, microbatches):
        found = phase_gradients(
            phase, params, {}, {}, {objective.FEED: batches}, KEY, 0, microbatches
        )
        return found[0], found[1]

    whole = jax.jit(lambda b: gradient(b, 1))(batch)
    parts = {k: v.reshape(2, 2, *v.shape[1:]) for k, v in batch.items()}
    split = jax.jit(lambda b: gradient(b, 2))(parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, split)


def test_separate_means():
    found = metrics_of(examples(), ObjectiveConfig(pooled=False, text_weight=0.5))
    image, text = (found[n][0] / found[n][1] for n in ("image_nll", "text_nll"))
    np.testing.assert_allclose(
        found["loss"][0] / found["loss"][1], image + 0.5 * text, rtol=1e-5
    )


def test_targets_of_the_prefix_do_not_count():
    """SPEC B.12: the loss knows the prefix as what is read, not as what is said."""
    batch = examples()
    assert not batch["loss_mask"][batch["segment_ids"] == 1].any()
    everything = metrics_of(batch, ObjectiveConfig(scored="all"))
    counts = everything["image_nll"][1] + everything["text_nll"][1]
    real = (batch["segment_ids"] > 0).sum(1)
    assert counts == (real - 1).sum()  # equation 1 as printed


def test_a_soft_target_takes_the_place_of_one_token():
    """With all its weight on one id it is that of this id."""
    batch = examples()
    plain = metrics_of(batch)
    batch |= {
        "soft_position": np.array([9, -1], np.int32),
        "soft_ids": np.array([[7, 11], [5, 5]], np.int32),
        "soft_weights": np.array([[1.0, 0.0], [0, 0]], np.float32),
    }
    np.testing.assert_allclose(
        metrics_of(batch)["text_nll"], plain["text_nll"], rtol=1e-5
    )
    batch["soft_weights"][0] = [0.25, 0.75]
    found = metrics_of(batch)["text_nll"][0] - plain["text_nll"][0]
    seven = nll_of(batch, 0, [9])[0]
    batch["tokens"][0, 9] = 11
    eleven = nll_of(batch, 0, [9])[0]
    np.testing.assert_allclose(found, 0.75 * (eleven - seven), atol=1e-4)


def test_the_loss_of_a_step_is_that_of_the_batch():
    config = {
        "model": dataclasses.asdict(t2f.config()),
        "objective": {},
        "batch_size": 2,
    }
    system = talk2face.make_system(config, tasks=TASKS)
    assert system.feeds["sequences"].size == 2
    batch = examples()
    _, params = t2f.model()
    loss = jax.jit(system.phases[0].loss)
    value, (_, metrics) = loss(params, {}, {}, {"sequences": batch}, KEY, 0)
    assert metrics["image_nll"][1] == 4 and metrics["text_nll"][1] == 3
    expected = metrics_of(batch)["loss"]
    np.testing.assert_allclose(value, expected[0] / expected[1], rtol=1e-5)


FORMS = {
    "absolute": {},
    "by_modality": {"positions": "by_modality", "cross_modal_heads": 1},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scored", objective.SCORED)
def test_packed_sequences_have_the_losses_of_unpacked_ones(form, scored):
    """Positions, attention and targets are those of each sequence alone."""
    module, params = t2f.model(**FORMS[form])
    batch = examples()
    del batch["task"]
    batch |= {
        "soft_position": np.array([9, -1], np.int32),
        "soft_ids": np.array([[7, 11], [5, 5]], np.int32),
        "soft_weights": np.array([[0.25, 0.75], [0, 0]], np.float32),
    }
    rows = [{name: values[i] for name, values in batch.items()} for i in (0, 1, 0)]
    packed = packing.pack(rows, packing.PackingOptions(length=36, sequences=3, rows=1))
    assert packed["sequence_ids"].max() == 2  # longer than the table of positions

    @jax.jit
    def found(batch):
        options = ObjectiveConfig(scored=scored)
        values = objective.token_metrics(module, options, params, batch)
        return {name: losses.masked_sum(*pair) for name, pair in values.items()}

    whole = {n: np.stack([row[n] for row in rows]) for n in rows[0]}
    for name, (total, count) in found(whole).items():
        np.testing.assert_allclose(
            found(packed)[name], (total, count), rtol=1e-5, err_msg=name
        )


def test_a_step_on_packed_rows():
    config = {
        "model": dataclasses.asdict(t2f.config()), "objective": {}, "batch_size": 2,
    }  # fmt: skip
    system = talk2face.make_system(config, soft_targets=2, packed=(36, 4))
    feed, batch = system.feeds["sequences"], examples()
    assert feed.spec["soft_ids"].shape == (4, 2) and "task" not in feed.spec
    rows = [{n: batch[n][i] for n in batch} for i in (0, 1)]
    packed = packing.pack(rows, packing.PackingOptions(36, 2, 1))
    assert {n: x.shape[1:] for n, x in packed.items()} == {
        n: x.shape for n, x in feed.spec.items() if not n.startswith("soft")
    }
    _, params = t2f.model()
    value, (_, metrics) = jax.jit(system.phases[0].loss)(
        params, {}, {}, {"sequences": packed}, KEY, 0
    )
    expected = metrics_of(batch)["loss"]
    np.testing.assert_allclose(value, expected[0] / expected[1], rtol=1e-5)
    assert tuple(map(float, metrics["sequences_per_row"])) == (2, 1)


def test_gradients_are_those_of_differences():
    module, params = t2f.model()
    batch = examples()
    loss = objective.make_loss(module, ObjectiveConfig())

    def value(params):
        return loss(params, {}, {}, {"sequences": batch}, KEY, 0)[0]

    slope = jax.jit(jax.grad(value))(params)["tokens"]["segment"]
    step = 1e-2 * jax.random.normal(KEY, slope.shape)

    def moved(sign):
        rows = params["tokens"]["segment"] + sign * step
        return value({**params, "tokens": {**params["tokens"], "segment": rows}})

    run = jax.jit(lambda: moved(1.0) - moved(-1.0))
    np.testing.assert_allclose(run() / 2, jnp.vdot(slope, step), rtol=2e-2)


def test_scored_is_one_of_two():
    with pytest.raises(ValueError, match="'some' is none of target, all"):
        ObjectiveConfig(scored="some")
