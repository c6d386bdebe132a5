import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from compiled import apply
from flax import linen as nn

from gptface_jax.nn import backbone
from gptface_jax.nn.tokens import with_codebook
from gptface_jax.ops import losses
from gptface_jax.systems.gptface import corruption as C
from gptface_jax.systems.gptface import held_out, make_system, model
from gptface_jax.systems.gptface import objective as O
from gptface_jax.systems.gptface.objective import ObjectiveConfig

KEY = jax.random.key(0)
CONFIG = tiny.config()
PAPER = ObjectiveConfig(
    ratio_schedule="rescaled", clean_fraction=0.0, span_fraction=1.0, pooled=True
)


DEFAULT = ObjectiveConfig()
_corrupt = jax.jit(C.corrupt, static_argnums=(0, 1))
_masked_metrics = jax.jit(O.masked_metrics, static_argnums=(0, 4))


def corrupted(objective=DEFAULT, size=64, ratio=0.5, data=None, key=KEY):
    data = tiny.batch(size) if data is None else data
    return data, _corrupt(CONFIG, objective, data, jnp.full((size,), ratio), key)


def test_masked_positions_hold_mask_and_nothing_else_changes():
    data, c = corrupted()
    tokens, targets, masked = (np.asarray(x) for x in (c.tokens, c.targets, c.masked))
    assert (tokens[masked] == tiny.VOCAB.mask_id).all()
    np.testing.assert_array_equal(tokens[~masked], targets[~masked])
    assert not masked[:, [0, 13]].any()  # [CLS], [SEP]
    assert not (masked & (targets == tiny.VOCAB.pad_id)).any()
    assert (masked[:, 1:13].sum(1) == 6).all()
    np.testing.assert_array_equal(targets[:, 1:13], data["image_ids"] + 13)
    words = (targets[:, 14:] != 0).sum(1)
    expected = np.maximum(1, np.round(0.2 * words))
    np.testing.assert_array_equal(masked[:, 14:].sum(1), expected)


def test_half_of_the_texts_are_replaced_and_labelled():
    data, c = corrupted(size=2000)
    texts, labels = np.asarray(c.targets)[:, 14:], np.asarray(c.itm_labels)
    own = (texts == data["text_ids"]).all(1)
    other = (texts == data["negative_ids"]).all(1)
    assert own[labels == 1].all() and other[labels == 0].all()
    assert 0.45 < labels.mean() < 0.55
    same = {**data, "negative_ids": data["text_ids"]}
    _, c = corrupted(size=2000, data=same)
    assert (c.itm_labels == 1).all()


def test_pairs_show_every_picture_with_both_texts():
    data = tiny.batch(6)
    c = _corrupt(CONFIG, ObjectiveConfig(paired=True), data, jnp.full((12,), 0.5), KEY)
    texts = np.asarray(c.targets)[:, 14:]
    np.testing.assert_array_equal(texts[:6], data["text_ids"])
    np.testing.assert_array_equal(texts[6:], data["negative_ids"])
    np.testing.assert_array_equal(c.targets[:6, :13], c.targets[6:, :13])
    assert c.itm_labels.tolist() == [1] * 6 + [0] * 6


def test_matching_starts_alone():
    module, params = tiny.model()
    objective = ObjectiveConfig(paired=True, matching_alone=0.5, unknown_fraction=0.0)
    loss = jax.jit(O.make_loss(module, objective, 10))
    for step, matching, masked in ((4, 16, False), (5, 0, True)):
        _, (_, metrics) = loss(
            params, {}, {}, {"pairs": tiny.batch(8)}, KEY, jnp.int32(step)
        )
        assert metrics["itm_loss"][1] == matching
        assert bool(metrics["image_nll"][1]) == bool(metrics["text_nll"][1]) == masked


