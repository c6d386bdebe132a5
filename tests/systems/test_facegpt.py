"""FaceGPT: one-way face tokens, schemes, terms of the loss, and what is learnt."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.vocab import JointVocab
from gptface_jax.data.facemodel import open_model
from gptface_jax.nn import sequence
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.ops import morphable, render
from gptface_jax.ops.attention_mask import attention_mask, with_listeners
from gptface_jax.systems import facegpt
from gptface_jax.systems.facegpt import coefficients, held_out, objective
from gptface_jax.systems.facegpt.coefficients import GROUPS, FacesConfig
from gptface_jax.systems.facegpt.model import FaceGPT, FaceGPTConfig

GRID, WORDS, SIZE = (2, 2), 5, 16
BATCH = 3


def config(scheme="grouped", **changes):
    faces = FacesConfig(scheme=scheme, slots=2, codes=8, **changes)
    vocab = JointVocab(
        30, 8, 0, 1, 2, 3, 4, multiple_of=8, face_tokens=faces.vocabulary
    )
    layers = TransformerConfig(
        num_layers=1, width=16, num_heads=2, mlp_width=24, remat="none", init="fan_in"
    )
    layout = sequence.SequenceLayout(GRID, WORDS)
    return FaceGPTConfig(
        transformer=layers, vocab=vocab, max_positions=40, layout=layout, faces=faces,
        embedding_init=0.5,
    )  # fmt: skip


@functools.lru_cache
def basis():
    model = open_model(max_vertices=300)
    with jax.ensure_compile_time_eval():
        return {name: jnp.asarray(getattr(model, name)) for name in morphable.ARRAYS}


@functools.lru_cache
def opened(scheme="grouped"):
    """A model whose heads say something."""
    module = FaceGPT(config(scheme))
    return module, initialised(module)


def initialised(module):
    tokens = jnp.zeros((1, module.config.layout.length), jnp.int32)
    init = jax.jit(functools.partial(module.init, method="init_faces"))
    return nn.meta.unbox(init(jax.random.key(0), tokens)["params"])


def stirred(params, seed=0):
    """The parameters with heads that do not start at zero."""
    rng = np.random.default_rng(seed)
    flat = {
        k: v + 0.3 * rng.normal(size=v.shape).astype(np.float32) if "output" in k else v
        for k, v in trees.flatten(params).items()
    }
    return trees.unflatten(flat)


@functools.lru_cache
def batch():
    rng = np.random.default_rng(0)
    text = rng.integers(5, 30, (BATCH, WORDS))
    text[0, 3:] = 0
    text[1] = 0
    light = np.tile(render.ambient(), (BATCH, 1, 1)) + rng.normal(0, 0.2, (BATCH, 9, 3))
    found = {
        "image": rng.uniform(-1, 1, (BATCH, SIZE, SIZE, 3)),
        "landmarks": rng.uniform(0.2, 0.8, (BATCH, 68, 2)),
        "landmark_mask": np.ones((BATCH, 68)),
        "known": np.array([1.0, 1, 0]),
        "id_coeffs": rng.normal(size=(BATCH, 40)),
        "exp_coeffs": rng.random((BATCH, 53)) * 0.4,
        "albedo_coeffs": rng.normal(size=(BATCH, 24)),
        "sh_light": light,
        "pose": rng.normal(0, 0.2, (BATCH, 6)),
    }
    found = {k: jnp.asarray(v, jnp.float32) for k, v in found.items()}
    found["text_ids"] = jnp.asarray(text, jnp.int32)
    found["image_ids"] = jnp.asarray(rng.integers(0, 8, (BATCH, 4)), jnp.int32)
    return found


def test_listeners_are_heard_by_nobody():
    """The drawing of `with_listeners`."""
    valid = jnp.array([[True, True, False]])
    got = with_listeners(attention_mask(valid), valid, 2)[0, 0].astype(int)
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 1, 1],
                [1, 1, 0, 1, 1]]  # fmt: skip
    np.testing.assert_array_equal(got, expected)


def test_face_tokens_change_no_other_state():
    module, params = opened()
    c = module.config
    tokens = sequence.assemble(
        batch()["image_ids"], batch()["text_ids"], c.vocab, c.layout
    )
    valid = tokens != c.vocab.pad_id

    @jax.jit
    def states(params, tokens, mask):
        return module.apply({"params": params}, tokens, attn_mask=mask)

    alone = states(params, tokens, attention_mask(valid))
    faces = module.apply({"params": params}, BATCH, method="face_ids")
    with_faces = states(
        params,
        jnp.concatenate([tokens, faces], 1),
        with_listeners(attention_mask(valid), valid, faces.shape[1]),
    )
    np.testing.assert_allclose(
        np.where(valid[..., None], with_faces[:, : c.layout.length], 0),
        np.where(valid[..., None], alone, 0), atol=2e-6,
    )  # fmt: skip


def test_the_grown_vocabulary_changes_no_other_bit():
    """Words and codes get the very same probabilities beside face tokens as before."""
    module, params = opened()
    c = module.config
    assert c.vocab.rows == 48 and c.vocab.size == 38  # 30 + 8, and 5 faces, by eights
    before = dataclasses.replace(c.vocab, face_tokens=0, multiple_of=48)
    plain = FaceGPT(
        dataclasses.replace(
            c, vocab=dataclasses.replace(before, face_tokens=5), max_positions=40
        )
    )
    ids = sequence.assemble(
        batch()["image_ids"], batch()["text_ids"], c.vocab, c.layout
    )

    @functools.partial(jax.jit, static_argnums=0)
    def logits(module, params, ids):
        states = module.apply({"params": params}, ids)
        return module.apply({"params": params}, states, method="token_logits")

    got = logits(module, params, ids)
    # The rows of face tokens moved away: nothing else knows of them.
    moved = trees.flatten(params)
    table = np.array(moved["tokens/embedding"])
    table[38:] = 7.0
    moved["tokens/embedding"] = table
    other = logits(plain, trees.unflatten(moved), ids)
    np.testing.assert_array_equal(got[..., :38], other[..., :38])
    assert (got[..., 38:] < -1e29).all()
    probability = jax.nn.softmax(got)[..., 38:]
    assert (probability == 0).all()


def test_training_starts_at_the_mean_head():
    module, params = opened()
    coeffs = module.apply(
        {"params": params}, batch()["image_ids"], None, method="predicted"
    )
    assert jnp.abs(coeffs["id_coeffs"]).max() == 0
    assert 0 <= coeffs["exp_coeffs"].min() <= coeffs["exp_coeffs"].max() < 0.02
    np.testing.assert_allclose(coeffs["sh_light"][0], render.ambient(), atol=1e-6)
    np.testing.assert_allclose(coeffs["pose"][0], [0, 0, 0, 0, 0, 0.12], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["grouped", "single", "discrete"])
def test_schemes_have_the_groups_of_both_inputs(scheme):
    module, params = opened(scheme)
    params = stirred(params)
    run = jax.jit(functools.partial(module.apply, method="predicted"))
    image = run({"params": params}, batch()["image_ids"], None)
    text = run({"params": params}, None, batch()["text_ids"])
    other = run({"params": params}, None, batch()["text_ids"].at[2, 0].set(29))
    shapes = {"id_coeffs": (3, 40), "exp_coeffs": (3, 53), "albedo_coeffs": (3, 24),
              "sh_light": (3, 9, 3), "pose": (3, 6)}  # fmt: skip
    assert {k: v.shape for k, v in image.items()} == shapes
    assert not np.allclose(image["id_coeffs"], text["id_coeffs"])
    # Each follows its own words and no others'.
    changed = jnp.abs(other["id_coeffs"] - text["id_coeffs"]).max(-1)
    assert changed[2] > 1e-4 and changed[:2].max() == 0


def test_units_and_coefficients_are_inverse():
    coeffs = {e: batch()[e] for e in coefficients.ENTRIES.values()}
    again = coefficients.from_units(coefficients.in_units(coeffs))
    for name, value in coeffs.items():
        np.testing.assert_allclose(again[name], value, atol=1e-5)
    heads = {g: jnp.zeros((1, n)) for g, n in FacesConfig().sizes.items()}
    heads["id"], heads["pose"] = heads["id"] + 2.0, heads["pose"] + 1.0
    found = coefficients.to_coefficients(heads)
    assert (found["id_coeffs"] == 2).all()
    assert float(found["pose"][0, 0]) == pytest.approx(0.3)


def test_expressions_come_back_from_beyond_their_range():
    """Where a weight is 0 or 1 its gradient is not."""
    zeros = {g: jnp.zeros((2, n)) for g, n in FacesConfig().sizes.items()}
    beyond = jnp.array([[-1.0], [30.0]]) * jnp.ones((2, 53))
    for made, given in (
        (coefficients.to_coefficients, beyond.at[1].set(5.0)),
        (coefficients.from_units, beyond),
    ):
        found = made({**zeros, "exp": given})["exp_coeffs"]
        np.testing.assert_array_equal(found, [[0.0] * 53, [1.0] * 53])

        def total(exp, made=made):
            return made({**zeros, "exp": exp})["exp_coeffs"].sum()

        assert (jax.grad(total)(given) > 1e-3).all()
    slope = jax.grad(lambda w: coefficients._clipped(w).sum())
    np.testing.assert_array_equal(slope(jnp.array([-3.0, 0.2, 0.9, 7.0])), 1.0)


@pytest.mark.slow
def test_codes_are_tokens_of_their_own_slots():
    module, params = opened("discrete")
    faces, vocab = module.config.faces, module.config.vocab
    assert faces.positions == 10 and faces.vocabulary == 5 + 10 * 8
    units = coefficients.in_units(batch())
    apply = functools.partial(module.apply, {"params": params})
    codes = apply(units, method="encode_codes")
    assert codes.shape == (BATCH, 10) and codes.min() >= 0 and codes.max() < 8
    ids = apply(codes, method="codes_to_ids")
    slot = (ids - vocab.size - 5) // 8
    np.testing.assert_array_equal(slot, np.tile(np.arange(10), (BATCH, 1)))
    unknown = apply(codes.at[:, 3].set(-1), method="codes_to_ids")
    np.testing.assert_array_equal(unknown[:, 3], vocab.size + 1)  # [F_EXP]
    assert ids.max() < vocab.rows
    # A certain distribution means what its codes mean.
    one_hot = jax.nn.one_hot(codes, 8)
    likely = module.apply(
        {"params": params}, one_hot, method=lambda m, x: m.face_codes.decode_likely(x)
    )
    exact = apply(codes, method="decode_codes")
    for group in GROUPS:
        np.testing.assert_allclose(likely[group], exact[group], atol=1e-5)


def terms(scheme="grouped", total_steps=10, **weights):
    module, params = opened(scheme)
    options = {"size": SIZE, "warm_start": 0.5, **weights}
    wanted = objective.ObjectiveConfig(**options)
    return objective.Terms(module, wanted, None, total_steps), stirred(params)


def test_terms_count_what_they_should():
    found, params = terms()
    run = jax.jit(lambda p, b, step: found(p, {"basis": basis()}, b, KEY, step))
    first = run(params, batch(), 0)
    assert first["photo"] == 0 and run(params, batch(), 5)["photo"] > 0
    # The third head is not known: its coefficients do not count.
    other = {**batch(), "id_coeffs": batch()["id_coeffs"].at[2].add(5)}
    assert run(params, other, 0)["truth"] == pytest.approx(float(first["truth"]))
    # By hand: mean over known heads, groups, and numbers of a group.
    ids = batch()["image_ids"]
    module, _ = opened()
    coeffs = module.apply({"params": params}, ids, None, method="predicted")
    got, want = (coefficients.in_units(c) for c in (coeffs, batch()))
    by_hand = np.mean([np.mean((got[g] - want[g])[:2] ** 2) for g in GROUPS])
    assert float(first["truth"]) == pytest.approx(by_hand, rel=1e-4)
    # No landmarks, no distance.
    blind = {**batch(), "landmark_mask": jnp.zeros((BATCH, 68))}
    assert run(params, blind, 0)["landmarks"] == 0 < first["landmarks"]
    # The second example has no text: the first and third count alone.
    no_text = {**batch(), "text_ids": jnp.zeros_like(batch()["text_ids"])}
    assert run(params, no_text, 0)["text"] == 0 != first["text"]


def test_landmarks_of_a_face_whose_eye_corner_is_unknown():
    """What the others count does not depend on it."""
    rng = np.random.default_rng(0)
    mean = basis()["mean"][basis()["landmarks"]][:, :2] * jnp.array([1, -1]) / 250 + 0.5
    points = jnp.tile(mean, (2, 1, 1))
    places = points + 0.02 * rng.normal(size=(2, 68, 2))
    mask = jnp.ones((2, 68)).at[:, 36].set(0).at[1, 45].set(0)
    hidden = jnp.where(mask[..., None] > 0, points, 0)
    every, some = (
        objective.landmark_error(places, {"landmarks": p, "landmark_mask": m})
        for p, m in ((points, jnp.ones((2, 68))), (hidden, mask))
    )
    # What is guessed of the face's size is nearly right.
    known = mask > 0
    np.testing.assert_allclose(some[known], every[known], rtol=0.15)
    none = objective.face_size(hidden, jnp.zeros((2, 68)))
    np.testing.assert_allclose(none, 0.1, rtol=1e-5)


def test_codes_are_learnt_without_a_text_too():
    """What guidance by a text goes from."""
    found = objective.Terms(
        FaceGPT(config("discrete")), objective.ObjectiveConfig(), None, 1
    )
    codes = jnp.zeros((BATCH, 10), jnp.int32)
    logits = jnp.zeros((BATCH, 10, 8))
    made = {"code_losses": (jnp.zeros(BATCH), codes), "code_logits": logits}
    found.apply = lambda params, method, *given, key=None: made[method]
    given = (None, None), (None, jnp.zeros((BATCH, WORDS), jnp.int32))
    parts = found._codes({}, given, None, KEY, train=False)
    assert float(parts["text"]) == pytest.approx(np.log(8), rel=1e-5)


KEY = jax.random.key(0)


def no_pixels(*given):
    """In place of the renderer, which takes longest to compile."""
    return jnp.float32(0)


@pytest.mark.parametrize(
    "scheme", ["grouped", pytest.param("discrete", marks=pytest.mark.slow)]
)
def test_without_their_weight_known_coefficients_teach_nothing(scheme):
    """As in faces64.py:unsupervised; neither the picture's pass nor the text's."""
    found, params = terms(scheme, truth=0.0, calibration=0.0)

    found.photo = no_pixels

    @jax.jit
    def loss(batch):
        return found.total(found(params, {"basis": basis()}, batch, KEY, 0, train=True))

    other = {**batch(), "id_coeffs": batch()["id_coeffs"] + 1}
    assert loss(other) == loss(batch())


def test_training_alone_drops():
    layers = dataclasses.replace(config().transformer, num_layers=2, drop_path=0.9)
    module = FaceGPT(dataclasses.replace(config(), transformer=layers))
    params = stirred(initialised(module))
    found = objective.Terms(module, objective.ObjectiveConfig(size=SIZE), None, 10)
    found.photo = no_pixels

    @functools.partial(jax.jit, static_argnums=1)
    def text_term(key, train):
        parts = found(params, {"basis": basis()}, batch(), key, 0, train=train)
        return parts["text"]

    keys = jax.random.split(KEY, 2)
    assert text_term(keys[0], False) == text_term(keys[1], False)
    assert text_term(keys[0], True) != text_term(keys[1], True)


def test_pictures_are_seen_with_their_text_as_often_as_is_said():
    found, params = terms(with_text=1.0)
    found.photo = no_pixels
    other = {**batch(), "text_ids": jnp.where(batch()["text_ids"] > 0, 29, 0)}

    @jax.jit
    def truth(batch):
        return found(params, {"basis": basis()}, batch, KEY, 0, train=True)["truth"]

    assert truth(batch()) != truth(other)
    some = objective.ObjectiveConfig(with_text=0.5)
    seen = objective.Terms(opened()[0], some, None, 1)._seen_text(
        {"text_ids": jnp.ones((400, WORDS), jnp.int32)}, KEY
    )
    assert 0.4 < seen.mean() < 0.6 and (seen.min(1) == seen.max(1)).all()


def test_robust_differences():
    difference = jnp.array([[0.0, 0, 0], [0.15, 0, 0], [1, 1, 1]])
    got = objective.robust(difference, 0.15)
    np.testing.assert_allclose(got[0], 0, atol=1e-6)
    assert float(got[1]) == pytest.approx(0.5, abs=0.002)  # half a squared deviation
    assert float(got[2]) == pytest.approx(-np.log(1e-3 / 1.001), rel=1e-3)  # an outlier
    slope = jax.grad(lambda d: objective.robust(d, 0.15))(difference[2])
    assert jnp.abs(slope).max() < 1e-3


@pytest.mark.parametrize(
    "scheme", ["grouped", pytest.param("discrete", marks=pytest.mark.slow)]
)
def test_pixels_and_landmarks_alone_reach_every_group(scheme):
    """What no label teaches has a gradient by the rendered picture."""
    found, params = terms(scheme, truth=0.0, text=0.0, prior=0.0, codes=0.0)
    unknown = {**batch(), "known": jnp.zeros(BATCH)}

    @jax.jit
    @jax.grad
    def slope(params):
        parts = found(params, {"basis": basis()}, unknown, KEY, 9)
        return parts["photo"] + parts["landmarks"]

    flat = trees.flatten(slope(params))
    for group in GROUPS:
        place = f"face_{group}/" if scheme == "grouped" else f"groups_{group}/to_units"
        moved = [float(jnp.abs(v).max()) for k, v in flat.items() if place in k]
        assert moved and max(moved) > 0, group
    assert all(np.isfinite(v).all() for v in flat.values())


@pytest.mark.slow
def test_heads_are_recovered_from_their_pictures_alone():
    """Analysis by synthesis: no label, and the head's pose and place are found."""
    rng = np.random.default_rng(4)
    poses = jnp.asarray(rng.normal(0, [0.2, 0.3, 0.1, 0.08, 0.08, 0.05], (8, 6)))
    zeros = {"id_coeffs": jnp.zeros((8, 40)), "exp_coeffs": jnp.zeros((8, 53)),
             "albedo_coeffs": jnp.zeros((8, 24)),
             "sh_light": jnp.tile(render.ambient(), (8, 1, 1))}  # fmt: skip
    truth = {**zeros, "pose": jnp.float32(poses)}
    drawn = render.render_head(basis(), truth, 32)
    places = (drawn.projection.places[:, basis()["landmarks"]] + 0.5) / 32
    example = {
        **truth, "image": drawn.colour * 2 - 1, "landmarks": places,
        "landmark_mask": jnp.ones((8, 68)), "known": jnp.zeros(8),
        "text_ids": jnp.zeros((8, WORDS), jnp.int32),
        "image_ids": jnp.asarray(rng.integers(0, 8, (8, 4))),
    }  # fmt: skip
    module, params = opened()
    wanted = objective.ObjectiveConfig(size=32, warm_start=0.0)
    found = objective.Terms(module, wanted, None, 1)

    @jax.jit
    def step(params):
        def loss(p):
            return found.total(found(p, {"basis": basis()}, example, KEY, 9))

        value, slope = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, slope), value

    metrics = jax.jit(held_out.make_eval(found))
    before = metrics(params, {}, {"basis": basis()}, example, KEY)
    for _ in range(300):
        params, _ = step(params)
    after = metrics(params, {}, {"basis": basis()}, example, KEY)
    assert after["nme"][0] < 0.3 * before["nme"][0]
    assert after["pose_degrees"][0] < 0.6 * before["pose_degrees"][0]


