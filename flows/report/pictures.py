"""Pictures as `data:` URLs, so that the report is one file. Small ones stay exact; large ones shrink to keep the page light."""

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from dalle_datasets.images import ImageError, decode_image

PIXEL_ART_SIDE = 64
"""Up to this side a picture is kept exactly and shown enlarged with hard pixel edges."""
MAX_SIDE = 256
MAX_PIXELS = 40_000_000
"""No thumbnail is worth decoding more."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A picture inside the page."""

    src: str
    width: int
    height: int

    @property
    def is_pixel_art(self) -> bool:
        """Whether it is small enough to be enlarged with hard edges."""
        return max(self.width, self.height) <= PIXEL_ART_SIDE


def embed(image: Image.Image, max_side: int = MAX_SIDE) -> Embedded:
    """A picture without whatever was written beside its pixels."""
    image = image.convert("RGB")
    buffer = BytesIO()
    if max(image.size) <= PIXEL_ART_SIDE:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        image.save(buffer, "JPEG", quality=86)
    return Embedded(f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", *image.size)


def embed_file(path: Path, max_side: int = MAX_SIDE) -> Embedded | None:
    """The picture in a file; None when it has gone or cannot be decoded, which is no reason to have no report."""
    try:
        with Image.open(path) as image:
            return embed(image, max_side)
    except OSError:
        return None


def embed_bytes(content: bytes, max_side: int = MAX_SIDE) -> Embedded | None:
    """The picture in bytes as a stranger's server sent them, by the decoder of the filters; None when they give none, or one too large."""
    try:
        return embed(decode_image(content, MAX_PIXELS), max_side)
    except ImageError:
        return None


def cut_sheet(path: Path) -> list[tuple[Embedded, Embedded]]:
    """The columns of a sheet of square pictures in two rows: originals above, reconstructions below. Empty when there is no sheet."""
    try:
        with Image.open(path) as file:
            sheet = file.convert("RGB")
    except OSError:
        return []
    side = sheet.height // 2
    lefts = range(0, sheet.width - side + 1, side)
    return [(embed(sheet.crop((x, 0, x + side, side))), embed(sheet.crop((x, side, x + side, 2 * side)))) for x in lefts]
