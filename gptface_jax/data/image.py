"""Image geometry, all of it: files to arrays, pixels to tokens and back (SPEC A.10).

Inside the package a picture is either uint8 [H,W,3] sRGB ("array") or float32
[H,W,3] in [-1,1] ("unit range"). Masks are bool [H,W], True = to be changed.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import pathlib
import warnings
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from gptface_jax.core.errors import UserError

# Larger pictures are refused before a pixel is decoded.
MAX_PIXELS = 64_000_000

Source = str | os.PathLike | bytes | Image.Image | np.ndarray

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
        raise UserError(
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
    if _is_heif(data):
        _register_heif(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError:
        raise UserError(
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
            f"{name} is a HEIC picture; pip install 'gptface_jax[heif]' to read it, or "
            "give a JPEG, PNG or WebP file"
        ) from None
    pillow_heif.register_heif_opener()


def _load(image: Image.Image, source: Source) -> Image.Image:
    """All of its pixels, upright."""
    # Pillow turns TIFFs by what their XMP says; see `exif_of`.
    told = image.info.pop("xmp", None)
    try:
        image.seek(0)  # the first frame of an animation
        image.load()
    except Exception as error:
        raise UserError(
            f"{_name(source)} is damaged or cut short ({error}); get the file again"
        ) from None
    finally:
        if told is not None:
            image.info["xmp"] = told
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
    told = {k: v for k, v in image.info.items() if k in ("exif", _RAW)}
    if not told and hasattr(image, "tag_v2"):  # a TIFF is one
        exif = Image.Exif()
        exif.update({k: v for k, v in image.tag_v2.items() if k in _OF_TIFF})
        return exif
    block = Image.new("1", (1, 1))
    block.info = told
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
    """16-bit, 32-bit and float modes -> 8-bit grey."""
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
    """Opens any picture as sRGB.

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
    """Opens a mask: white = change.

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
    """What a mask uint8 [H,W,4] marks, bool [H,W], and its brightest opaque value."""
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


def to_unit_range(image: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 [-1,1]."""
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def from_unit_range(image: Any) -> np.ndarray:
    """Float [-1,1] -> uint8, clipped; inverse of `to_unit_range`."""
    scaled = (np.asarray(image, np.float32) + 1.0) * 127.5
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H,W,3] -> uint8 [size,3], antialiased (Lanczos)."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    filtered = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(filtered)


def central(size: tuple[int, int], ratio: float) -> tuple[int, int, int, int]:
    """(top, left, h, w): what `crop_to` keeps of (H, W)."""
    height, width = size
    h = max(1, min(height, round(width / ratio)))
    w = max(1, min(width, round(height * ratio)))
    return (height - h) // 2, (width - w) // 2, h, w


def crop_to(image: np.ndarray, ratio: float) -> np.ndarray:
    """The largest central part of an image [H,W,3] of a width-to-height ratio."""
    top, left, h, w = central(image.shape[:2], ratio)
    return image[top : top + h, left : left + w]


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """Central square, resized: uint8 [H,W,3] -> uint8 [size,size,3]."""
    return resize(crop_to(image, 1), (size, size))


def shrink_hidden(
    image: np.ndarray, mask: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Resizes a picture without its masked pixels, which are filled first.

    No masked pixel influences the result: a filter that met them before `prefill`
    would carry them over the border of the mask. Pictures of more than four times
    the size are first reduced to that by means over the known pixels of each cell.

    Args:
      image: uint8 [H,W,3].
      mask: bool [H,W], True = hidden.
      size: (h, w) of the result.

    Returns:
      uint8 [h,w,3]; far from the mask as `resize` gives it, or (if reduced first)
      within a few levels of that.
    """
    known = ~mask[..., None]
    total, count = image * known, known
    for axis in (0, 1):
        length = image.shape[axis]
        cells = min(length, 4 * size[axis])
        starts = (np.arange(cells) * length + cells // 2) // cells
        total, count = (
            np.add.reduceat(x, starts, axis, np.uint32) for x in (total, count)
        )
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    filled = prefill(mean / np.float32(127.5) - 1, count[..., 0] == 0)
    return resize(from_unit_range(filled), size)


def pixels_to_tokens(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """bool [H,W] -> bool [h,w]: a token is masked when any pixel of its cell is.

    Sides need not be multiples of the grid: a pixel on a cell border counts for
    both cells.
    """

    def reduce(rows: np.ndarray, cells: int) -> np.ndarray:
        n = rows.shape[0]
        return np.stack(
            [
                rows[
                    math.floor(i * n / cells) : max(
                        math.ceil((i + 1) * n / cells), math.floor(i * n / cells) + 1
                    )
                ].any(axis=0)
                for i in range(cells)
            ]
        )

    return reduce(reduce(mask, grid[0]).T, grid[1]).T


def tokens_to_pixels(tokens: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool [h,w] -> bool [H,W], every cell as a block."""
    rows = np.arange(size[0]) * tokens.shape[0] // size[0]
    columns = np.arange(size[1]) * tokens.shape[1] // size[1]
    return tokens[rows[:, None], columns[None, :]]


def dilate(mask: np.ndarray, steps: int = 1) -> np.ndarray:
    """Grows a bool mask by `steps` cells in the 8 directions."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        rows = padded[:-2] | padded[1:-1] | padded[2:]
        mask = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return mask


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A bool mask [H,W] with all that lies within so many pixels of it, as a disc."""
    from scipy import ndimage

    if not pixels or not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask) <= pixels


