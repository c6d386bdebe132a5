"""Pictures from files and bytes: read safely, upright, in sRGB; masks likewise."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import threading
import warnings
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError

# Larger pictures are refused before a pixel is decoded.
MAX_PIXELS = 64_000_000
# What is opened. Pillow knows more, among them EPS, for which it starts Ghostscript: no
# file of a stranger's may do that.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

Source = str | os.PathLike | bytes | Image.Image | np.ndarray


class TooLarge(UserError):
    """A picture of more pixels than are read."""


class Damaged(UserError):
    """Error of a file that begins like a picture and cannot be decoded."""


# Filters of warnings are the process's: threads that change them and put them back
# would put back one another's.
_FILTERS = threading.Lock()
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RAW = "Raw profile type exif"  # where old PNGs have it
# What else names an orientation, which the turned pixels no longer have.
_TOLD = ("exif", _RAW, "xmp", "XML:com.adobe.xmp", "raw profile type xmp")
# Of a TIFF's own tags those that EXIF says too.
_OF_TIFF = {
    ExifTags.Base[name].value
    for name in "ImageDescription Make Model Orientation XResolution YResolution "
    "ResolutionUnit Software DateTime Artist Copyright".split()
}


def _name(source: Any) -> str:
    if isinstance(source, (str, os.PathLike)):
        return f"'{os.fspath(source)}'"
    return f"the {'encoded' if isinstance(source, bytes) else 'given'} picture"


def _open(source: Source, max_pixels: int) -> Image.Image:
    """Reads the header only; refuses what is no picture or too large."""
    name = _name(source)
    if isinstance(source, Image.Image):
        image = source
    elif isinstance(source, np.ndarray):
        image = _from_array(source, name)
    else:
        image = _from_bytes(_read(source, name), name, max_pixels)
    width, height = image.size
    if width * height > max_pixels:
        raise TooLarge(
            f"{name} is {width} x {height} = {width * height:,} pixels; at most "
            f"{max_pixels:,} are read, scale it down first"
        )
    return image


def _from_array(pixels: np.ndarray, name: str) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    fits = pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[2] in (3, 4)
    if pixels.dtype != np.uint8 or not fits or not pixels.size:
        raise UserError(
            f"{name} is an array {pixels.dtype}{list(pixels.shape)}; give uint8 "
            "[H,W,3], or 1 or 4 channels"
        )
    return Image.fromarray(pixels)


def _read(source: str | os.PathLike | bytes, name: str) -> bytes:
    data = source
    if not isinstance(source, bytes):
        path = pathlib.Path(source)
        if path.is_dir():
            raise UserError(f"{name} is a folder; give one picture file")
        if not path.is_file():
            raise UserError(f"picture {name} does not exist; check the path")
        data = path.read_bytes()
    if not data:
        raise UserError(f"{name} is empty (0 bytes); give a JPEG, PNG or WebP file")
    return data


def _from_bytes(data: bytes, name: str, max_pixels: int) -> Image.Image:
    heif = _is_heif(data)
    if heif:
        _register_heif(name)
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            formats = ["HEIF"] if heif else FORMATS
            return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError:
        raise TooLarge(
            f"{name} holds far more than the {max_pixels:,} pixels allowed; scale it "
            "down first"
        ) from None
    except Exception:
        raise UserError(
            f"{name} is not a picture that can be read; give a JPEG, PNG or WebP file"
        ) from None


def _is_heif(data: bytes) -> bool:
    """HEIC and its kin, which are no AVIF: that Pillow reads itself."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF


def _register_heif(name: str) -> None:
    try:
        import pillow_heif
    except ImportError:
        raise UserError(
            f"{name} is a HEIC picture; {extras.install('heif')} to read it, or "
            "give a JPEG, PNG or WebP file"
        ) from None
    pillow_heif.register_heif_opener()