def test_held_out_errors_by_hand():
    truth = {e: batch()[e] for e in coefficients.ENTRIES.values()}
    same = held_out.errors(basis(), truth, truth, SIZE, None)
    assert float(same["nme"].max()) < 1e-3 and float(same["vertex_mm"].max()) < 1e-4
    np.testing.assert_allclose(same["light_cosine"], 1, atol=1e-5)
    other = {**truth, "pose": truth["pose"].at[:, 3].add(0.1)}
    moved = held_out.errors(basis(), other, truth, SIZE, None)
    assert float(moved["vertex_mm"].max()) < 1e-4 < float(moved["nme"].min())
    vectors = jnp.array([[0.0, 0, 0], [0, 0.5, 0]])
    angle = held_out.degrees(vectors, vectors.at[:, 1].add(0.2))
    np.testing.assert_allclose(angle, np.rad2deg(0.2), rtol=1e-3)
    one, two = (render.ambient().at[row].set(0.3)[None] for row in (3, 1))
    np.testing.assert_allclose(held_out.light_cosine(one, one), 1, atol=1e-6)
    np.testing.assert_allclose(held_out.light_cosine(one, two), 0, atol=1e-6)


def test_a_basis_of_another_size_is_named():
    few = {**basis(), "identity": basis()["identity"][:30]}
    values = {"model": config(), "objective": {}, "total_steps": 2}
    values["model"] = {**dataclasses.asdict(config())}
    with pytest.raises(ValueError, match="30 identity modes and model.faces.identity"):
        facegpt.make_system(values, few, {"rendered": 2}, SIZE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_positions": 12}, "exceeds max_positions"),
        ({"vocab": JointVocab(30, 8, 0, 1, 2, 3, 4)}, "needs 5"),
    ],
)  # fmt: skip
def test_configs_that_make_no_sense(change, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(config(), **change)
    with pytest.raises(ValueError, match="scheme 'singel' is none of"):
        FacesConfig(scheme="singel")
    for wrong, named in (
        ({"focal": 4.0}, "focal is 4.0; use 0"),
        ({"focal": -1.0}, "focal is -1.0; use 0"),
        ({"size": 0}, "size is 0; use 1 pixel or more"),
    ):
        with pytest.raises(ValueError, match=named):
            objective.ObjectiveConfig(**wrong)