def test_the_told_get_their_own_text_back():
    objective = ObjectiveConfig(paired=True, told_negatives=0.0)
    data = tiny.batch(200)
    c = _corrupt(CONFIG, objective, data, jnp.full((400,), 0.5), KEY)
    told = np.asarray(c.match) != model.UNKNOWN
    labels = np.asarray(c.itm_labels)
    assert (np.asarray(c.match)[told] == model.MATCHED).all() and labels[told].all()
    assert 60 < told[200:].sum() < 140
    swapped = labels[200:] == 0
    differs = (data["text_ids"] != data["negative_ids"]).any(1)
    np.testing.assert_array_equal(swapped, ~told[200:] & differs)
    texts = np.asarray(c.targets)[200:, 14:]
    np.testing.assert_array_equal(texts[~swapped], data["text_ids"][~swapped])
    np.testing.assert_array_equal(texts[swapped], data["negative_ids"][swapped])


def test_hidden_negatives_are_scored_only_if_asked():
    for objective, expected in (
        (ObjectiveConfig(paired=True, told_negatives=0.5), "all"),
        (ObjectiveConfig(paired=True, told_negatives=0.5, hidden_negatives=False), ""),
    ):
        c = _corrupt(CONFIG, objective, tiny.batch(100), jnp.full((200,), 0.5), KEY)
        swapped = (np.asarray(c.itm_labels) == 0) & (np.asarray(c.match) == 0)
        assert 20 < swapped.sum() < 80
        told = np.asarray(c.match) == model.MISMATCHED
        assert told.any() and np.asarray(c.scored)[told].all()
        scored = np.ones(200, bool) if expected else ~swapped
        np.testing.assert_array_equal(c.scored, scored)
        module, params = tiny.model()
        hidden = apply(module, {"params": params}, c.tokens, c.match)
        budget = C.budgets(CONFIG, objective)
        metrics = _masked_metrics(module, params, hidden, c, budget)
        for name, where in (("image", slice(1, 13)), ("text", slice(14, 19))):
            masked = np.asarray(c.masked)[scored][:, where]
            assert metrics[f"{name}_nll"][1] == masked.sum()


def test_some_texts_stay_whole_if_asked():
    objective = ObjectiveConfig(text_fraction=0.25)
    _, c = corrupted(objective, size=1000)
    masked = np.asarray(c.masked)
    assert 0.2 < masked[:, 14:].any(1).mean() < 0.3
    assert (masked[:, 1:13].sum(1) == 6).all()


def test_permuting_captions_changes_labels_only_where_the_text_differs():
    data = tiny.batch(6)
    data["text_ids"][3] = data["text_ids"][0]
    order = np.array([3, 1, 2, 0, 5, 4])
    permuted = {**data, "negative_ids": data["text_ids"][order]}
    always = ObjectiveConfig(negative_fraction=1.0)
    _, c = corrupted(always, 6, data=permuted)
    differs = (data["text_ids"] != data["text_ids"][order]).any(1)
    np.testing.assert_array_equal(np.asarray(c.itm_labels), 1 - differs)


def test_match_rows_tell_the_truth_or_nothing():
    _, c = corrupted(size=2000)
    match, labels = np.asarray(c.match), np.asarray(c.itm_labels)
    told = match != model.UNKNOWN
    assert 0.45 < told.mean() < 0.55
    np.testing.assert_array_equal(match[told] == model.MATCHED, labels[told] == 1)
    without = tiny.config(match_token=False)
    c = _corrupt(without, PAPER, tiny.batch(50), jnp.full((50,), 0.3), KEY)
    assert (c.match == model.UNKNOWN).all()