def _load(image: Image.Image, source: Source) -> Image.Image:
    """All pixels of a picture, upright."""
    # Pillow turns TIFFs by what their XMP says; see `exif_of`.
    xmp = image.info.pop("xmp", None)
    try:
        image.seek(0)  # the first frame of an animation
        image.load()
    except Exception as error:
        raise Damaged(
            f"{_name(source)} is damaged or cut short ({error}); get the file again"
        ) from None
    finally:
        if xmp is not None:
            image.info["xmp"] = xmp
    exif = exif_of(image)
    turn = _TURNS.get(exif.pop(ExifTags.Base.Orientation, 1))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = {k: v for k, v in image.info.items() if k not in _TOLD}
    with contextlib.suppress(Exception):  # of broken EXIF the pixels count
        turned.info["exif"] = exif.tobytes()
    return turned


def exif_of(image: Image.Image) -> Image.Exif:
    """The EXIF block of a picture, empty where there is none that can be read.

    `Image.getexif` adds an orientation that only the XMP tells; programs that turn the
    pixels leave the one there behind, and no viewer looks at it.
    """
    kept = {k: v for k, v in image.info.items() if k in ("exif", _RAW)}
    if not kept and hasattr(image, "tag_v2"):  # a TIFF is one
        exif = Image.Exif()
        exif.update({k: v for k, v in image.tag_v2.items() if k in _OF_TIFF})
        return exif
    block = Image.new("1", (1, 1))
    block.info = kept
    try:
        return block.getexif()
    except Exception:
        return Image.Exif()  # broken EXIF is no reason to refuse a good picture


def to_srgb(image: Image.Image) -> Image.Image:
    """Any picture as 8-bit RGB, or RGBA where it has transparency, in sRGB.

    Applies the embedded colour profile, if there is a usable one.
    """
    image, alpha = _to_eight_bit(image), None
    profile = image.info.get("icc_profile")
    if _has_alpha(image):
        grey = image.mode.startswith("L")
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB").convert("L" if grey and profile else "RGB")
    elif image.mode not in ("L", "CMYK"):
        image = image.convert("RGB")
    if profile:
        try:
            image = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile is no reason to refuse a good picture
    image = image.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return image


def over_white(image: Image.Image) -> np.ndarray:
    """RGB or RGBA as it shows on white paper; uint8 [H,W,3]."""
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """The picture with 16-bit, 32-bit and float modes as 8-bit grey."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I"):
        values = values / 257.0 if values.max(initial=0) > 255 else values
    elif values.max(initial=0) <= 1.0:
        values = values * 255.0
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


def _has_alpha(image: Image.Image) -> bool:
    modes = ("RGBA", "LA", "PA", "La", "RGBa")
    return "transparency" in image.info or image.mode in modes


def decode(source: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Any picture as sRGB, upright.

    EXIF orientation and colour profile are applied, transparency is laid over
    white, CMYK, palette and 16-bit pictures are converted, and of an animation
    the first frame is taken. The size is checked before a pixel is decoded. What is
    left out here `data.photo.read` keeps.

    Args:
      source: path, encoded bytes, PIL image or uint8 array.
      max_pixels: the most pixels accepted.

    Returns:
      uint8 [H,W,3].

    Raises:
      UserError: no such file, not a picture, damaged, or too large.
    """
    return over_white(to_srgb(upright(source, max_pixels)))


def size(source: Source) -> tuple[int, int]:
    """(H, W) of a picture as `decode` gives it; reads the header alone.

    Raises:
      UserError: no picture.
    """
    image = _open(source, MAX_PIXELS)
    lies = exif_of(image).get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return image.size if lies else image.size[::-1]


def class_map(source: Source, size: tuple[int, int]) -> np.ndarray:
    """The classes of a parsing map: the grey values, or numbers of a palette, of a PNG.

    Args:
      source: path, encoded bytes, or PIL image.
      size: (H, W) of the picture; a map of another size is brought to it, each pixel
        taking the nearest one's class.

    Returns:
      uint8 [H,W].

    Raises:
      UserError: no picture, or one whose pixels are colours and not numbers.
    """
    image = _load(_open(source, MAX_PIXELS), source)
    if image.mode not in ("L", "P"):
        raise UserError(
            f"{_name(source)} has mode {image.mode}; give a map as a PNG whose grey "
            "values (8 bit) or palette numbers are the classes"
        )
    nearest = image.resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(nearest)


