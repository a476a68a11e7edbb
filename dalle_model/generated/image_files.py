"""Generated pictures as files that say where they come from, wherever they are copied to."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dalle_datasets.store.parquet import cannot_write

_EXIF_IMAGE_DESCRIPTION = 0x010E
_QUALITY = 95
_KEY = "open-dalle"


def save_picture(path: Path, pixels: NDArray[np.uint8], origin: Mapping[str, str | int]) -> None:
    """Write uint8 [H, W, 3] as PNG, WebP (lossless) or JPEG by the name's ending, with `origin` inside.

    Raises `OSError` naming the file when it cannot be written.
    """
    image, text = Image.fromarray(pixels), json.dumps(origin, ensure_ascii=True)
    exif = Image.Exif()
    exif[_EXIF_IMAGE_DESCRIPTION] = text
    try:
        if path.suffix == ".png":
            image.save(path, "PNG", pnginfo=_png_info(text))
        elif path.suffix == ".webp":
            image.save(path, "WEBP", lossless=True, exif=exif)
        else:
            image.save(path, "JPEG", quality=_QUALITY, subsampling=0, exif=exif)
    except OSError as error:
        raise cannot_write(path, error) from error


def png_with_origin(pixels: NDArray[np.uint8], origin: Mapping[str, str | int]) -> bytes:
    """The bytes of a PNG of uint8 [H, W, 3] with `origin` inside, as `save_picture` writes it."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=_png_info(json.dumps(origin, ensure_ascii=True)))
    return buffer.getvalue()


def _png_info(text: str) -> PngInfo:
    info = PngInfo()
    info.add_text(_KEY, text)
    return info


def read_origin(path: Path) -> dict[str, str | int]:
    """The `origin` inside a picture. Raises `ValueError` when it was not made by `save_picture`."""
    with Image.open(path) as image:
        text = image.info.get(_KEY) or image.getexif().get(_EXIF_IMAGE_DESCRIPTION)
    try:
        origin: dict[str, str | int] = json.loads(text or "")
    except json.JSONDecodeError:
        raise ValueError(f"{path} does not say how it was generated; was it made by another program, or saved again?") from None
    return origin