def test_ratios_follow_their_schedules():
    def ratios(step, total=1000, size=4000, **options):
        objective = ObjectiveConfig(**options)
        return np.asarray(C.image_ratios(objective, size, step, total, KEY))

    plain = {"clean_fraction": 0.0}
    np.testing.assert_allclose(ratios(0, ratio_schedule="paper", **plain), 0.15)
    late = ratios(40_000, total=10**6, ratio_schedule="paper", **plain)
    np.testing.assert_allclose(late, 0.17, rtol=1e-5)
    half = ratios(500, ratio_schedule="rescaled", **plain)
    np.testing.assert_allclose(half, 0.40, rtol=1e-5)
    wide = ratios(799, ratio_schedule="wide", **plain)
    assert np.ptp(wide) == 0
    wide = ratios(800, ratio_schedule="wide", wide_range=(0.1, 1.0), **plain)
    assert wide.min() < 0.12 and wide.max() > 0.98 and abs(wide.mean() - 0.55) < 0.02
    clean = ratios(0, ratio_schedule="rescaled", clean_fraction=0.25)
    assert abs((clean == 0).mean() - 0.25) < 0.03
    with pytest.raises(ValueError, match="'fast'"):
        ObjectiveConfig(ratio_schedule="fast")


def test_the_gathered_loss_is_the_full_softmax():
    module, params = tiny.model()
    _, c = corrupted(size=8, ratio=0.6)
    hidden = apply(module, {"params": params}, c.tokens, c.match)
    budget = C.budgets(CONFIG, ObjectiveConfig())
    metrics = _masked_metrics(module, params, hidden, c, budget)
    logits = apply(module, {"params": params}, hidden, method="token_logits")
    # One shared softmax; three rows of the table have no id.
    assert logits.shape[-1] == 24 and (np.asarray(logits)[..., 21:] < -1e29).all()
    nll = losses.cross_entropy(logits, c.targets)
    for name, where in (("image", slice(1, 13)), ("text", slice(14, 19))):
        mask = np.asarray(c.masked)[:, where]
        expected = np.asarray(nll)[:, where][mask]
        total, count = metrics[f"{name}_nll"]
        assert count == mask.sum()
        np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)


def test_pooled_and_separate_means_by_hand():
    module, params = tiny.model(match_token=False)
    data = tiny.batch(16)
    parts = {}
    for pooled in (True, False):
        objective = ObjectiveConfig(
            ratio_schedule="rescaled", clean_fraction=0.0, pooled=pooled
        )
        loss_fn = jax.jit(O.make_loss(module, objective, 100))
        loss, (_, metrics) = loss_fn(
            params, {}, {}, {"pairs": data}, KEY, jnp.int32(50)
        )
        parts[pooled] = (
            float(loss),
            {k: (float(a), float(b)) for k, (a, b) in metrics.items()},
        )
    loss, metrics = parts[True]
    image, text, itm = (metrics[k] for k in ("image_nll", "text_nll", "itm_loss"))
    both = (image[0] + text[0]) / (image[1] + text[1])
    assert loss == pytest.approx(both + itm[0] / itm[1], rel=1e-5)
    apart = image[0] / image[1] + text[0] / text[1] + itm[0] / itm[1]
    assert parts[False][0] == pytest.approx(apart, rel=1e-5)
    assert itm[1] == 16


def test_matching_alone_masks_no_word_and_counts_nothing_else():
    module, params = tiny.model(match_token=False)
    objective = ObjectiveConfig(
        ratio_schedule="rescaled",
        clean_fraction=1.0,
        text_ratio=0.0,
        pooled=True,
        image_weight=0.0,
        text_weight=0.0,
        itm_weight=2.0,
    )
    loss_fn = jax.jit(O.make_loss(module, objective, 100))
    loss, (_, metrics) = loss_fn(
        params, {}, {}, {"pairs": tiny.batch(16)}, KEY, jnp.int32(50)
    )
    assert metrics["text_nll"][1] == metrics["image_nll"][1] == 0
    itm = float(losses.mean(metrics["itm_loss"]))
    assert float(loss) == pytest.approx(2 * itm, rel=1e-6) and itm > 0


