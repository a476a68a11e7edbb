"""Pictures inside the page: exact when small, light when large, and never a reason to have no report."""

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from flows.report.pictures import cut_sheet, embed, embed_bytes, embed_file


def decoded(embedded):
    return Image.open(BytesIO(base64.b64decode(embedded.src.partition("base64,")[2])))


def noise(height, width):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_a_small_picture_is_kept_exactly():
    picture = noise(32, 32)
    embedded = embed(picture)
    assert embedded.is_pixel_art
    assert np.array_equal(np.asarray(decoded(embedded)), np.asarray(picture))


def test_a_large_picture_is_made_smaller():
    embedded = embed(noise(1_000, 500))
    assert (embedded.width, embedded.height, embedded.is_pixel_art) == (128, 256, False)
    assert embedded.src.startswith("data:image/jpeg")


def test_what_is_written_beside_the_pixels_stays_outside(tmp_path):
    info = PngInfo()
    info.add_text("open-dalle", "/home/someone")
    noise(8, 8).save(tmp_path / "a.png", pnginfo=info)
    assert decoded(embed_file(tmp_path / "a.png")).info == {}


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n but cut"])
def test_what_cannot_be_decoded_is_left_out(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert embed_file(tmp_path / "a.png") is None
    assert embed_bytes(content) is None
    assert cut_sheet(tmp_path / "a.png") == []
    assert embed_file(tmp_path / "none.png") is None


def test_a_sheet_is_cut_into_columns_of_original_and_reconstruction(tmp_path):
    sheet = noise(16, 24)  # two rows of three 8 x 8 pictures
    sheet.save(tmp_path / "sheet.png")
    columns = cut_sheet(tmp_path / "sheet.png")
    assert len(columns) == 3
    pixels = np.asarray(sheet)
    for i, (original, rebuilt) in enumerate(columns):
        assert np.array_equal(np.asarray(decoded(original)), pixels[:8, 8 * i : 8 * i + 8])
        assert np.array_equal(np.asarray(decoded(rebuilt)), pixels[8:, 8 * i : 8 * i + 8])
