"""Canonical decoding of picture files to 8-bit RGB, the same in every stage and on every machine.

The files come from strangers, so only a few formats are opened, size is checked before pixels are made, and every way in which a
decoder can fail becomes an `ImageError`.
"""

import hashlib
import io
import math
import re
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

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
    """The first frame as RGB, upright (EXIF orientation), on white where it is transparent, 16 bits brought down to 8.

    A JPEG with more than `max_pixels` is decoded at a half, a quarter or an eighth of its sides; other formats cannot be.
    Colour profiles are ignored. Raises `ImageError`.
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

    It does not if the file needs our care: orientation, transparency, CMYK, 16 bits. Raises `ImageError`.
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
        if image.width * image.height > max_pixels and image.format == "JPEG":
            scale = math.ceil(math.sqrt(image.width * image.height / max_pixels))
            image.draft(None, (image.width // scale, image.height // scale))  # decoded at a half, a quarter or an eighth
        if image.width * image.height > max_pixels:
            raise ImageError("too_many_pixels", f"{image.width} x {image.height}, {max_pixels} pixels allowed")
        try:
            image.load()
            is_upright = image.getexif().get(_ORIENTATION, 1) == 1
            is_plain = is_upright and image.size == full_size and image.mode in ("RGB", "L", "1", "P") and "transparency" not in image.info
            return _to_rgb(image if is_upright else ImageOps.exif_transpose(image)), is_plain
        except Image.DecompressionBombError as error:
            raise ImageError("too_many_pixels", _pixels_said(error, max_pixels)) from error
        except _DECODER_ERRORS as error:
            raise ImageError("decode_error", f"{type(error).__name__}: {error}"[:200]) from error


def _pixels_said(error: Image.DecompressionBombError, max_pixels: int) -> str:
    """How many pixels Pillow found, in our words: its own speak of a bomb and of an attack."""
    found = re.search(r"\((\d+) pixels\)", str(error))
    return f"{int(found[1]):,} pixels, {max_pixels:,} pixels allowed" if found else f"more than {max_pixels:,} pixels"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow itself would cut it off at 255
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values.clip(0, 65_535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _describe(data: bytes) -> str:
    """What bytes that are no picture seem to be."""
    start = data[:512].lstrip().lower()
    for mark, name in (
        (b"<svg", "an SVG drawing"), (b"<?xml", "XML"), (b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"), (b"%pdf", "a PDF"),
        (b"%!ps", "PostScript"), (b"{", "JSON"),
    ):  # fmt: skip
        if start.startswith(mark):
            return name
    return f"starts with {data[:8]!r}"