@pytest.mark.parametrize("pooled", [True, False])
def test_weights_of_the_masked_losses(pooled):
    module, params = tiny.model(match_token=False)

    def evaluate(image_weight, text_weight):
        objective = ObjectiveConfig(
            pooled=pooled, image_weight=image_weight, text_weight=text_weight
        )
        loss_fn = jax.jit(O.make_loss(module, objective, 100))
        loss, (_, m) = loss_fn(
            params, {}, {}, {"pairs": tiny.batch(16)}, KEY, jnp.int32(50)
        )
        return float(loss) - float(losses.mean(m["itm_loss"])), m

    only_text, metrics = evaluate(0.0, 1.0)
    expected = losses.mean(metrics["text_nll"])
    assert only_text == pytest.approx(float(expected), rel=1e-5)


def test_matching_is_scored_on_unknown_examples_with_a_text():
    module, params = tiny.model()
    data = tiny.batch(64)
    data["text_ids"][:20] = data["negative_ids"][:20] = tiny.VOCAB.pad_id
    objective = ObjectiveConfig(unknown_fraction=1.0)
    loss_fn = jax.jit(O.make_loss(module, objective, 10))
    _, (_, metrics) = loss_fn(params, {}, {}, {"pairs": data}, KEY, jnp.int32(0))
    assert metrics["itm_loss"][1] == 44
    assert metrics["text_nll"][1] > 0 and np.isfinite(metrics["text_nll"][0])


@pytest.mark.slow
def test_contrastive_term_ends():
    module, params = tiny.model(contrastive_width=8)
    objective = ObjectiveConfig(contrastive_weight=2.0, alignment_until=0.5)
    loss_fn = O.make_loss(module, objective, 10)
    evaluate = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    for step, pairs in ((4, 8), (5, 0)):
        (loss, (_, metrics)), gradient = evaluate(
            params, {}, {}, {"pairs": tiny.batch(8)}, KEY, jnp.int32(step)
        )
        assert metrics["contrastive_loss"][1] == pairs
        parts = ("image_nll", "text_nll", "itm_loss")
        expected = sum(float(losses.mean(metrics[name])) for name in parts)
        term = float(losses.mean(metrics["contrastive_loss"]))
        assert (term > 0) == bool(pairs)
        assert float(loss) == pytest.approx(expected + 2.0 * term, rel=1e-5)
        for name in ("image_projection", "text_projection", "contrastive_log_scale"):
            leaves = jax.tree.leaves(gradient[name])
            assert any(np.asarray(g).any() for g in leaves) == bool(pairs)


@pytest.mark.slow
def test_contrastive_term_starts_alone_and_in_the_first_layers():
    module, params = tiny.model(contrastive_width=8)
    objective = ObjectiveConfig(
        contrastive_weight=1.0,
        alignment_layers=1,
        alignment_alone=0.3,
        alignment_until=0.6,
    )
    loss_fn = O.make_loss(module, objective, 10)
    evaluate = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    for step, joint, contrastive in ((2, 0, 8), (3, 8, 8), (6, 8, 0)):
        (loss, (_, metrics)), gradient = evaluate(
            params, {}, {}, {"pairs": tiny.batch(8)}, KEY, jnp.int32(step)
        )
        assert metrics["mask_ratio"][1] == joint
        assert metrics["contrastive_loss"][1] == contrastive
        parts = ("image_nll", "text_nll", "itm_loss", "contrastive_loss")
        expected = sum(float(losses.mean(metrics[name])) for name in parts)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        # Later layers belong to the joint losses alone.
        for leaf in jax.tree.leaves(gradient["transformer"]["layers"]):
            assert bool(np.asarray(leaf[1:]).any()) <= bool(joint)
        assert np.asarray(gradient["tokens"]["embedding"]).any()


def test_alignment_terms_drop_what_the_others_drop():
    module, params = tiny.model(contrastive_width=8, word_bag=True)
    transformer = dataclasses.replace(module.config.transformer, dropout=0.5)
    dropping = module.clone(
        config=dataclasses.replace(module.config, transformer=transformer)
    )
    data = {**tiny.batch(4), "word_ids": np.full((4, 5), 5, np.int32)}
    keys = jax.random.split(KEY)

    @jax.jit
    def terms(key):
        each = (O._contrastive, O._word_bag)
        return jnp.stack([term(dropping, params, data, key)[0] for term in each])

    assert (terms(keys[0]) != terms(keys[1])).all()


