"""A model whose decoder sees the photograph: edits, programs, tiles, faces, exports."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gptface_jax
from gptface_jax.apps import program
from gptface_jax.core import trees
from gptface_jax.core.config import load_config
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.experiments import opening, training
from gptface_jax.interop import directory
from gptface_jax.ops import pictures
from gptface_jax.pipelines import edit
from gptface_jax.pipelines.framing import Framed
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.views import View
from gptface_jax.systems.gptface.options import DecodeConfig


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    """The tiny model, with a decoder that sees photographs by random weights."""
    out = tmp_path_factory.mktemp("conditional") / "model"
    settings = directory.read_config(tiny / "model")
    networks = {
        name: opening.open_network(tiny / "model", name)
        for name in ("vqgan", "gptface")
    }
    vqgan = networks["vqgan"]
    config = dataclasses.replace(vqgan.config, condition_channels=4)
    settings["vqgan"]["condition_channels"] = 4
    rng, flat = np.random.default_rng(0), trees.flatten(vqgan.params)
    for name, x in trees.flatten(opening.expected_shapes("vqgan", config)).items():
        flat.setdefault(name, rng.normal(0, 0.3, x.shape).astype(np.float32))
    weights = {"gptface": networks["gptface"].params, "vqgan": trees.unflatten(flat)}
    files = {
        path.name: path.read_bytes()
        for path in (tiny / "model").iterdir()
        if path.suffix in (".txt", ".md", ".json") and path.name != "config.json"
    }
    directory.write(out, settings, weights, files, "float32")
    return out


@pytest.fixture(scope="module")
def model(folder):
    return gptface_jax.load(folder)


@pytest.fixture(scope="module")
def photo(model):
    return SyntheticFaces(size=model.editor.size, count=1, seed=3)[0].image


def drawn(model, photo, mask, **options):
    """What the model draws, before it is pasted."""
    config = model.decode_config({"k": 24})
    return model.editor.edit(
        photo[None], mask[None], [""], config, jax.random.split(jax.random.key(0), 1),
        **options,
    )  # fmt: skip


def test_the_decoder_sees_what_is_not_masked_and_nothing_else(model, photo):
    mask = np.zeros(photo.shape[:2], bool)
    mask[9:15, 10:20] = True  # tokens are 4 pixels: their rims are known
    first = drawn(model, photo, mask)
    other = np.where(mask[..., None], 255 - photo, photo)
    np.testing.assert_array_equal(first.images, drawn(model, other, mask).images)
    # Beside the mask, in a token that is drawn: its codes are hidden, its pixels seen.
    other = photo.copy()
    other[8, 10:20] = 255 - other[8, 10:20]
    again = drawn(model, other, mask)
    np.testing.assert_array_equal(first.open_tokens, again.open_tokens)
    assert (first.images != again.images).any()
    hidden = mask.copy()
    hidden[8, 10:20] = True
    blind = [drawn(model, x, mask, unknown=hidden[None]).images for x in (photo, other)]
    np.testing.assert_array_equal(*blind)


def test_the_decode_is_of_the_codes_and_the_known_pixels(model, photo):
    """The picture equals the module's own, of what the request hides."""
    mask = np.zeros(photo.shape[:2], bool)
    mask[8:20, 8:20] = True
    network = model.editor.vqgan.network
    known = pictures.known_pixels(photo[None] / np.float32(127.5) - 1, mask[None])
    ids = jnp.arange(64)[None].reshape(1, 8, 8) % network.config.codebook_size
    expected = network.module.apply(
        {"params": network.params}, ids, known, method="decode"
    )
    tokenizer = ImageTokenizer(network)
    found = tokenizer.decode(np.asarray(ids), known=np.asarray(known))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Every tile gets its own part; one tile is the whole.
    tiled = tokenizer.decode_tiled(np.asarray(ids), 8, 4, known=np.asarray(known))
    np.testing.assert_allclose(tiled, expected, atol=1e-5)
    twice = np.concatenate([known, known], 2)
    tiled = tokenizer.decode_tiled(
        np.concatenate([ids, ids], 2), tile=8, overlap=0, known=twice
    )
    np.testing.assert_allclose(
        tiled, np.concatenate([expected, expected], 2), atol=1e-5
    )
    # By default nothing is known.
    nothing = pictures.known_pixels(jnp.zeros(photo[None].shape), mask[None] | True)
    np.testing.assert_allclose(
        tokenizer.decode(np.asarray(ids)),
        tokenizer.decode(np.asarray(ids), known=np.asarray(nothing)),
        atol=1e-5,
    )