def prefill(image: np.ndarray, mask: np.ndarray, xp: Any = np) -> np.ndarray:
    """Replaces masked pixels by a smooth fill, so that their content cannot leak.

    The encoder sees far beyond one token (SPEC A.10, step 3). The fill is a
    pull-push pyramid: means of the known pixels at the finest scale that has any.

    Args:
      image: float32 [H,W,3].
      mask: bool [H,W], True = unknown.
      xp: the module whose arrays they are.

    Returns:
      float32 [H,W,3], known pixels unchanged; grey where nothing is known.
    """
    weight = (~mask)[..., None].astype(np.float32)
    filled = _pull_push(image * weight, weight, xp)
    return xp.where(mask[..., None], filled, image)


def _pull_push(total, weight, xp=np):
    known = weight > 0
    value = xp.where(known, total / xp.where(known, weight, 1), 0.0)
    height, width = weight.shape[:2]
    if max(height, width) == 1:
        return value.astype(np.float32)
    padding = ((0, height % 2), (0, width % 2), (0, 0))

    def halve(x):
        x = xp.pad(x, padding)
        return x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]

    coarse = _pull_push(halve(value * known), halve(known.astype(np.float32)), xp)
    smooth = _upsample(coarse, (height, width), xp)
    return xp.where(known, value, smooth).astype(np.float32)


def _upsample(x, size: tuple[int, int], xp):
    """Bilinear x2, cropped to `size`."""
    for axis, length in enumerate(size):
        place = (np.arange(length) + 0.5) / 2 - 0.5
        low = np.clip(np.floor(place).astype(int), 0, x.shape[axis] - 1)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = np.clip(place - low, 0, 1).astype(np.float32)
        part = part.reshape([-1 if i == axis else 1 for i in range(3)])
        x = xp.take(x, low, axis) * (1 - part) + xp.take(x, high, axis) * part
    return x


def feathered(mask: np.ndarray, feather: int) -> np.ndarray:
    """float32 [H,W] blend weight: exactly 0 outside the mask, 1 deep inside.

    The ramp of `feather` pixels lies inside the mask, so that nothing outside
    the user's own mask changes (SPEC A.10, step 6).
    """
    alpha, inner = mask.astype(np.float32), mask
    for _ in range(max(feather, 0)):
        # Beyond the picture counts as inside: no ramp along the picture's edge.
        inner = ~dilate(~inner)
        alpha = alpha + inner
    return alpha / (1 + max(feather, 0))


def continue_colours(
    original: np.ndarray, edited: np.ndarray, mask: np.ndarray, cells: int = 16
) -> np.ndarray:
    """Adds to an edit what its surroundings lack, so that no border shows.

    Around the mask both pictures show the same; how they differ there (colours that a
    tokenizer shifts) is carried into the mask as smoothly as `prefill` does.

    Args:
      original, edited: uint8 [H,W,3].
      mask: bool [H,W], where they may differ.
      cells: the difference is known as means over a grid of so many rows and columns.

    Returns:
      uint8 [H,W,3].
    """
    offset = _carried(original.astype(np.int16) - edited, ~mask, cells)
    return np.clip(edited + offset, 0, 255).astype(np.uint8)


