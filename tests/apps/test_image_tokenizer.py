"""Any size, any number, whole or in tiles."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_vqgan

from gptface_jax.core.errors import UserError
from gptface_jax.data import image, image_io
from gptface_jax.experiments.opening import open_network
from gptface_jax.nn.vqgan import VQGAN
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.networks import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return tiny_vqgan.network()


@pytest.fixture(scope="module")
def tokenizer(network) -> ImageTokenizer:
    return ImageTokenizer(network, batch_size=4)


@pytest.fixture(scope="module")
def demo() -> Network:
    """The bundled tokenizer: f = 8, 64 pixels, trained on faces."""
    return open_network("gptface_jax/models/demo64", "vqgan")


@pytest.fixture(scope="module")
def face(root) -> np.ndarray:
    """uint8 [1,256,256,3]."""
    photo = image_io.decode(root / "gptface_jax/assets/astronaut.jpg")
    return photo[None, :256, 96:352]


def pictures(*shape, seed=0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


def programs(tokenizer) -> int:
    return tokenizer._run._cache_size()


def test_any_size_is_the_padded_picture_cropped(network, tokenizer):
    photos = image.to_unit_range(pictures(2, 22, 37))
    ids = tokenizer.encode(photos)
    assert ids.shape == (2, 6, 10) and ids.dtype == np.int32
    padded = np.pad(photos, [(0, 0), (0, 2), (0, 3), (0, 0)], mode="edge")
    apply = jax.jit(network.module.apply, static_argnames="method")
    variables = {"params": network.params}
    expected = apply(variables, padded, method="encode")
    np.testing.assert_array_equal(ids, expected)
    whole = tokenizer.decode(ids)
    assert whole.shape == (2, 24, 40, 3) and whole.dtype == np.float32
    expected = apply(variables, ids, method="decode")
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    cropped = tokenizer.decode(ids, size=(22, 37))
    np.testing.assert_array_equal(cropped, whole[:, :22, :37])


def test_levels_and_unit_range_have_the_same_codes(tokenizer):
    photos = pictures(3, 16, 16)
    np.testing.assert_array_equal(
        tokenizer.encode(photos), tokenizer.encode(image.to_unit_range(photos))
    )


def test_one_program_for_a_bucket_of_shapes(network):
    tokenizer = ImageTokenizer(network, batch_size=4)
    photos = pictures(11, 16, 16)
    ids = tokenizer.encode(photos)  # 4 + 4 + 3, in one bucket
    assert programs(tokenizer) == 1
    for count in (3, 4, 7):
        np.testing.assert_array_equal(tokenizer.encode(photos[:count]), ids[:count])
    assert programs(tokenizer) == 1
    np.testing.assert_array_equal(tokenizer.encode(photos[:1]), ids[:1])
    np.testing.assert_array_equal(tokenizer.encode(photos[:2]), ids[:2])
    assert programs(tokenizer) == 3
    tokenizer.encode(pictures(1, 15, 13))  # padded to 16 x 16
    assert programs(tokenizer) == 3
    tokenizer.encode(pictures(1, 15, 17))
    assert programs(tokenizer) == 4
    assert tokenizer.dispatch(photos[:1], "encode", full=True).shape == (4, 4, 4)
    assert programs(tokenizer) == 4


class Local(ImageTokenizer):
    """Codes are the mean brightness of a cell, and are decoded to it."""

    def _batched(self, x, method):
        assert max(x.shape[1:3]) <= (24 if method == "encode" else 6)
        f = self.config.factor
        if method == "decode":
            cells = np.repeat(np.repeat(x, f, axis=1), f, axis=2)
            return np.repeat(cells[..., None], 3, axis=-1).astype(np.float32)
        b, h, w, _ = x.shape
        cells = x.reshape(b, h // f, f, w // f, f, 3)
        return cells.mean(axis=(2, 4, 5)).round().astype(np.int32)


def test_tiles_of_a_local_network_give_the_whole(network):
    tokenizer = Local(network)
    photos = pictures(2, 75, 42)
    ids = tokenizer.encode_tiled(photos, tile=6, margin=1)
    padded = np.pad(photos, [(0, 0), (0, 1), (0, 2), (0, 0)], mode="edge")
    cells = padded.reshape(2, 19, 4, 11, 4, 3).mean(axis=(2, 4, 5))
    np.testing.assert_array_equal(ids, cells.round().astype(np.int32))
    again = tokenizer.decode_tiled(ids, tile=6, overlap=2, size=(75, 42))
    expected = np.repeat(np.repeat(ids, 4, axis=1), 4, axis=2)[:, :75, :42]
    np.testing.assert_array_equal(again[..., 1], expected)


def test_tiles_have_one_shape_and_one_tile_is_the_whole(network):
    tokenizer = ImageTokenizer(network, batch_size=4)
    photo = pictures(1, 60, 44)
    ids = tokenizer.encode_tiled(photo, tile=5, margin=1)
    assert ids.shape == (1, 15, 11) and programs(tokenizer) == 1
    picture = tokenizer.decode_tiled(ids, tile=5, overlap=2)
    assert picture.shape == (1, 60, 44, 3) and programs(tokenizer) == 2
    one = tokenizer.encode_tiled(photo, tile=15, margin=2)
    np.testing.assert_array_equal(one, tokenizer.encode(photo))
    one = tokenizer.decode_tiled(ids, tile=20, overlap=6)
    np.testing.assert_array_equal(one, tokenizer.decode(ids))
    with pytest.raises(UserError, match="cannot overlap by 6"):
        tokenizer.decode_tiled(ids, tile=6, overlap=6)


@pytest.mark.slow
def test_tile_borders_of_a_photo_do_not_show(demo, face):
    tokenizer = ImageTokenizer(demo)
    ids = tokenizer.encode(face)
    blended = tokenizer.tiling_effect(ids, tile=12, overlap=4)
    assert blended["border_gradient"] < 1.05 * blended["border_gradient_whole"]
    hard = tokenizer.tiling_effect(ids, tile=12, overlap=0)
    assert hard["border_gradient"] > 1.3 * hard["border_gradient_whole"]
    assert blended["psnr"] > max(hard["psnr"], 27)
    assert 0 < blended["largest"] < 128
    tiles = tokenizer.encode_tiled(face, tile=16, margin=4)
    original = image.to_unit_range(face)

    def error(image_ids):
        return np.mean((tokenizer.decode(image_ids) - original) ** 2)

    assert error(tiles) < 1.1 * error(ids)  # other codes, no worse picture


@pytest.mark.slow
def test_bfloat16_has_nearly_the_same_codes(demo, face):
    parts = face[0].reshape(4, 64, 4, 64, 3).swapaxes(1, 2).reshape(16, 64, 64, 3)
    full = ImageTokenizer(demo)
    half = ImageTokenizer(demo, dtype="bfloat16")
    assert (full.dtype, half.dtype) == ("float32", "bfloat16")
    ids = full.encode(parts)
    agreement = np.mean(half.encode(parts) == ids)
    assert 0.98 < agreement < 1
    difference = np.abs(half.decode(ids) - full.decode(ids))
    assert 0 < difference.mean() < 0.02
    assert half.decode(ids).dtype == np.float32
    assert half.network.digest == full.network.digest
    with pytest.raises(UserError, match="'float16' is unknown; use float32 or bfl"):
        ImageTokenizer(demo, dtype="float16")
    with pytest.raises(UserError, match="batch_size is 0"):
        ImageTokenizer(demo, batch_size=0)


def test_a_network_of_its_own_dtype_keeps_it(network):
    config = dataclasses.replace(network.config, dtype="bfloat16")
    own = dataclasses.replace(network, module=VQGAN(config))
    photos = pictures(2, 16, 16)
    ids = ImageTokenizer(own).encode(photos)
    expected = ImageTokenizer(network, dtype="bfloat16").encode(photos)
    np.testing.assert_array_equal(ids, expected)
    assert ImageTokenizer(own, dtype="float32").dtype == "float32"
