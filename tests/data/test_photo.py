"""What a photo's file holds besides pixels."""

import functools
import io
import re

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io
from gptface_jax.data import photo as photos

XMP = b'<x:xmpmeta><r tiff:Orientation="6" xmlns:tiff="http://ns/"/></x:xmpmeta>'


@pytest.fixture
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (24, 40, 3), np.uint8)


def exif(**tags):
    block = Image.Exif()
    block.update({ExifTags.Base[name].value: v for name, v in tags.items()})
    block.get_ifd(ExifTags.IFD.Exif).update({
        ExifTags.Base.DateTimeOriginal: "2020:01:02 03:04:05",
        ExifTags.Base.MakerNote: b"preview",
        ExifTags.Base.ExifImageWidth: 9999,
    })  # fmt: skip
    place = {1: "N", 2: (52.0, 30.0, 0.0), 3: "E", 4: (13.0, 24.0, 0.0)}
    block.get_ifd(ExifTags.IFD.GPSInfo).update(place)
    return block


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def block_of(photo):
    block = Image.Exif()
    block.load(photo.exif)
    return block


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_orientation_is_applied_once_and_only_that_of_exif(pixels, kind):
    told = exif(Make="Camera", Orientation=6)
    given = Image.fromarray(pixels)
    data = encoded(given, kind, exif=told)
    photo = photos.read(data)
    assert photo.pixels.shape == (40, 24, 3)
    block = block_of(photo)
    assert block[ExifTags.Base.Make] == "Camera"
    assert ExifTags.Base.Orientation not in block
    again = photos.read(encoded(photo.as_stored(), "PNG", **photo.as_stored().info))
    np.testing.assert_array_equal(again.pixels, photo.pixels)
    if kind in ("JPEG", "WEBP", "AVIF"):
        data = encoded(given, kind, xmp=XMP)
        assert photos.read(data).pixels.shape == (24, 40, 3)
        data = encoded(given, kind, xmp=XMP, exif=exif(Orientation=1))
        assert photos.read(data).pixels.shape == (24, 40, 3)
    if kind == "TIFF":
        data = encoded(given, kind, tiffinfo={700: XMP})
        assert photos.read(data).pixels.shape == (24, 40, 3)


def test_orientations_turn_as_they_say(pixels):
    for number in range(1, 9):
        data = encoded(Image.fromarray(pixels), exif=exif(Orientation=number))
        turned = image_io.decode(data)
        wanted = {
            1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
            5: pixels.swapaxes(0, 1), 6: np.rot90(pixels, -1),
            7: pixels[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(pixels),
        }[number]  # fmt: skip
        np.testing.assert_array_equal(turned, wanted)


def test_camera_and_date_stay_and_the_place_goes(pixels):
    data = encoded(
        Image.fromarray(pixels), "JPEG", exif=exif(Model="X100"), dpi=(300,) * 2
    )
    photo = photos.read(data)
    block = block_of(photo)
    camera = block.get_ifd(ExifTags.IFD.Exif)
    assert block[ExifTags.Base.Model] == "X100" and photo.dpi == (300, 300)
    assert camera[ExifTags.Base.DateTimeOriginal] == "2020:01:02 03:04:05"
    assert camera[ExifTags.Base.ExifImageWidth] == 40  # no longer 9999
    assert ExifTags.Base.MakerNote not in camera and b"preview" not in photo.exif
    assert not block.get_ifd(ExifTags.IFD.GPSInfo)
    kept = block_of(photos.read(data, keep_location=True))
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[2] == (52.0, 30.0, 0.0)


def test_broken_metadata_is_left_out(pixels):
    picture = Image.fromarray(pixels)
    for block in (b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff", b"rubbish"):
        photo = photos.read(encoded(picture, exif=block, icc_profile=b"no profile"))
        np.testing.assert_array_equal(photo.pixels, pixels)
        assert photo.profile == b"" and photo.dpi is None
        photo.as_stored()


@functools.cache  # the second in which it is made stands in it
def wide():
    """A profile other than sRGB: the Lab profile cannot hold RGB, a made one can."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_unchanged_pixels_keep_the_values_of_the_file(pixels):
    data = encoded(Image.fromarray(pixels), icc_profile=wide())
    photo = photos.read(data)
    edited = photo.pixels.copy()
    edited[:10] = 255 - edited[:10]
    written = photo.as_stored(photo.edited(edited))
    np.testing.assert_array_equal(np.asarray(written)[10:], pixels[10:])
    assert written.info["icc_profile"] == wide()
    shown = image_io.decode(encoded(written, icc_profile=written.info["icc_profile"]))
    assert np.abs(shown[:10].astype(int) - edited[:10]).max() <= 2


def test_a_profile_of_other_than_rgb_becomes_srgb():
    data = encoded(Image.new("CMYK", (8, 8), (0, 200, 200, 0)), "JPEG")
    assert photos.read(data).profile == b""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    photo = photos.read(encoded(Image.new("RGB", (8, 8), (9, 8, 7)), icc_profile=lab))
    assert photo.profile in (b"", photos._srgb())
    assert photos._srgb() == photos._srgb.__wrapped__()
    read = ImageCms.ImageCmsProfile(io.BytesIO(photos._srgb()))
    assert read.profile.creation_date.year == 2000


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_carried_through(pixels, kind):
    alpha = np.zeros((24, 40), np.uint8)
    alpha[:, 10:20], alpha[:, 20:] = 128, 255
    given = Image.fromarray(np.dstack([pixels, alpha]))
    photo = photos.read(encoded(given, kind, lossless=True, exact=True))
    same = photo.edited(photo.pixels)
    np.testing.assert_array_equal(same, given)
    edited = photo.pixels.copy()
    edited[12:] = (200, 180, 190)
    result = photo.edited(edited)
    assert result.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(result)[:12], np.asarray(given)[:12])
    np.testing.assert_array_equal(np.asarray(result)[..., 3], alpha)
    # Shown on white, it is what was drawn.
    shown = image_io.decode(result)[12:, 10:].astype(int)
    assert np.abs(shown - (200, 180, 190)).max() <= 1


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_heic_and_avif_open(kind):
    smooth = np.linspace(0, 255, 64, dtype=np.uint8)
    given = Image.fromarray(np.stack([np.tile(smooth, (48, 1))] * 3, -1))
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    told = exif(Model="X", Orientation=6).tobytes()
    data = encoded(given, kind, quality=95, exif=told)
    photo = photos.read(data)
    assert photo.pixels.shape == (64, 48, 3)
    expected = np.rot90(np.asarray(given), -1).astype(int)
    assert np.abs(photo.pixels - expected).mean() < 4
    assert block_of(photo)[ExifTags.Base.Model] == "X"


def test_without_the_extra_heic_is_told_by_name(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    data = b"\x00\x00\x00\x18ftypheic" + bytes(64)
    with pytest.raises(UserError, match="HEIC .*" + re.escape(extras.install("heif"))):
        image_io.decode(data)
