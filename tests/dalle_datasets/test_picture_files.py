"""Picture files of every mode, depth, profile, orientation, animation and damage: the pixels that viewers show, or a reason.

What is expected follows from the pixels that went in, by NumPy; files that Pillow cannot write are made byte by byte.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dalle_datasets.images import ImageError, canonical_bytes, decode_image

Pixels = NDArray[np.uint8]
MAX_PIXELS = 1_000_000
RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 24, 32
RGB: Pixels = np.kron(RNG.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
ALPHA: Pixels = np.kron(np.array([[0, 51, 255, 128], [255, 0, 128, 51], [128, 255, 51, 0]]), np.ones((8, 8))).astype(np.uint8)
GREY: Pixels = RGB[..., 0]
BITS = (GREY > 127).astype(np.uint8)
INDEX = (np.arange(HEIGHT)[:, None] // 8 * 4 + np.arange(WIDTH) // 8).astype(np.uint8)
"""Of 12 colours of a palette, one for each block."""
PALETTE: Pixels = RGB[::8, ::8].reshape(12, 3)
WIDE = (RGB.astype(np.uint16) * 257 + RNG.integers(-100, 100, RGB.shape)).clip(0, 65_535).astype(np.uint16)
PICTURE = Image.fromarray(RGB)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.copy().save(buffer, kind, **options)  # an image remembers how it was saved before
    return buffer.getvalue()


def another() -> Image.Image:
    """A second frame or page."""
    return PICTURE.rotate(180)


def grey(values: NDArray[np.generic]) -> Pixels:
    return np.repeat(np.asarray(values).astype(np.uint8)[..., None], 3, -1)


def on_white(pixels: NDArray[np.generic], alpha: NDArray[np.generic]) -> Pixels:
    share = np.asarray(alpha, float)[..., None] / 255
    return (np.asarray(pixels, float) * share + 255 * (1 - share)).round().astype(np.uint8)


def indexed(transparency: bytes | int | None = None) -> Image.Image:
    image = Image.fromarray(INDEX, "L").convert("P")
    image.putdata(INDEX.ravel().tolist())
    image.putpalette(PALETTE.tobytes())
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


# PNG, of which Pillow writes neither interlaced files nor more than 8 bits of colour.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    depth: int, colour: int, pixels: NDArray[np.generic], interlaced: bool = False, more: bytes = b"", size: tuple[int, int] | None = None
) -> bytes:
    """A PNG file of [H, W] or [H, W, C] values, filter 0."""
    height, width = pixels.shape[:2]
    passes = (
        [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)] if interlaced else [(0, 0, 1, 1)]
    )
    lines = b"".join(line(row, depth) for top, left, down, right in passes for row in pixels[top::down, left::right])
    header = struct.pack(">IIBBBBB", *(size or (width, height)), depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def line(row: NDArray[np.generic], depth: int) -> bytes:
    if depth == 16:
        return b"\0" + row.astype(">u2").tobytes()
    if depth == 8:
        return b"\0" + row.astype(np.uint8).tobytes()
    bits = (row.reshape(-1, 1).astype(int) >> np.arange(depth - 1, -1, -1)) & 1
    return b"\0" + np.packbits(bits.astype(np.uint8).ravel()).tobytes()


def bmp(
    bits: int, data: bytes, compression: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), palette: bytes = b"", masks: bytes = b""
) -> bytes:
    """A BMP file with a header of 40 bytes, or of 108 with four masks."""
    header = struct.pack("<IiiHHIIiiII", 108 if masks else 40, *size, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    header = (header + masks).ljust(108, b"\0") if masks else header
    return b"BM" + struct.pack("<IHHI", 14 + len(header + palette + data), 0, 0, 14 + len(header + palette)) + header + palette + data


BGR = RGB[::-1, :, ::-1]
FOUR_MASKS = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
QUADS = np.hstack([PALETTE[:, ::-1], np.zeros((12, 1), np.uint8)]).tobytes()


def profile(gamma: float | None = None, primaries: list[list[float]] | None = None) -> bytes:
    """The ICC profile of sRGB with another gamma, or with other primaries (columns of XYZ under D50)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(int.from_bytes(data[128:132], "big")):
        entry = 132 + 12 * i
        name, place = bytes(data[entry : entry + 4]), int.from_bytes(data[entry + 4 : entry + 8], "big")
        if gamma and name in (b"rTRC", b"gTRC", b"bTRC"):
            data[place : place + 14] = b"curv\0\0\0\0\0\0\0\1" + round(gamma * 256).to_bytes(2, "big")
            data[entry + 8 : entry + 12] = (14).to_bytes(4, "big")
        if primaries and name in (b"rXYZ", b"gXYZ", b"bXYZ"):
            column = [row[b"rgb".index(name[0])] for row in primaries]
            data[place + 8 : place + 20] = struct.pack(">3i", *(round(value * 65_536) for value in column))
    return bytes(data)