@pytest.mark.parametrize("name", ["contrastive", "word_bag"])
def test_an_alignment_term_without_its_head_is_refused(name):
    module, _ = tiny.model()
    with pytest.raises(ValueError, match=f"{name}_weight needs model.{name}"):
        O.make_loss(module, ObjectiveConfig(**{f"{name}_weight": 1.0}), 10)


def test_word_bag_by_hand():
    module, params = tiny.model(word_bag=True)
    data = tiny.batch(3)
    data["word_ids"] = np.array([[5, 7, 5, 0, 0], [0] * 5, [12, 0, 0, 0, 0]], np.int32)
    objective = ObjectiveConfig(word_bag_weight=0.5, alignment_alone=1.0)
    loss_fn = jax.jit(O.make_loss(module, objective, 10))
    loss, (_, metrics) = loss_fn(params, {}, {}, {"pairs": data}, KEY, jnp.int32(0))
    tokens = np.concatenate(
        [np.full((3, 1), tiny.VOCAB.cls_id), data["image_ids"] + 13], axis=1
    )
    hidden = apply(module, {"params": params}, tokens)[:, 0]
    head = params["word_bag"]
    logits = np.asarray(hidden) @ np.asarray(head["kernel"]) + head["bias"]
    p = 1 / (1 + np.exp(-np.asarray(logits)))[:, :13]
    there = np.zeros((3, 13), bool)
    there[0, [5, 7]] = there[2, 12] = True
    nll = -np.log(np.where(there, p, 1 - p)).sum(1)
    assert metrics["word_bag_loss"][1] == 2  # the picture without words is left out
    assert float(metrics["word_bag_loss"][0]) == pytest.approx(nll[0] + nll[2], 1e-4)
    assert float(loss) == pytest.approx(0.25 * (nll[0] + nll[2]), rel=1e-4)


def test_null_texts_are_empty_own_and_say_nothing_about_matching():
    batch = {k: jnp.asarray(v) for k, v in tiny.batch(200).items()}
    options = ObjectiveConfig(null_fraction=0.3)
    ratios = jnp.full(200, 0.4)
    seen = _corrupt(CONFIG, options, batch, ratios, jax.random.key(3))
    words = np.asarray(seen.targets[:, tiny.LAYOUT.text_slice]) != tiny.VOCAB.pad_id
    null = ~words.any(axis=1)
    assert 40 < null.sum() < 80
    assert (np.asarray(seen.itm_labels)[null] == 1).all()
    plain = _corrupt(CONFIG, ObjectiveConfig(), batch, ratios, jax.random.key(3))
    np.testing.assert_array_equal(seen.tokens[~null], plain.tokens[~null])


def test_states_of_every_layer_are_those_of_the_stack():
    module, params = tiny.model()
    for tokens in (tiny.tokens(2), tiny.tokens(2)[:, : tiny.LAYOUT.sep_index + 1]):
        first, last = apply(module, {"params": params}, tokens, method="layer_states")
        last = np.asarray(last)
        variables = {"params": params}
        whole = apply(module, variables, tokens, method="states")
        np.testing.assert_allclose(last, whole, atol=1e-6)
        norm = params["transformer"]["final_norm"]
        centred = last - last.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(
            scaled * norm["scale"] + norm["bias"],
            apply(module, variables, tokens),
            atol=1e-5,
        )
        half, share = backbone.some_layers(module, params, 0, 1)
        np.testing.assert_allclose(
            first, apply(half, {"params": share}, tokens, method="states"), atol=1e-6
        )


