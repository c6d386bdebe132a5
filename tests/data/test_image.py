import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFilter

from gptface_jax.core.errors import UserError
from gptface_jax.data import blending, image, image_io, regions
from gptface_jax.data.synthetic import SyntheticFaces


def encoded(picture: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def gradient(height=12, width=8) -> np.ndarray:
    rows = np.arange(height)[:, None] * np.ones(width)
    columns = np.ones(height)[:, None] * np.arange(width)
    return np.stack([rows * 9, columns * 9, rows + columns], -1).astype(np.uint8)


def test_unit_range_is_exact_both_ways():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    unit = image.to_unit_range(levels)
    assert unit.dtype == np.float32
    assert unit.min() == -1.0 and unit.max() == 1.0
    np.testing.assert_array_equal(image.from_unit_range(unit), levels)


def test_exif_orientation_is_applied():
    picture = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to show
    data = encoded(picture, "PNG", exif=exif)
    np.testing.assert_array_equal(image_io.decode(data), np.rot90(gradient(), -1))


def test_transparency_is_laid_over_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    pixels[0, 1] = (255, 0, 0, 0)
    decoded = image_io.decode(encoded(Image.fromarray(pixels, "RGBA"), "PNG"))
    assert decoded[0, 0].tolist() == [255, 0, 0]
    assert decoded[0, 1].tolist() == [255, 255, 255]


def test_sixteen_bit_grey_keeps_its_range():
    grey = np.array([[0, 65535], [32896, 257]], np.uint16)
    decoded = image_io.decode(encoded(Image.fromarray(grey), "PNG"))
    assert decoded[..., 0].tolist() == [[0, 255], [128, 1]]


def test_cmyk_palette_and_grey_become_three_channels():
    picture = Image.fromarray(gradient())
    for mode, form in (("CMYK", "JPEG"), ("P", "PNG"), ("L", "PNG"), ("1", "PNG")):
        decoded = image_io.decode(encoded(picture.convert(mode), form))
        assert decoded.shape == (12, 8, 3) and decoded.dtype == np.uint8


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((4, 4, 3), v, np.uint8)) for v in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert image_io.decode(data).max() < 20


