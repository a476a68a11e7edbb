"""Canonical decoding: every way of storing a picture gives the picture that people see."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from dalle_datasets.images import ImageError, canonical_bytes, decode_image, pixel_sha256

MAX_PIXELS = 1_000_000
RNG = np.random.default_rng(0)
PICTURE = Image.fromarray(np.kron(RNG.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8))  # 32 x 24, flat blocks


def packed(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def problem(data, max_pixels=MAX_PIXELS):
    with pytest.raises(ImageError) as caught:
        decode_image(data, max_pixels)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("TIFF", {}), ("PNG", {"compress_level": 0})]
)
def test_the_same_pixels_from_every_lossless_format(kind, options):
    data = packed(PICTURE, kind, **options)
    image, bytes_ = decode_image(data, MAX_PIXELS), canonical_bytes(data, MAX_PIXELS)
    assert image.mode == "RGB"
    assert pixel_sha256(image) == pixel_sha256(PICTURE)
    assert bytes_ == data  # nothing to repair, so nothing is re-encoded


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("AVIF", {"quality": 95}), ("WEBP", {"quality": 95})])
def test_lossy_formats_come_close(kind, options):
    decoded = np.asarray(decode_image(packed(PICTURE, kind, **options), MAX_PIXELS)).astype(int)
    assert np.abs(decoded - np.asarray(PICTURE)).mean() < 12


def test_pixels_and_size_both_count():
    square, strip = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (8, 2), "red")
    assert square.tobytes() == strip.tobytes()
    assert pixel_sha256(square) != pixel_sha256(strip)


def check_repaired(data, expected):
    """The picture is `expected`, and the bytes to keep give it to any decoder."""
    image, bytes_ = decode_image(data, MAX_PIXELS), canonical_bytes(data, MAX_PIXELS)
    assert bytes_ != data
    assert np.array_equal(np.asarray(image), expected)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bytes_)).convert("RGB")), expected)


def test_exif_orientation_is_applied():
    """A camera held upright stores the picture sideways and says so; img2dataset forgets what it says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    check_repaired(packed(PICTURE, "PNG", exif=exif), np.rot90(np.asarray(PICTURE), -1))


def test_transparency_is_put_on_white():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 0] = 255
    rgba[:, :2, 3] = 255
    rgba[:, 2, 3] = 51
    expected = np.full((4, 4, 3), 255, np.uint8)
    expected[:, :2] = (255, 0, 0)
    expected[:, 2] = (255, 204, 204)
    check_repaired(packed(Image.fromarray(rgba), "PNG"), expected)


def test_a_transparent_palette_colour_is_white():
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([10, 20, 30, 200, 100, 0])
    palette.putpixel((1, 0), 1)
    check_repaired(packed(palette, "PNG", transparency=0), np.array([[[255, 255, 255], [200, 100, 0]]], np.uint8))
    check_repaired(packed(palette, "GIF", transparency=0), np.array([[[255, 255, 255], [200, 100, 0]]], np.uint8))


def test_a_transparent_rgb_colour_is_white():
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (9, 9, 9))
    check_repaired(packed(image, "PNG", transparency=(10, 20, 30)), np.array([[[255, 255, 255], [9, 9, 9]]], np.uint8))


def test_grey_palette_and_bilevel_are_kept_as_they_are():
    for image in (PICTURE.convert("L"), PICTURE.convert("P"), PICTURE.convert("1")):
        data = packed(image, "PNG")
        decoded, bytes_ = decode_image(data, MAX_PIXELS), canonical_bytes(data, MAX_PIXELS)
        assert bytes_ == data
        assert np.array_equal(np.asarray(decoded), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_sixteen_bits_are_brought_down_not_cut_off():
    """img2dataset saturated them: everything above 255 of 65535 became white."""
    values = np.linspace(0, 65_535, 64).astype(np.uint16).reshape(8, 8)
    gray = (values / 257).round().astype(np.uint8)
    check_repaired(packed(Image.fromarray(values), "PNG"), np.repeat(gray[..., None], 3, -1))


def test_cmyk_becomes_rgb():
    data = packed(PICTURE.convert("CMYK"), "TIFF")
    image, bytes_ = decode_image(data, MAX_PIXELS), canonical_bytes(data, MAX_PIXELS)
    assert bytes_ != data
    assert np.abs(np.asarray(image).astype(int) - np.asarray(PICTURE)).max() <= 1


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"", "no bytes"),
        (b"<!DOCTYPE html><p>Sorry", "an HTML page"),
        (b"  <svg xmlns='x'/>", "an SVG drawing"),
        (b"%PDF-1.4", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b'{"error": 1}', "JSON"),
        (b"\x00\x01\x02\x03", "starts with b'\\x00\\x01\\x02\\x03'"),
    ],
)
def test_what_is_no_image(data, detail):
    error = problem(data)
    assert (error.reason, error.detail) == ("not_an_image", detail)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    data = packed(Image.new("1", (20_000, 20_000)), "PNG")  # 50 KB
    assert len(data) < 100_000
    error = problem(data)
    assert error.reason == "too_many_pixels"
    huge = bytearray(packed(PICTURE, "BMP"))
    huge[18:26] = (40_000).to_bytes(4, "little") * 2
    assert problem(bytes(huge)).reason == "too_many_pixels"