def test_some_layers_are_a_part_of_the_stack():
    module, params = tiny.model()
    with pytest.raises(ValueError, match="layers 0 to 9 asked for; the model has 2"):
        backbone.some_layers(module, params, 0, 9)
    whole = backbone.some_layers(module, params, 0, CONFIG.transformer.num_layers)
    tokens = tiny.tokens(2)
    np.testing.assert_array_equal(
        apply(whole[0], {"params": whole[1]}, tokens),
        apply(module, {"params": params}, tokens),
    )
    # The last layers go on where the first ones stop.
    first, share = backbone.some_layers(module, params, 0, 1)
    last, rest = backbone.some_layers(module, params, 1, 2)
    match = jnp.array([model.UNKNOWN, model.MATCHED])
    states = apply(first, {"params": share}, tokens, match, method="states")
    np.testing.assert_allclose(
        apply(last, {"params": rest}, tokens, hidden_states=states),
        apply(module, {"params": params}, tokens, match),
        atol=1e-6,
    )
    # A layer that does nothing may as well be left out.
    stack = params["transformer"]
    layers = stack["layers"]
    idle = {
        **layers,
        "attention": {
            **layers["attention"],
            "out": jax.tree.map(lambda x: x.at[1:].set(0), layers["attention"]["out"]),
        },
        "mlp": {
            **layers["mlp"],
            "down": jax.tree.map(lambda x: x.at[1:].set(0), layers["mlp"]["down"]),
        },
    }
    params = {**params, "transformer": {**stack, "layers": idle}}
    first, share = backbone.some_layers(module, params, 0, 1)
    np.testing.assert_allclose(
        apply(first, {"params": share}, tokens),
        apply(module, {"params": params}, tokens),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "ratio,wide,most", [(0.2, 0.0, 1), (0.4, 0.0, 2), (0.2, 0.5, 3)]
)
def test_every_masked_word_fits_the_budget(ratio, wide, most):
    objective = ObjectiveConfig(text_ratio=ratio, text_wide_fraction=wide)
    _, c = corrupted(objective, size=200)
    _, slots = C.budgets(CONFIG, objective)
    assert np.asarray(c.masked)[:, 14:].sum(1).max() == most <= slots < 5


def test_unimodal_features_have_not_seen_the_other_side():
    module, params = tiny.model(contrastive_width=8)
    tokens = tiny.tokens(4)
    other = tokens.at[:, 1:13].set(tiny.tokens(4, seed=7)[:, 1:13])

    def features(t):
        return apply(module, {"params": params}, t, method="contrastive_features")

    np.testing.assert_allclose(features(tokens)[1], features(other)[1], atol=1e-6)
    assert np.abs(features(tokens)[0] - features(other)[0]).max() > 1e-3


def test_cross_modal_heads_see_the_other_side_only():
    module, params = tiny.model(cross_modal_heads=1)
    tokens = tiny.tokens(2).at[0, 17:].set(tiny.VOCAB.pad_id)
    mask = np.asarray(model.joint_mask(tokens, module.config))
    heads = module.config.transformer.num_heads
    assert mask.shape == (2, heads, 19, 19)
    side = np.arange(19) >= 13  # [SEP] and the words
    for b in range(2):
        allowed = np.asarray(tokens[b] != tiny.VOCAB.pad_id)[None]
        np.testing.assert_array_equal(mask[b, 0], (side[:, None] != side) & allowed)
        for h in range(1, heads):
            np.testing.assert_array_equal(
                mask[b, h], np.broadcast_to(allowed, (19, 19))
            )
    assert not np.isnan(apply(module, {"params": params}, tokens)).any()
    with pytest.raises(ValueError, match=f"cross_modal_heads is {heads}"):
        tiny.config(cross_modal_heads=heads)


def test_text_gain_is_what_the_own_text_saves():
    module, params = tiny.model()
    data = tiny.batch(10)
    evaluate = jax.jit(held_out.make_eval(module, ObjectiveConfig()))
    total, codes = evaluate(params, {}, {}, data, KEY)["image_text_gain"]
    swapped = {
        **data,
        "text_ids": data["negative_ids"],
        "negative_ids": data["text_ids"],
    }
    opposite, _ = evaluate(params, {}, {}, swapped, KEY)["image_text_gain"]
    assert codes == 10 * round(0.4 * 12) and abs(total) > 1e-3
    np.testing.assert_allclose(total, -opposite, rtol=1e-4)