def linear_profile() -> bytes:
    """sRGB's primaries with linear light: Y = X^1 instead of the sRGB curve."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tags,) = struct.unpack_from(">I", profile, 128)
    changed = bytearray(profile)
    for i in range(tags):
        name, start, _ = struct.unpack_from(">4sII", profile, 132 + 12 * i)
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            assert profile[start : start + 4] == b"para"
            # Function 0 (a power), exponent 1.0 in 16.16 fixed point.
            struct.pack_into(">HHI", changed, start + 8, 0, 0, 1 << 16)
    return bytes(changed)


def test_a_colour_profile_is_converted_to_srgb():
    grey = np.array([[0, 55, 128, 255]], np.uint8)
    pixels = np.repeat(grey[..., None], 3, -1)
    data = encoded(Image.fromarray(pixels), "PNG", icc_profile=linear_profile())
    # The sRGB curve by hand: 1.055 x^(1/2.4) - 0.055.
    expected = [0, 128, 188, 255]
    assert np.abs(image_io.decode(data)[0].astype(int).T - expected).max() <= 1
    broken = encoded(Image.fromarray(gradient()), "PNG", icc_profile=b"nonsense")
    np.testing.assert_array_equal(image_io.decode(broken), gradient())


def test_broken_exif_is_ignored():
    for form in ("PNG", "WEBP"):
        options = {} if form == "PNG" else {"lossless": True}
        data = encoded(Image.fromarray(gradient()), form, exif=b"no EXIF", **options)
        np.testing.assert_array_equal(image_io.decode(data), gradient())


def test_arrays_of_one_three_and_four_channels():
    grey = gradient()[..., :1]
    np.testing.assert_array_equal(image_io.decode(grey), np.repeat(grey, 3, -1))
    opaque = np.concatenate([gradient(), np.full((12, 8, 1), 255, np.uint8)], -1)
    np.testing.assert_array_equal(image_io.decode(opaque), gradient())
    for shape in ((4, 4, 2), (4, 4, 5), (4,), (0, 4, 3)):
        with pytest.raises(UserError, match="give uint8"):
            image_io.decode(np.zeros(shape, np.uint8))


def test_bad_files_are_named_with_a_remedy(tmp_path):
    png = encoded(Image.fromarray(gradient(64, 64)), "JPEG")
    files = {
        "empty.jpg": (b"", "is empty"),
        "text.jpg": (b"hello, no picture", "not a picture"),
        "cut.jpg": (png[: len(png) // 2], "damaged"),
    }
    for name, (content, said) in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=said) as caught:
            image_io.decode(path)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="does not exist"):
        image_io.decode(tmp_path / "none.jpg")
    with pytest.raises(UserError, match="folder"):
        image_io.decode(tmp_path)
    with pytest.raises(UserError, match="uint8"):
        image_io.decode(np.zeros((4, 4, 3), np.float32))


def test_large_pictures_are_refused_before_decoding(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("1", (30_000, 3_000)).save(path)
    with pytest.raises(UserError, match="30000 x 3000 = 90,000,000"):
        image_io.decode(path)
    Image.new("1", (300, 30)).save(path)
    with pytest.raises(UserError, match="300 x 30 = 9,000"):
        image_io.decode(path, max_pixels=8_999)
    assert image_io.decode(path, max_pixels=9_000).shape == (30, 300, 3)
    for opened in (Image.new("L", (30, 20)), np.zeros((20, 30), np.uint8)):
        with pytest.raises(UserError, match="30 x 20 = 600 pixels"):
            image_io.decode(opened, max_pixels=599)


def test_one_pixel_and_extreme_shapes_fit():
    assert image.fit(np.zeros((1, 1, 3), np.uint8), 16).shape == (16, 16, 3)
    wide = np.zeros((10, 3000, 3), np.uint8)
    assert image.fit(wide, 32).shape == (32, 32, 3)


def test_masks():
    mask = np.zeros((6, 4), np.uint8)
    mask[2:4] = 255
    read = image_io.decode_mask(encoded(Image.fromarray(mask), "PNG"), (6, 4))
    np.testing.assert_array_equal(read, mask > 0)
    with pytest.raises(UserError, match="4 x 6 and the photo 5 x 6"):
        image_io.decode_mask(mask, (6, 5))
    with pytest.raises(UserError, match="marks nothing"):
        image_io.decode_mask(np.zeros((6, 4), np.uint8))
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    assert image_io.decode_mask(grey).tolist() == [[False, False, True, True]]
    assert image_io.decode_mask(grey[..., None]).tolist() == [
        [False, False, True, True]
    ]


def paint(white, opaque) -> Image.Image:
    """A 4 x 6 picture: white and opaque at the given pixels."""
    pixels = np.zeros((6, 4, 4), np.uint8)
    pixels[white] = (255, 255, 255, 0)
    pixels[(*opaque, 3)] = 255
    return Image.fromarray(pixels, "RGBA")


def test_masks_with_transparency():
    nothing, everything = np.s_[:0, :0], np.s_[:, :]
    white, corner = np.s_[2:4, 1:3], np.s_[0, 0]
    expected = np.zeros((6, 4), bool)
    expected[white] = True
    # Paint of one colour, black or white, on a transparent sheet: alpha decides.
    for painted in (paint(nothing, white), paint(white, white)):
        np.testing.assert_array_equal(image_io.decode_mask(painted), expected)
    np.testing.assert_array_equal(
        image_io.decode_mask(paint(everything, white)), expected
    )
    # White on black with a transparent corner: the colours decide.
    picture = np.array(paint(white, everything))
    picture[(*corner, 3)] = 0
    np.testing.assert_array_equal(
        image_io.decode_mask(Image.fromarray(picture)), expected
    )
    # White that is transparent does not count.
    picture[corner] = (255, 255, 255, 0)
    np.testing.assert_array_equal(
        image_io.decode_mask(Image.fromarray(picture)), expected
    )
    # Opaque all over: no colour is left out.
    assert image_io.decode_mask(paint(everything, everything)).all()
    with pytest.raises(UserError, match="marks nothing"):
        image_io.decode_mask(paint(nothing, everything))


def test_a_photo_is_no_mask_but_its_hole_is_one():
    photo = SyntheticFaces(size=64, count=1, seed=3)[0].image
    hole = np.zeros((64, 64), bool)
    hole[20:40, 10:50] = True
    alpha = np.where(hole, 0, 255).astype(np.uint8)
    for colours in (photo, np.zeros_like(photo), np.full_like(photo, 255)):
        with_hole = np.dstack([colours, alpha])
        np.testing.assert_array_equal(image_io.decode_mask(with_hole), hole)
    webp = encoded(Image.fromarray(np.dstack([photo, alpha])), "WEBP", exact=True)
    np.testing.assert_array_equal(image_io.decode_mask(webp), hole)
    # Strokes of two colours on a transparent sheet are no photograph.
    strokes = np.zeros((64, 64, 4), np.uint8)
    strokes[hole] = (255, 0, 0, 255)
    strokes[20:25, 10:50] = (0, 0, 255, 255)
    np.testing.assert_array_equal(image_io.decode_mask(strokes), hole)
    grey = np.asarray(Image.fromarray(photo).convert("L"))
    red = np.where(hole[..., None], np.uint8([255, 0, 0]), np.uint8(0))
    for wrong, said in (
        (photo, "coloured"), (red, "coloured"), (grey, "of many tones"),
        (np.where(hole[..., None], np.uint8([255, 0, 0]), photo), "coloured"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"picture that is {said}.*white"):
            image_io.decode_mask(wrong)


def test_masks_with_soft_edges_and_of_jpeg_stay_masks():
    mask = np.zeros((128, 128), np.uint8)
    mask[40:90, 30:100] = 255
    soft = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(4)))
    rough = encoded(Image.fromarray(np.dstack([mask] * 3)), "JPEG", quality=30)
    for one in (soft, rough, np.dstack([soft] * 3)):
        assert (image_io.decode_mask(one) != (mask > 0)).mean() < 0.005


def test_masks_of_0_and_1_say_how_to_become_one():
    ones = np.eye(5, dtype=np.uint8)
    with pytest.raises(UserError, match="brightest value is 1; .*multiply it by 255"):
        image_io.decode_mask(Image.fromarray(ones))
    with pytest.raises(UserError, match="brightest value is 18; .*white"):
        image_io.decode_mask(ones * 18)
    for kind in (np.float32, np.int64):
        with pytest.raises(UserError, match=r"mask > 0\.5"):
            image_io.decode_mask(ones.astype(kind))
    assert image_io.decode_mask(ones > 0).sum() == 5


def test_palette_masks_with_transparency():
    indices = np.zeros((6, 4), np.uint8)
    indices[2:4, 1:3] = 1
    indices[0, 0] = 2
    picture = Image.fromarray(indices, "P")
    picture.putpalette([0, 0, 0, 255, 255, 255, 255, 255, 255])
    read = image_io.decode_mask(encoded(picture, "PNG", transparency=2))
    np.testing.assert_array_equal(read, indices == 1)
    only = Image.fromarray((indices == 1).astype(np.uint8), "P")
    only.putpalette([255, 255, 255, 0, 0, 0])
    read = image_io.decode_mask(encoded(only, "PNG", transparency=0))
    np.testing.assert_array_equal(read, indices == 1)


def test_tokens_by_hand():
    mask = np.zeros((8, 8), bool)
    mask[3, 4] = True
    tokens = image.pixels_to_tokens(mask, (2, 2))
    assert tokens.tolist() == [[False, True], [False, False]]
    # 5 pixels on 2 cells: the middle pixel touches both.
    middle = np.zeros((5, 5), bool)
    middle[2, 2] = True
    assert image.pixels_to_tokens(middle, (2, 2)).all()


@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32 - 1)
)
@settings(max_examples=60, deadline=None)
def test_tokens_cover_every_masked_pixel(height, width, cells, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.1
    tokens = image.pixels_to_tokens(mask, (cells, cells))
    if cells <= min(height, width):
        assert (image.tokens_to_pixels(tokens, mask.shape) | ~mask).all()
    assert tokens.any() == mask.any()


def test_dilate_by_hand():
    mask = np.zeros((5, 5), bool)
    mask[2, 2] = True
    assert image.dilate(mask).sum() == 9
    assert image.dilate(mask, 2).all()
    assert image.dilate(mask, 0).sum() == 1


def test_prefill_hides_and_keeps():
    rng = np.random.default_rng(0)
    photo = rng.uniform(-1, 1, (33, 20, 3)).astype(np.float32)
    mask = np.zeros((33, 20), bool)
    mask[5:25, 3:15] = True
    other = np.where(mask[..., None], -photo, photo)
    filled = blending.prefill(photo, mask)
    np.testing.assert_array_equal(filled, blending.prefill(other, mask))
    np.testing.assert_array_equal(filled[~mask], photo[~mask])
    assert np.abs(filled).max() <= 1.0
    flat = np.full((16, 16, 3), 0.25, np.float32)
    flat_mask = np.zeros((16, 16), bool)
    flat_mask[4:12, 4:12] = True
    np.testing.assert_allclose(blending.prefill(flat, flat_mask), 0.25, atol=1e-6)
    assert not blending.prefill(flat, np.ones((16, 16), bool)).any()


@pytest.mark.parametrize("side", [64, 256, 1003])
def test_shrunk_pictures_hide_what_is_masked(side):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 9, 3), np.uint8)
    photo = np.array(Image.fromarray(coarse).resize((side, side)))
    mask = np.zeros((side, side), bool)
    mask[side // 3 : side // 2, side // 4 : side // 2 + 3] = True
    black, white = photo.copy(), photo.copy()
    black[mask], white[mask] = 0, 255
    assert (image.resize(black, (64, 64)) != image.resize(white, (64, 64))).any()
    shrunk = blending.shrink_hidden(black, mask, (64, 64))
    np.testing.assert_array_equal(shrunk, blending.shrink_hidden(white, mask, (64, 64)))
    # Where nothing is hidden it is the resized photo.
    far = np.abs(shrunk[40:].astype(int) - image.resize(photo, (64, 64))[40:])
    assert far.max() <= (0 if side <= 256 else 2)


@given(st.integers(0, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_composite_never_touches_the_outside(feather, seed):
    rng = np.random.default_rng(seed)
    original, edited = rng.integers(0, 256, (2, 17, 23, 3), dtype=np.uint8)
    mask = rng.random((17, 23)) < 0.5
    result = blending.composite(original, edited, mask, feather)
    np.testing.assert_array_equal(result[~mask], original[~mask])
    if feather == 0:
        np.testing.assert_array_equal(result[mask], edited[mask])


def test_feather_ramp_by_hand():
    mask = np.zeros((1, 9), bool)
    mask[0, 2:7] = True
    mask = np.repeat(mask, 9, 0)
    alpha = blending.feathered(mask, 2)[4]
    np.testing.assert_allclose(
        alpha, np.array([0, 0, 1, 2, 3, 2, 1, 0, 0]) / 3, atol=1e-6
    )


def test_regions():
    for name in regions.REGIONS:
        mask = regions.region_mask(name, 64)
        assert mask.shape == (64, 64) and 0 < mask.mean() < 0.9
    assert set(regions.OF_ATTRIBUTE.values()) <= set(regions.REGIONS)
    with pytest.raises(UserError, match="did you mean 'mouth'"):
        regions.region_mask("mouht", 64)
    assert regions.box_mask((1, 2, 3, 5), (8, 8)).sum() == 6
    with pytest.raises(UserError, match="does not fit"):
        regions.box_mask((1, 2, 9, 5), (8, 8))
