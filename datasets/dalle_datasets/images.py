"""Canonical decoding of picture files to 8-bit RGB, the same in every stage and on every machine.

The files come from strangers, so only a few formats are opened, size is checked before pixels are made, and every way in which a
decoder can fail becomes an `ImageError`.
"""

import functools
import hashlib
import io
import math
import re
import struct
import warnings
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps

IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif"}
)
"""Suffixes of files that are read as pictures, in lower case."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO")
"""Raster formats that Pillow decodes by itself; EPS and others would start a program."""
_ORIENTATION = 0x0112
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError, AttributeError, ArithmeticError,
    MemoryError, NotImplementedError, RuntimeError,
)  # fmt: skip


class ImageError(ValueError):
    """Bytes that give no picture. `reason` is 'not_an_image', 'decode_error' or 'too_many_pixels'."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode_image(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame as sRGB, upright (EXIF orientation), on white where it is transparent, 16 bits brought down to 8.

    A JPEG with more than `max_pixels` is decoded at a half, a quarter or an eighth of its sides; other formats cannot be. An embedded
    colour profile is applied. A JPEG whose end mark alone is missing is read as every viewer reads it. Raises `ImageError`.
    """
    return decode_and_check(data, max_pixels)[0]


def canonical_bytes(data: bytes, max_pixels: int) -> bytes:
    """A file from which any decoder gets the canonical pixels by `convert("RGB")`: `data` if it is one, else a PNG. Raises `ImageError`."""
    image, is_plain = decode_and_check(data, max_pixels)
    if is_plain:
        return data
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def padded_bytes(data: bytes, max_pixels: int) -> bytes:
    """A PNG of the canonical pixels in the middle of a white square of the long side. Raises `ImageError`."""
    image = decode_image(data, max_pixels)
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    buffer = io.BytesIO()
    square.save(buffer, "PNG")
    return buffer.getvalue()


def pixel_sha256(image: Image.Image) -> str:
    """SHA-256 of the size and the RGB pixels: equal for the same picture in different files."""
    digest = hashlib.sha256(b"%d %d " % image.size)
    digest.update(image.tobytes())
    return digest.hexdigest()


def decode_and_check(data: bytes, max_pixels: int) -> tuple[Image.Image, bool]:
    """The picture as `decode_image` gives it, and whether any decoder gets these very pixels from `data` by `convert("RGB")`.

    It does not if the file needs our care: orientation, transparency, CMYK, 16 bits, a colour profile. Raises `ImageError`.
    """
    if not data:
        raise ImageError("not_an_image", "no bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged metadata and of sizes that are checked here
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise ImageError("too_many_pixels", _pixels_said(error, max_pixels)) from error
        except _DECODER_ERRORS as error:
            raise ImageError("not_an_image", _describe(data)) from error
        full_size = image.size
        frame = image.tile[0][1] if image.format == "GIF" and image.tile else None
        if image.width * image.height > max_pixels and image.format == "JPEG":
            scale = math.ceil(math.sqrt(image.width * image.height / max_pixels))
            image.draft(None, (image.width // scale, image.height // scale))  # decoded at a half, a quarter or an eighth
        if image.width * image.height > max_pixels:
            raise ImageError("too_many_pixels", f"{image.width} x {image.height}, {max_pixels} pixels allowed")
        try:
            is_whole = _load(image, data, full_size)
            image = image if is_whole else _read_without_end(data)
            is_upright = image.getexif().get(_ORIENTATION, 1) == 1
            upright = image if is_upright else ImageOps.exif_transpose(image)
            rgb = _to_rgb(upright)
            is_plain = is_whole and is_upright and image.size == full_size
            is_plain = is_plain and image.mode in ("RGB", "L", "1", "P") and "transparency" not in image.info
            colored = _to_srgb(upright, rgb)
            if frame is not None and frame != (0, 0, *full_size):
                colored = _on_canvas(colored, frame)
            if colored is not rgb:
                colored.info.pop("icc_profile", None)  # else it would be saved, and applied once more
            return colored, is_plain and colored is rgb
        except Image.DecompressionBombError as error:
            raise ImageError("too_many_pixels", _pixels_said(error, max_pixels)) from error
        except _DECODER_ERRORS as error:
            raise ImageError("decode_error", f"{type(error).__name__}: {error}"[:200]) from error


def _pixels_said(error: Image.DecompressionBombError, max_pixels: int) -> str:
    """How many pixels Pillow found, in our words: its own speak of a bomb and of an attack."""
    found = re.search(r"\((\d+) pixels\)", str(error))
    return f"{int(found[1]):,} pixels, {max_pixels:,} pixels allowed" if found else f"more than {max_pixels:,} pixels"


def _load(image: Image.Image, data: bytes, full_size: tuple[int, int]) -> bool:
    """Decode the pixels; False if the end of a JPEG file is missing, which may be all that is missing."""
    try:
        image.load()
    except OSError:
        if image.format not in ("JPEG", "MPO") or _END_OF_JPEG in data[-64:] or image.size != full_size:
            raise
        return False
    return True


_END_OF_JPEG = b"\xff\xd9"


def _read_without_end(data: bytes) -> ImageFile.ImageFile:
    """A JPEG picture whose end mark is missing. Raises `OSError` if more than that is.

    What stands behind the last pixel does not count; if it changes the picture, pixels were missing.
    """
    pictures = []
    for tail in (b"", b"\xaa" * 64, b"\x55" * 64):
        picture = Image.open(io.BytesIO(data.removesuffix(b"\xff") + tail + _END_OF_JPEG), formats=("JPEG",))
        picture.load()
        pictures.append(picture)
    if any(picture.tobytes() != pictures[0].tobytes() for picture in pictures[1:]):
        raise OSError("image file is truncated")
    return pictures[0]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow itself would cut it off at 255
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65_535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.mode == "LAB":
        return _convert(ImageCms.createProfile("LAB"), image)
    if _is_transparent(image):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_canvas(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """What of a GIF its first frame shows; the rest of the canvas is transparent, whatever background the file names."""
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image.crop(frame), frame)
    return canvas


def _is_transparent(image: Image.Image) -> bool:
    """Whether some of it may be; bitmap files often have a fourth channel that nobody fills, and viewers ignore it."""
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return False
    return "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")


MAX_PROFILE_BYTES = 4 * 2**20
"""Of a colour profile; a larger one is ignored, as is one that cannot be read or does not fit the pixels."""
MAX_SRGB_DIFFERENCE = 2
"""Levels by which colours may differ from sRGB until a profile counts as another one."""


def _to_srgb(image: Image.Image, rgb: Image.Image) -> Image.Image:
    """`rgb`, the pixels of `image` as they stand, by its colour profile; `rgb` itself if that is sRGB, or of no use."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= MAX_PROFILE_BYTES:
        return rgb
    space = profile[16:20]
    try:
        if space == b"CMYK" and image.mode == "CMYK":
            return _transform(profile, "CMYK").apply(image)
        if space == b"GRAY" and image.mode in ("L", "1"):
            return rgb if _is_srgb(profile, "L") else _transform(profile, "L").apply(image.convert("L"))
        if space != b"RGB " or image.mode in ("CMYK", "LAB") or _is_srgb(profile, "RGB"):
            return rgb
        if not _is_transparent(image):
            return _transform(profile, "RGB").apply(rgb)
        rgba = image.convert("RGBA")
        colored = _transform(profile, "RGB").apply(rgba.convert("RGB"))
        colored.putalpha(rgba.getchannel("A"))
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), colored).convert("RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return rgb


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.ImageCmsTransform(source, ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")), mode, "RGB")


@functools.lru_cache(maxsize=64)
def _is_srgb(profile: bytes, mode: str) -> bool:
    """Whether colours hardly change: most profiles are one of the many spellings of sRGB."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    image = Image.fromarray(cube if mode == "RGB" else np.ascontiguousarray(cube[..., 0]))
    changed = np.asarray(_transform(profile, mode).apply(image)).astype(int)
    return int(np.abs(changed - np.asarray(image.convert("RGB"))).max()) <= MAX_SRGB_DIFFERENCE


def _convert(profile: Any, image: Image.Image) -> Image.Image:
    source = ImageCms.ImageCmsProfile(profile)
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, target, image.mode, "RGB").apply(image)


def _describe(data: bytes) -> str:
    """What bytes that are no picture seem to be."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"):
        return "a HEIC picture, which is not read; convert it to PNG"
    if data[4:8] == b"ftyp":
        return "a damaged AVIF picture" if data[8:12] in (b"avif", b"avis") else "a video, which is not read"
    if data.startswith((b"\0\0\1\0", b"\0\0\2\0")):
        return "an icon, which is not read; convert it to PNG"
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "a JPEG XL picture, which is not read; convert it to PNG"
    if data.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "a JPEG 2000 picture, which is not read; convert it to PNG"
    if data.startswith(b"8BPS"):
        return "a Photoshop file, which is not read; convert it to PNG"
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<?xml") and b"<svg" in start:
        return "an SVG drawing"
    for mark, name in (
        (b"<svg", "an SVG drawing"), (b"<?xml", "XML"), (b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"%pdf", "a PDF"),
        (b"%!ps", "PostScript"), (b"{", "JSON"),
    ):  # fmt: skip
        if start.startswith(mark):
            return name
    return f"starts with {data[:8]!r}"