def meet_borders(
    original: np.ndarray,
    edited: np.ndarray,
    mask: np.ndarray,
    most: int = 30,
    damaged: bool = False,
    cells: int = 16,
) -> np.ndarray:
    """Shifts the colours within a mask so that it begins as what is around it ends.

    Along the border the mean colours inside should be those outside, or those that were
    inside before, whichever is the smaller step: a chin above a white collar stays a
    chin, a face mask does not come back. From there the step fades into the mask as
    smoothly as `prefill` does.

    Args:
      original, edited: uint8 [H,W,3].
      mask: bool [H,W].
      most: of the step, in levels; what is more is an edge that was drawn.
      damaged: what was inside says nothing.
      cells: the step is known as means over a grid of so many rows and columns.

    Returns:
      uint8 [H,W,3], outside the mask as `edited`.
    """
    from scipy import ndimage

    if not most or mask.all() or not mask.any():
        return edited
    width = 1 + 2 * max(2, min(mask.shape) // 32)
    # Around the mask only: a photo may be large.
    (held,) = ndimage.find_objects(mask.astype(np.uint8))
    around = tuple(slice(max(0, s.start - width), s.stop + width) for s in held)
    there = mask[around]

    def mean(picture, where):
        parts = [picture[around] * where[..., None], where[..., None]]
        total, share = (
            ndimage.uniform_filter(np.float32(x), (width, width, 1)) for x in parts
        )
        return total / np.maximum(share, 1e-6)

    border = mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
    inside = mean(edited, there)
    outer, inner = mean(original, ~there) - inside, mean(original, there) - inside
    nearer = damaged | (np.abs(outer).sum(-1) < np.abs(inner).sum(-1))
    step = np.zeros(mask.shape + (3,), np.float32)
    step[around] = np.clip(np.where(nearer[..., None], outer, inner), -most, most)
    moved = edited + _carried(step, border, cells)
    moved = np.clip(moved, 0, 255).astype(np.uint8)
    return np.where(mask[..., None], moved, edited)


def _carried(difference: np.ndarray, known: np.ndarray, cells: int) -> np.ndarray:
    """Where a difference [H,W,3] is not known, its smooth continuation; int16."""
    size, weight = known.shape, known[..., None]
    total = weight * difference
    for axis in (0, 1):
        starts = np.unique(np.arange(cells) * size[axis] // cells)
        total = np.add.reduceat(total, starts, axis, np.float64)
        weight = np.add.reduceat(weight, starts, axis, np.int64)
    smooth = _pull_push(total.astype(np.float32), weight.astype(np.float32))
    offset = np.clip(np.round(smooth + 128), 0, 255).astype(np.uint8)
    return resize(offset, size).astype(np.int16) - 128


def match_colours(
    image: np.ndarray, inside: np.ndarray, target: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """Gives a picture the mean and spread of each channel of another one.

    Args:
      image: uint8 [H,W,3].
      inside: bool [H,W], the pixels that are to look like the target's.
      target: uint8 [h,w,3].
      there: bool [h,w], the target's pixels that count.

    Returns:
      uint8 [H,W,3].
    """
    own, wanted = image[inside].astype(np.float32), target[there].astype(np.float32)
    # Twice the contrast is not the light of another room.
    gain = np.clip(wanted.std(0) / np.maximum(own.std(0), 1.0), 0.5, 2.0)
    moved = (image - own.mean(0)) * gain + wanted.mean(0)
    return np.clip(np.round(moved), 0, 255).astype(np.uint8)


def near(mask: np.ndarray, distance: float) -> np.ndarray:
    """bool [H,W]: within `distance` pixels of where a mask changes its value."""
    from scipy import ndimage

    if mask.all() or not mask.any():
        return np.zeros_like(mask)
    inward, outward = (ndimage.distance_transform_edt(m) for m in (mask, ~mask))
    return np.maximum(inward, outward) <= distance


def composite(
    original: np.ndarray, edited: np.ndarray, mask: np.ndarray, feather: int = 0
) -> np.ndarray:
    """Pastes the edit into the photo, inside the mask only.

    Args:
      original, edited: uint8 [H,W,3].
      mask: bool [H,W].
      feather: width in pixels of the soft edge, inward.

    Returns:
      uint8 [H,W,3]; pixels outside the mask are bit-identical to `original`.
    """
    alpha = feathered(mask, feather)[..., None]
    blend = np.round(alpha * edited + (1 - alpha) * original).astype(np.uint8)
    return np.where(mask[..., None], blend, original)