SRGB_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
P3_XYZ = [[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]


def linear(values: NDArray[np.generic]) -> NDArray[np.float64]:
    share = np.asarray(values, float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def encoded(light: NDArray[np.float64]) -> NDArray[np.float64]:
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055) * 255


def from_p3(pixels: Pixels) -> NDArray[np.float64]:
    return encoded(linear(pixels) @ np.array(P3_XYZ).T @ np.linalg.inv(SRGB_XYZ).T)


def oriented(number: int, kind: str = "PNG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return saved(PICTURE, kind, exif=exif)


UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.transpose(1, 0, 2), 6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2), 8: np.rot90,
}  # fmt: skip


def gif(screen: tuple[int, int], place: tuple[int, int]) -> bytes:
    """A GIF whose one frame of 32 x 24 lies somewhere on a larger screen."""
    data = bytearray(saved(indexed(), "GIF"))
    data[6:10] = struct.pack("<HH", *screen)
    start = data.index(b"\x2c\0\0\0\0", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    data[start + 1 : start + 5] = struct.pack("<HH", *place)
    return bytes(data)


def framed(place: tuple[int, int], size: tuple[int, int]) -> Pixels:
    canvas = np.full((size[1], size[0], 3), 255, np.uint8)
    canvas[place[1] : place[1] + HEIGHT, place[0] : place[0] + WIDTH] = RGB
    return canvas


def tiff16(order: str) -> bytes:
    """Uncompressed TIFF with 3 times 16 bits, in either byte order."""
    data = WIDE.astype(f"{order}u2").tobytes()
    values = {256: (3, WIDTH), 257: (3, HEIGHT), 258: (3, 16), 259: (3, 1), 262: (3, 2), 273: (4, 8), 277: (3, 3), 278: (3, HEIGHT)}
    values |= {279: (4, len(data))}
    entries = b""
    place = 8 + len(data)
    for tag, (kind, value) in sorted(values.items()):
        if tag == 258:
            entries += struct.pack(f"{order}HHII", tag, kind, 3, place + 2 + 12 * len(values) + 4)
        else:
            entries += struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}{'H2x' if kind == 3 else 'I'}", value)
    magic = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, place)
    return magic + data + struct.pack(f"{order}H", len(values)) + entries + bytes(4) + struct.pack(f"{order}3H", 16, 16, 16)


def sized(data: bytes, place: int, form: str, *size: int) -> bytes:
    """A file that claims another size than it has."""
    return data[:place] + struct.pack(form, *size) + data[place + struct.calcsize(form) :]


@dataclass(frozen=True)
class File:
    data: bytes
    pixels: NDArray[np.generic] | None = None
    max_off: float = 0
    """Levels by which a pixel may be off; of lossy files, the mean."""
    reason: str = ""
    detail: str = ""