@pytest.mark.slow
def test_a_program_sees_the_photograph_too(model, photo):
    mask = np.zeros(photo.shape[:2], bool)
    mask[9:15, 10:20] = True
    config, editor = model.decode_config({"k": 24}), model.editor
    weights = {"vqgan": editor.vqgan.network.params, "gptface": editor.gptface.params}
    function = jax.jit(program.edit_function(editor, config))
    text_ids = editor.text_tokenizer.encode([""], editor.max_text_tokens)
    seeds = np.zeros(1, np.uint32)
    found = function(weights, photo[None], mask[None], text_ids, seeds)
    expected = editor.edit(
        photo[None], mask[None], [""], config, jax.random.key(0)[None]
    )
    np.testing.assert_allclose(
        np.asarray(found["images"], int), expected.images, atol=1
    )


def test_what_lies_beyond_the_photo_is_no_pixel_of_it(photo):
    """An upright face at the photo's edge: the rim is hidden from the decoder."""
    points = np.array([[5, 12], [13, 12], [9, 16], [6, 21], [12, 21]], np.float64)
    frame = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]])
    view = View.upright(points, frame, photo.shape[:2])
    beyond = view.beyond(photo.shape[:2])
    mask = np.zeros(photo.shape[:2], bool)
    mask[18:24, 6:12] = True
    assert beyond.any() and not beyond.all()
    framed = Framed(mask, view, {})
    plan = edit.Plan(photo, framed, DecodeConfig())
    request = plan.request(32)
    assert (request.unknown >= request.mask).all()
    assert (request.unknown & ~request.mask).any()


def test_all_verbs_use_it(model, photo, monkeypatch):
    seen = []
    known = model.editor._known
    monkeypatch.setattr(
        model.editor, "_known", lambda *a: seen.append(known(*a)) or seen[-1]
    )
    box = (8, 8, 20, 20)
    damage = np.zeros(photo.shape[:2], np.uint8)
    damage[10:20, 12:22] = 255
    model.edit(photo, text="a man smiling", box=box, align=False, samples=1)
    model.inpaint(photo, box=box, align=False)
    model.restore(photo, damage=damage, thin=0)
    model.stitch(photo, photo[:, ::-1])
    assert len(seen) == 4
    for given in seen:
        hidden = given[..., 3] == 1
        assert hidden.any() and not hidden.all() and not given[hidden][:, :3].any()


@pytest.mark.slow
def test_it_is_trained_on_from_a_model_and_exported(
    tiny, tmp_path, photo, gptface_command
):
    config = load_config("configs/vqgan/faces64.py:tiny_conditional")
    config.init_from = config.objective.holes.model = str(tiny / "model")
    config.objective.holes.drawn = 0.5
    training.train(config, tmp_path / "run", progress=False)
    before = opening.open_network(tiny / "model", "vqgan")
    after = opening.open_network(tmp_path / "run", "vqgan")
    assert after.codes_digest == before.codes_digest and after.digest != before.digest
    assert np.abs(after.params["decoder"]["stem"]["out_0"]["kernel"]).max() > 0
    command = ("--gptface", tiny / "model", "--tokenizer", tmp_path / "run")
    assert gptface_command("export", *command, "--out", tmp_path / "model") == 0
    model = gptface_jax.load(tmp_path / "model")
    assert model.editor.vqgan.config.condition_channels == 4
    result = model.inpaint(photo, box=(8, 8, 20, 20), align=False)
    assert np.asarray(result.image).shape == photo.shape