def always_matched(params, answer):
    """The head says `answer` to everything."""
    head = jax.tree.map(jnp.zeros_like, params["itm"])
    head["bias"] = jnp.array([0.0, 1.0 if answer else -1.0])
    return {**params, "itm": head}


def test_matching_reports_every_ratio_and_is_balanced():
    module, params = tiny.model()
    evaluate = jax.jit(held_out.make_eval(module, ObjectiveConfig()))
    for answer in (True, False):
        metrics = evaluate(always_matched(params, answer), {}, {}, tiny.batch(10), KEY)
        for ratio in (0, 15, 40, 65):
            assert tuple(metrics[f"itm_accuracy_{ratio}"]) == (10, 20)


def test_matching_by_attribute_by_hand():
    module, params = tiny.model()
    data = tiny.batch(4)
    asked = {
        "question_ids": np.stack([data["text_ids"], data["negative_ids"]], axis=1),
        "question_attribute": np.array([0, 1, 0, -1], np.int32),
        "question_weight": np.array([0.5, 0.25, 0.25, 0.0], np.float32),
    }
    evaluate = held_out.make_eval(
        module, ObjectiveConfig(), attributes=("Hat", "Smile")
    )
    metrics = jax.jit(evaluate)(params, {}, {}, {**data, **asked}, KEY)

    def log_odds(texts):
        tokens = model.assemble(data["image_ids"], texts, CONFIG)
        hidden = apply(module, {"params": params}, tokens)
        logits = apply(module, {"params": params}, hidden, method="itm_logits")
        return np.asarray(logits[:, 1] - logits[:, 0])

    right = log_odds(data["text_ids"]) > log_odds(data["negative_ids"])
    hat, smile = metrics["itm_accuracy_Hat"], metrics["itm_accuracy_Smile"]
    assert float(hat[1]) == 0.75 and float(smile[1]) == 0.25
    assert float(hat[0]) == 0.5 * right[0] + 0.25 * right[2]
    assert float(smile[0]) == 0.25 * right[1]


@pytest.mark.parametrize(
    "preset", ["paper", pytest.param("control", marks=pytest.mark.slow)]
)
def test_a_small_batch_is_learnt(preset):
    objective = {"ratio_schedule": "rescaled", "pooled": preset == "paper"}
    config = {
        "model": tiny_model_mapping(match_token=preset == "control"),
        "objective": objective,
        "batch_size": 8,
        "total_steps": 100,
    }
    system = make_system(config)
    params = nn.meta.unbox(jax.jit(system.init)(KEY))
    data = tiny.batch(8)
    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, opt, i):
        loss = system.phases[0].loss
        (value, _), grads = jax.value_and_grad(
            lambda p: loss(p, {}, {}, {"pairs": data}, jax.random.fold_in(KEY, i), i),
            has_aux=True,
        )(params)
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(params, updates), opt, value

    opt, values = jax.jit(tx.init)(params), []
    for i in range(60):
        params, opt, value = step(params, opt, jnp.int32(i))
        values.append(float(value))
    assert np.mean(values[-10:]) < np.mean(values[:10]) - 0.5


def tiny_model_mapping(**changes):
    return dataclasses.asdict(tiny.config(**changes))


def test_codebook_start_keeps_the_geometry():
    rng = np.random.default_rng(0)
    codebook = jnp.asarray(rng.normal(3.0, 2.0, (200, 4)), jnp.float32)
    embedding = jnp.asarray(0.05 * rng.normal(size=(220, 64)), jnp.float32)
    table = np.asarray(with_codebook(embedding, codebook, 20, KEY))
    np.testing.assert_array_equal(table[:20], embedding[:20])
    assert abs(table[20:].std() / 0.05 - 1) < 0.1

    def distances(x):
        x = np.asarray(x)
        return np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(200, 1)]

    assert np.corrcoef(distances(codebook), distances(table[20:]))[0, 1] > 0.6