JPEG = saved(PICTURE, "JPEG", quality=95, subsampling=0)
SOF = JPEG.index(b"\xff\xc0") + 5
NOISE = Image.fromarray(RNG.integers(0, 256, (64, 64, 3)).astype(np.uint8))
RGBA = Image.fromarray(np.dstack([RGB, ALPHA]))
LAB = ImageCms.profileToProfile(PICTURE, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
WHITE_KEY = (INDEX != 3) * 255
SOME_ALPHAS = bytes([0, 51, 128, 255])


def pictures() -> Iterator[tuple[str, File]]:
    yield "png rgb", File(png(8, 2, RGB), RGB)
    yield "png interlaced", File(png(8, 2, RGB, interlaced=True), RGB)
    yield "png grey", File(png(8, 0, GREY), grey(GREY))
    yield "png 1 bit", File(png(1, 0, BITS), grey(BITS * 255))
    yield "png 2 bits, interlaced", File(png(2, 0, GREY >> 6, interlaced=True), grey((GREY >> 6) * 85))
    yield "png 4 bits", File(png(4, 0, GREY >> 4), grey((GREY >> 4) * 17))
    yield "png grey 16", File(png(16, 0, WIDE[..., 0]), grey((WIDE[..., 0] / 257).round()))
    yield "png rgb 16", File(png(16, 2, WIDE), (WIDE / 257).round(), 1)
    yield "png rgba 16", File(png(16, 6, np.dstack([WIDE, ALPHA.astype(np.uint16) * 257])), on_white((WIDE / 257).round(), ALPHA), 1)
    yield "png grey and alpha", File(png(8, 4, np.dstack([GREY, ALPHA])), on_white(grey(GREY), ALPHA), 1)
    yield (
        "png grey and alpha 16",
        File(png(16, 4, np.dstack([WIDE[..., 0], ALPHA.astype(np.uint16) * 257])), on_white(grey(GREY), ALPHA), 1),
    )
    yield "png rgba", File(png(8, 6, np.dstack([RGB, ALPHA])), on_white(RGB, ALPHA), 1)
    yield "png palette", File(png(8, 3, INDEX, more=chunk(b"PLTE", PALETTE.tobytes())), RGB)
    yield "png palette 4 bits", File(png(4, 3, INDEX, more=chunk(b"PLTE", PALETTE.tobytes())), RGB)
    alphas = np.array([*SOME_ALPHAS, *[255] * 8])[INDEX]
    yield (
        "png palette with alphas",
        File(png(8, 3, INDEX, more=chunk(b"PLTE", PALETTE.tobytes()) + chunk(b"tRNS", SOME_ALPHAS)), on_white(RGB, alphas), 1),
    )
    yield "png grey with a clear level", File(png(8, 0, INDEX, more=chunk(b"tRNS", struct.pack(">H", 3))), on_white(grey(INDEX), WHITE_KEY))
    yield "png with gamma and text", File(png(8, 2, RGB, more=chunk(b"gAMA", struct.pack(">I", 45_455)) + chunk(b"tEXt", b"a\0b")), RGB)
    yield "png animated", File(saved(PICTURE, "PNG", save_all=True, append_images=[another()]), RGB)
    for number, turn in UPRIGHT.items():
        yield f"png orientation {number}", File(oriented(number), turn(RGB))
    yield "png orientation 9", File(oriented(9), RGB)
    yield "jpeg orientation 6", File(oriented(6, "JPEG"), UPRIGHT[6](RGB), 12)
    yield "tiff orientation 8", File(oriented(8, "TIFF"), UPRIGHT[8](RGB))
    yield (
        "webp orientation 3",
        File(saved(PICTURE, "WEBP", lossless=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\3\0\0\0\0\0\0"), UPRIGHT[3](RGB)),
    )
    yield "png display p3", File(saved(PICTURE, "PNG", icc_profile=profile(primaries=P3_XYZ)), from_p3(RGB), 2)
    yield "png palette display p3", File(saved(indexed(), "PNG", icc_profile=profile(primaries=P3_XYZ)), from_p3(RGB), 2)
    yield "png rgba display p3", File(saved(RGBA, "PNG", icc_profile=profile(primaries=P3_XYZ)), on_white(from_p3(RGB), ALPHA), 3)
    yield "webp gamma 1", File(saved(PICTURE, "WEBP", lossless=True, icc_profile=profile(1.0)), encoded(RGB / 255), 2)
    yield "tiff gamma 1.8", File(saved(PICTURE, "TIFF", icc_profile=profile(1.8)), encoded((RGB / 255) ** 1.8), 3)
    yield "png broken profile", File(saved(PICTURE, "PNG", icc_profile=profile()[:300]), RGB)
    yield "png profile of cmyk", File(saved(PICTURE, "PNG", icc_profile=profile()[:16] + b"CMYK" + profile()[20:]), RGB)

    yield "jpeg", File(JPEG, RGB, 3)
    yield "jpeg progressive", File(saved(PICTURE, "JPEG", progressive=True, quality=95, subsampling=0), RGB, 3)
    yield "jpeg 4:2:0", File(saved(PICTURE, "JPEG", quality=95, subsampling=2), RGB, 12)
    yield "jpeg grey", File(saved(Image.fromarray(GREY), "JPEG", quality=95), grey(GREY), 3)
    yield "jpeg rgb", File(saved(PICTURE, "JPEG", quality=95, keep_rgb=True, subsampling=0), RGB, 3)
    yield "jpeg cmyk", File(saved(PICTURE.convert("CMYK"), "JPEG", quality=95), RGB, 3)
    yield "jpeg without end", File(JPEG[:-2], RGB, 3)
    yield "jpeg progressive without end", File(saved(PICTURE, "JPEG", progressive=True, quality=95, subsampling=0)[:-2], RGB, 3)
    yield "jpeg with something behind", File(JPEG + b"<html>" * 9, RGB, 3)
    yield "jpeg restart markers", File(saved(PICTURE, "JPEG", quality=95, subsampling=0, restart_marker_blocks=2), RGB, 3)
    yield "mpo", File(saved(PICTURE, "MPO", save_all=True, append_images=[another()], quality=95, subsampling=0), RGB, 3)

    yield "gif", File(saved(indexed(), "GIF"), RGB)
    yield "gif plain lines", File(saved(indexed(), "GIF", interlace=0), RGB)
    yield "gif clear colour", File(saved(indexed(), "GIF", transparency=3), on_white(RGB, WHITE_KEY))
    yield "gif animated", File(saved(indexed(), "GIF", save_all=True, append_images=[another().convert("P")]), RGB)
    yield "gif frame with an offset", File(gif((48, 40), (10, 5)), framed((10, 5), (48, 40)))
    yield "gif without end", File(saved(indexed(), "GIF")[:-1], RGB)

    yield "bmp 24", File(bmp(24, BGR.tobytes()), RGB)
    yield "bmp top down", File(bmp(24, BGR[::-1].tobytes(), size=(WIDTH, -HEIGHT)), RGB)
    yield "bmp 32", File(bmp(32, np.dstack([BGR, BGR[..., :1] * 0]).tobytes()), RGB)
    yield "bmp alpha of zeros", File(bmp(32, np.dstack([BGR, BGR[..., :1] * 0]).tobytes(), 3, masks=FOUR_MASKS), RGB)
    yield "bmp alpha", File(bmp(32, np.dstack([BGR, ALPHA[::-1]]).tobytes(), 3, masks=FOUR_MASKS), on_white(RGB, ALPHA), 1)
    fives = (RGB[::-1] >> 3).astype(np.uint16)
    yield "bmp 16", File(bmp(16, (fives[..., 0] << 10 | fives[..., 1] << 5 | fives[..., 2]).tobytes()), (RGB >> 3) * (255 / 31), 1)
    yield "bmp palette", File(bmp(8, INDEX[::-1].tobytes(), palette=QUADS), RGB)
    runs = b"".join(b"".join(bytes((8, value)) for value in row[::8]) + b"\0\0" for row in INDEX[::-1]) + b"\0\1"
    yield "bmp run lengths", File(bmp(8, runs, 1, palette=QUADS), RGB)

    yield "webp lossless", File(saved(PICTURE, "WEBP", lossless=True), RGB)
    yield "webp lossy", File(saved(PICTURE, "WEBP", quality=95), RGB, 12)
    yield "webp alpha", File(saved(RGBA, "WEBP", lossless=True, exact=True), on_white(RGB, ALPHA), 1)
    yield "webp animated", File(saved(PICTURE, "WEBP", lossless=True, save_all=True, append_images=[another()]), RGB)

    yield "tiff lzw", File(saved(PICTURE, "TIFF", compression="tiff_lzw"), RGB)
    yield "tiff deflate, big endian palette", File(saved(indexed(), "TIFF", compression="tiff_adobe_deflate", big_tiff=True), RGB)
    yield "tiff two pages", File(saved(PICTURE, "TIFF", save_all=True, append_images=[another()]), RGB)
    yield "tiff fax", File(saved(Image.fromarray(BITS * 255).convert("1"), "TIFF", compression="group4"), grey(BITS * 255))
    yield "tiff grey 16", File(saved(Image.fromarray(WIDE[..., 0]), "TIFF"), grey((WIDE[..., 0] / 257).round()))
    yield "tiff rgb 16", File(tiff16("<"), (WIDE / 257).round(), 1)
    yield "tiff rgb 16, big endian", File(tiff16(">"), (WIDE / 257).round(), 1)
    yield "tiff cmyk", File(saved(PICTURE.convert("CMYK"), "TIFF"), RGB, 1)
    yield "tiff lab", File(saved(LAB, "TIFF"), RGB, 8)
    yield "tiff alpha", File(saved(RGBA, "TIFF"), on_white(RGB, ALPHA), 1)
    yield "tiff jpeg", File(saved(PICTURE, "TIFF", compression="jpeg", quality=95), RGB, 12)
    yield "avif", File(saved(PICTURE, "AVIF", quality=95, subsampling="4:4:4"), RGB, 6)
    yield "avif animated", File(saved(PICTURE, "AVIF", quality=95, subsampling="4:4:4", save_all=True, append_images=[another()]), RGB, 6)

    yield "tiff float", File(saved(Image.new("F", (4, 4)), "TIFF"), reason="decode_error", detail="floating-point")
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        whole = saved(NOISE, kind)
        yield (
            f"{kind} cut in the middle",
            File(whole[: len(whole) // 2], reason="not_an_image" if kind in ("WEBP", "AVIF") else "decode_error"),
        )
        yield f"{kind} cut in the header", File(whole[:9], reason="not_an_image")
    yield "jpeg progressive cut", File(saved(NOISE, "JPEG", progressive=True)[:2_000], reason="decode_error")
    yield "png damaged", File(png(8, 2, RGB).replace(b"IDAT", b"IDAT\1"), reason="decode_error")
    yield "png huge", File(png(8, 2, RGB, size=(60_000, 60_000)), reason="too_many_pixels")
    yield "png of no size", File(png(8, 2, RGB, size=(0, 24)), reason="not_an_image")
    yield "png too large for its data", File(png(8, 2, RGB, size=(900, 900)), reason="decode_error")
    yield "jpeg huge", File(sized(JPEG, SOF, ">HH", 65_500, 65_500), reason="too_many_pixels")
    yield "jpeg of no size", File(sized(JPEG, SOF, ">HH", 0, 32), reason="not_an_image")
    yield "gif without a size", File(gif((0, 0), (0, 0)), RGB)  # as large as its frame, as in browsers
    yield "bmp huge", File(bmp(24, BGR.tobytes(), size=(40_000, 40_000)), reason="too_many_pixels")
    yield "bmp of no size", File(bmp(24, BGR.tobytes(), size=(0, 0)), reason="not_an_image")
    yield "ico", File(saved(PICTURE.resize((16, 16)), "ICO"), reason="not_an_image", detail="an icon")
    for name, start, detail in (
        ("psd", b"8BPS\0\1", "Photoshop"), ("heic", b"\0\0\0\x18ftypheic", "HEIC"), ("jxl", b"\xff\x0a", "JPEG XL"),
        ("jxl in a box", b"\0\0\0\x0cJXL ", "JPEG XL"), ("jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        ("svg", b"<svg xmlns='x'/>", "SVG"), ("svg with a mark", b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x --><svg/>", "SVG"),
        ("pdf", b"%PDF-1.4", "PDF"), ("page", b"\n<!doctype html>", "HTML"), ("text", b"404 not found", "starts with"),
        ("video", b"\0\0\0\x20ftypisom", "a video"), ("ppm", b"P6\n2 2\n255\n", "starts with"),
    ):  # fmt: skip
        yield name, File(start + bytes(40), reason="not_an_image", detail=detail)
    yield "nothing", File(b"", reason="not_an_image", detail="no bytes")


FILES = dict(pictures())


def test_there_are_many_kinds():
    assert len(FILES) > 100


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_picture_files(name):
    file = FILES[name]
    if file.pixels is None:
        with pytest.raises(ImageError) as caught:
            decode_image(file.data, MAX_PIXELS)
        assert caught.value.reason == file.reason
        assert file.detail in caught.value.detail
        return
    pixels = np.asarray(decode_image(file.data, MAX_PIXELS)).astype(float)
    assert pixels.shape == file.pixels.shape
    off = np.abs(pixels - file.pixels)
    assert (off.mean() if file.max_off > 3 else off.max()) <= file.max_off + 0.5 * (file.max_off > 0)
    kept = Image.open(io.BytesIO(canonical_bytes(file.data, MAX_PIXELS))).convert("RGB")
    assert np.array_equal(np.asarray(kept), pixels)