def upright(source: Source, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture with its EXIF orientation applied, otherwise as its file has it.

    Raises:
      UserError: see `decode`.
    """
    return _load(_open(source, max_pixels), source)


# A mask's edges may be soft and JPEG may have blurred them; tones of 32 to 223 on more
# than a quarter of it, or colours on more than a hundredth, are a picture's.
_MOST_GREY, _MOST_COLOURED, _COLOURED = 0.25, 0.01, 48
_FEW_COLOURS = 32  # at 5 bits a channel; photographs have hundreds
_PAINT = (
    "paint what may change in white (255) on black in a picture of the photo's size"
)


def decode_mask(source: Source, size: tuple[int, int] | None = None) -> np.ndarray:
    """The mask of a picture: white = change.

    Of a picture with transparency a pixel must be white and opaque. Where the opaque
    pixels say nothing, the transparency does: of a few colours painted on a transparent
    sheet opaque = change; of a photograph, or of one colour all along the border, the
    hole in it = change, as other editors mark it.

    Args:
      source: as for `decode`; bool arrays are taken as they are.
      size: (H, W) that the mask must have, or None.

    Returns:
      bool [H,W].

    Raises:
      UserError: unreadable, of another size, with nothing masked, or a picture that is
        no mask: opaque and coloured, or of many tones.
    """
    if isinstance(source, np.ndarray) and source.dtype == bool:
        mask, brightest = source, 255
    else:
        if isinstance(source, np.ndarray) and source.dtype != np.uint8:
            raise UserError(
                f"the mask is an array {source.dtype}{list(source.shape)}; give bool "
                "[H,W], True = change: mask > 0.5 of one that holds 0 and 1"
            )
        image = _to_eight_bit(_load(_open(source, MAX_PIXELS), source))
        mask, brightest = _marked(np.asarray(image.convert("RGBA")), _name(source))
    if size is not None and mask.shape != tuple(size):
        raise UserError(
            f"mask {_name(source)} is {mask.shape[1]} x {mask.shape[0]} and the photo "
            f"{size[1]} x {size[0]}; give a mask of the photo's size"
        )
    if not mask.any():
        dark = f": its brightest value is {brightest}" if 0 < brightest < 128 else ""
        ones = "; if it holds 0 and 1, multiply it by 255" if brightest == 1 else ""
        raise UserError(f"mask {_name(source)} marks nothing{dark}; {_PAINT}{ones}")
    return mask


def _marked(pixels: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """Marked pixels bool [H,W] of a mask uint8 [H,W,4], and its brightest value."""
    opaque, colours = pixels[..., 3] >= 128, pixels[..., :3]
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    seen = colours[opaque]
    if not len(seen):
        return opaque, 0
    tones = grey[opaque]
    coloured = (seen.max(1) - seen.min(1) > _COLOURED).mean()
    toned = ((tones >= 32) & (tones < 224)).mean() > _MOST_GREY
    toned = toned and len(np.unique(tones)) > _FEW_COLOURS
    plain_mask = coloured <= _MOST_COLOURED and not toned
    marked, brightest = opaque & (grey >= 128), int(tones.max())
    if opaque.all():
        if not plain_mask:
            what = "coloured" if coloured > _MOST_COLOURED else "of many tones"
            raise UserError(
                f"mask {name} is a picture that is {what}, and does not say what may "
                f"change; {_PAINT}, or make it transparent there"
            )
        return marked, brightest
    if np.ptp(seen, 0).max() == 0:
        border = (opaque[0], opaque[-1], opaque[:, 0], opaque[:, -1])
        return ~opaque if all(map(np.all, border)) else opaque, 255
    if plain_mask:
        return marked, brightest
    few = len(np.unique(seen >> 3, axis=0)) <= _FEW_COLOURS
    return opaque if few else ~opaque, 255
