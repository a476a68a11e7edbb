"""A generated picture says where it comes from, in every format."""

import errno

import numpy as np
import pytest
from PIL import Image

from dalle_model.generated.image_files import read_origin, save_picture

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
ORIGIN = {"prompt": "a “red” épée 蘋果", "generation_id": "0123456789abcdef", "seed": 2**62}


@pytest.mark.parametrize("ending", ["png", "webp", "jpeg"])
def test_the_origin_can_be_read_from_the_file(tmp_path, ending):
    path = tmp_path / f"picture.{ending}"
    save_picture(path, PIXELS, ORIGIN)
    assert read_origin(path) == ORIGIN
    with Image.open(path) as image:
        assert image.format == ending.upper()
        if ending != "jpeg":
            assert np.array_equal(np.asarray(image.convert("RGB")), PIXELS)


def test_a_picture_from_elsewhere_has_no_origin(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match=r"other\.png does not say how it was generated"):
        read_origin(tmp_path / "other.png")


def test_a_full_disk_names_the_file_and_a_remedy(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(
        OSError, match=r"could not write .*picture\.png: No space left on device; free some space or choose another data root"
    ):
        save_picture(tmp_path / "picture.png", PIXELS, ORIGIN)
