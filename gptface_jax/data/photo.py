"""A photo with what its file holds besides pixels, so that a result can keep it."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import struct

import numpy as np
from PIL import ExifTags, Image, ImageCms

from gptface_jax.data import image_io

_TAGS, _IFD = ExifTags.Base, ExifTags.IFD
# What a result keeps of the first directory: camera, date, author and resolution. The
# others describe the file (its size, its strips) or hold copies: a thumbnail would go
# on showing what was edited.
_KEPT = (
    _TAGS.ImageDescription, _TAGS.Make, _TAGS.Model, _TAGS.XResolution,
    _TAGS.YResolution, _TAGS.ResolutionUnit, _TAGS.Software, _TAGS.DateTime,
    _TAGS.Artist, _TAGS.HostComputer, _TAGS.Copyright,
)  # fmt: skip
# Of the camera's: maker notes hold previews and places, at offsets that would be wrong.
_LEFT_OUT = (
    _TAGS.MakerNote, _IFD.Interop, _TAGS.ExifImageWidth, _TAGS.ExifImageHeight
)  # fmt: skip
_MOST = 60_000  # bytes of EXIF that fit into a JPEG beside the rest


@dataclasses.dataclass(frozen=True)
class Photo:
    """Pixels in sRGB, and what goes on into a result.

    Attributes:
      pixels: uint8 [H,W,3], transparency laid over white, as `image_io.decode` has it.
      colours: uint8 [H,W,3], those of transparent pixels too.
      alpha: uint8 [H,W] opacity, or None.
      stored: uint8 [H,W,3], the colours as the file has them, in `profile`.
      profile: the ICC profile to write, b"" for none.
      exif: the EXIF block to write, b"" for none.
      dpi: (x, y) in pixels an inch, or None.
    """

    pixels: np.ndarray
    colours: np.ndarray
    alpha: np.ndarray | None
    stored: np.ndarray
    profile: bytes
    exif: bytes
    dpi: tuple[float, float] | None

    def edited(self, pixels: np.ndarray) -> Image.Image:
        """Changed `pixels` with the photo's transparency, in sRGB; RGB or RGBA.

        Pixels that did not change have their `colours`.
        """
        if self.alpha is None:
            return Image.fromarray(pixels)
        changed = (pixels != self.pixels).any(-1) & (self.alpha > 0)
        share = np.maximum(self.alpha, 1)[changed, None] / np.float32(255)
        straight = (pixels[changed] - 255 * (1 - share)) / share
        colours = self.colours.copy()
        colours[changed] = np.clip(np.round(straight), 0, 255)
        return Image.fromarray(np.dstack([colours, self.alpha]))

    def as_stored(self, picture: Image.Image | None = None) -> Image.Image:
        """A picture as it is to be written: in `profile`, its `info` with the rest.

        Args:
          picture: RGB or RGBA in sRGB, of the photo's size; default the photo. Pixels
            that have its `colours` get those of its file, whatever their rounding.
        """
        if picture is None:
            picture = self.edited(self.pixels)
        colours = np.asarray(picture.convert("RGB"))
        if self.stored is not self.colours:
            same = (colours == self.colours).all(-1, keepdims=True)
            colours = np.where(same, self.stored, _from_srgb(colours, self.profile))
        written = Image.fromarray(colours)
        if picture.mode == "RGBA":
            written.putalpha(picture.getchannel("A"))
        said = {"exif": self.exif, "icc_profile": self.profile, "dpi": self.dpi}
        written.info = {name: value for name, value in said.items() if value}
        return written


def read(
    source: image_io.Source,
    max_pixels: int = image_io.MAX_PIXELS,
    keep_location: bool = False,
) -> Photo:
    """The photo, opened.

    Args:
      source, max_pixels: see `image_io.decode`.
      keep_location: keep where it was taken (GPS), which is left out otherwise.

    Raises:
      UserError: see `image_io.decode`.
    """
    image = image_io.upright(source, max_pixels)
    picture = image_io.to_srgb(image)
    pixels, alpha = image_io.over_white(picture), None
    colours = pixels
    if picture.mode == "RGBA":
        alpha = np.asarray(picture.getchannel("A"))
        colours = np.asarray(picture.convert("RGB"))
    stored, profile = colours, image.info.get("icc_profile") or b""
    if profile:
        own = _colours(image)
        if own is not None and _usable(profile):
            stored = own
        else:  # of another colour space than the result can have
            applied = (colours != own).any() if own is not None else True
            profile = _srgb() if applied else b""
    exif = _exif(image, keep_location)
    return Photo(pixels, colours, alpha, stored, profile, exif, _dpi(image))


def _colours(image: Image.Image) -> np.ndarray | None:
    """The colours of an 8-bit RGB picture as they are, None of another one."""
    if image.mode not in ("RGB", "RGBA", "P", "PA"):
        return None
    return np.asarray(image.convert("RGBA").convert("RGB"))


@functools.lru_cache(8)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform:
    into = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), into, "RGB", "RGB")


def _usable(profile: bytes) -> bool:
    """Whether a profile is of RGB, and colours can be brought into it."""
    try:
        return _transform(profile) is not None
    except (ImageCms.PyCMSError, OSError):
        return False


def _from_srgb(colours: np.ndarray, profile: bytes) -> np.ndarray:
    picture = Image.fromarray(colours)
    return np.asarray(ImageCms.applyTransform(picture, _transform(profile)))


@functools.cache
def _srgb() -> bytes:
    """An sRGB profile, the same in every process: its header has a date."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + struct.pack(">6H", 2000, 6, 1, 0, 0, 0) + made[36:]


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = (float(v) for v in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    fits = all(math.isfinite(v) and 0 < v < 1e5 for v in (x, y))
    return (x, y) if fits else None


def _exif(image: Image.Image, keep_location: bool) -> bytes:
    """The EXIF entries of camera, date and author that a result keeps."""
    try:
        given, kept = image_io.exif_of(image), Image.Exif()
        kept.update({tag: given[tag] for tag in _KEPT if tag in given})
        camera = dict(given.get_ifd(_IFD.Exif))
        for tag in _LEFT_OUT:
            camera.pop(tag, None)
        if camera:
            camera[_TAGS.ExifImageWidth], camera[_TAGS.ExifImageHeight] = image.size
            kept.get_ifd(_IFD.Exif).update(camera)
        gps = given.get_ifd(_IFD.GPSInfo) if keep_location else {}
        if gps:
            kept.get_ifd(_IFD.GPSInfo).update(gps)
        block = kept.tobytes() if len(kept) or camera or gps else b""
    except Exception:  # broken EXIF is no reason to refuse a good picture
        return b""
    return block if len(block) <= _MOST else b""