def test_a_large_jpeg_is_reduced_instead_of_refused():
    smooth = Image.linear_gradient("L").resize((1_200, 900)).convert("RGB")
    data = packed(smooth, "JPEG", quality=95)
    image = decode_image(data, 300_000)
    assert image.size == (600, 450)
    assert np.abs(np.asarray(image, int) - np.asarray(smooth.resize((600, 450)), int)).mean() < 2
    stored = canonical_bytes(data, 300_000)
    assert stored != data
    assert pixel_sha256(decode_image(stored, 300_000)) == pixel_sha256(image)
    assert problem(data, 1_000).reason == "too_many_pixels"  # an eighth is too large still


def test_what_pillow_calls_a_bomb_is_said_in_our_words(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert problem(packed(PICTURE, "PNG"), 500).detail == "768 pixels, 500 pixels allowed"


def profile_of(gamma, primaries_of="sRGB"):
    """An ICC profile like sRGB's whose curves are another gamma: small, and unlike it enough to be seen."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile(primaries_of)).tobytes())
    for i in range(int.from_bytes(profile[128:132], "big")):
        tag = 132 + 12 * i
        if profile[tag : tag + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            place = int.from_bytes(profile[tag + 4 : tag + 8], "big")
            profile[place : place + 14] = b"curv\0\0\0\0\0\0\0\1" + round(gamma * 256).to_bytes(2, "big")
            profile[tag + 8 : tag + 12] = (14).to_bytes(4, "big")
    return bytes(profile)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_a_colour_profile_is_applied_once(kind):
    data = packed(
        Image.new("RGB", (16, 16), (64, 128, 192)), kind, icc_profile=profile_of(1.0), **({"quality": 100} if kind != "PNG" else {})
    )
    # Light 64, 128 and 192 of 255, in sRGB's curve.
    linear = np.array([64, 128, 192]) / 255
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    image, kept = decode_image(data, MAX_PIXELS), canonical_bytes(data, MAX_PIXELS)
    assert np.abs(np.asarray(image)[8, 8] - expected).max() < 2.5
    assert np.array_equal(np.asarray(decode_image(kept, MAX_PIXELS)), np.asarray(image))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(kept)).convert("RGB")), np.asarray(image))


def test_a_profile_that_is_srgb_or_broken_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"x" * 500, profile_of(1.0)[:200], b""):
        data = packed(PICTURE, "PNG", icc_profile=profile)
        assert canonical_bytes(data, MAX_PIXELS) == data
        assert np.array_equal(np.asarray(decode_image(data, MAX_PIXELS)), np.asarray(PICTURE))


def test_a_profile_of_a_transparent_picture():
    rgba = Image.new("RGBA", (2, 1), (64, 128, 192, 255))
    rgba.putpixel((1, 0), (64, 128, 192, 0))
    pixels = np.asarray(decode_image(packed(rgba, "PNG", icc_profile=profile_of(1.0)), MAX_PIXELS))
    assert pixels[0, 0, 0] > 130
    assert tuple(pixels[0, 1]) == (255, 255, 255)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_mark_is_a_picture_but_not_one_without_pixels(progressive):
    noise = Image.fromarray(RNG.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    whole = packed(noise, "JPEG", quality=90, progressive=progressive)
    expected = np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))
    for torn in (whole[:-1], whole[:-2]):
        check_repaired(torn, expected)
    for num_missing in (40, 100, 1_000):
        assert problem(whole[:-num_missing]).reason == "decode_error"
