"""Files of every odd kind go through tokenising, training and reconstructing as their canonical pixels, or leave with a reason."""

import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from dalle_datasets.images import decode_image
from dalle_datasets.loading.image_batches import centre
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, read_parquet, write_parquet
from dalle_datasets.store.schemas import DROPPED_PAIRS, IMAGE_TOKENS, PAIRS
from dalle_model.dvae import DVAE, load_dvae, save_dvae
from dalle_model.dvae.pixels import as_floats, as_tensor
from tests.parts import read_parts

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


def saved(image: Image.Image, form: str, **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    return saved(RGB, "JPEG", exif=exif)


def bomb(width: int, height: int) -> bytes:
    """A PNG of some bytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1_000))) + chunk(b"IEND", b"")


GOOD = {
    "CMYK": saved(RGB.convert("CMYK"), "JPEG"),
    "palette": saved(RGB.convert("P"), "PNG"),
    "palette with a transparent colour": saved(RGB.convert("P"), "PNG", transparency=3),
    "one bit": saved(RGB.convert("1"), "PNG"),
    "grey and alpha": saved(RGB.convert("LA"), "PNG"),
    "alpha": saved(Image.merge("RGBA", (*RGB.split(), RGB.convert("L"))), "PNG"),
    "16 bits": saved(Image.fromarray(np.arange(0, 40 * 60, dtype=np.uint16).reshape(40, 60) * 27), "PNG"),
    "animated GIF": saved(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)]),
    "animated WebP": saved(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(90)]),
    "turned by EXIF": rotated(),
    "1 x 1": saved(Image.new("RGB", (1, 1), "red"), "PNG"),
    "1 x 500": saved(Image.new("RGB", (500, 1), "red"), "PNG"),
    "TIFF": saved(RGB, "TIFF"),
}
BAD = {
    "bomb": (bomb(60_000, 60_000), "too_many_pixels"),
    "small bomb": (bomb(12_000, 12_000), "too_many_pixels"),
    "cut PNG": (saved(RGB, "PNG")[:3_000], "decode_error"),
    "cut JPEG": (saved(RGB, "JPEG")[:1_200], "decode_error"),
    "cut in the header": (saved(RGB, "PNG")[:20], "not_an_image"),
    "floating point": (saved(RGB.convert("F"), "TIFF"), "decode_error"),
    "page": (b"<html>404</html>", "not_an_image"),
    "drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    "nothing": (b"", "not_an_image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not_an_image"),
}


def give_pictures(tmp_path, files: list[bytes]) -> None:
    """Let the first pairs of every part have these files."""
    for path in list_parts(Layout(tmp_path).pairs("emoji")):
        table = read_parquet(path, PAIRS)
        images = (files + table["image"].to_pylist()[len(files) :])[: table.num_rows]
        write_parquet(path, table.set_column(table.schema.get_field_index("image"), "image", pa.array(images, pa.binary())), PAIRS)


@pytest.fixture
def inputs(make_config, pairs, tmp_path):
    torch.manual_seed(0)
    dvae_id = save_dvae(tmp_path / "dvae", DVAE(make_config().dvae))
    return {**pairs, "dvae": "dvae", "dvae_id": dvae_id}


def test_odd_pictures_get_the_tokens_of_their_canonical_pixels(make_config, inputs, run_job, tmp_path):
    give_pictures(tmp_path, list(GOOD.values()))
    result = run_job("tokenize_images", make_config(), inputs)
    assert result["dropped"] == {}
    tokens = read_parts(tmp_path / result["image_tokens"], IMAGE_TOKENS)["image_tokens"].to_pylist()
    model, rng = load_dvae(tmp_path / "dvae"), np.random.default_rng(0)
    for i, (name, data) in enumerate(GOOD.items()):
        pixels = centre(np.asarray(decode_image(data, 2**20)), 32, rng)
        assert tokens[i] == model.tokenize(as_floats(as_tensor(pixels[None])))[0].tolist(), name
    upright = centre(np.asarray(Image.open(io.BytesIO(GOOD["turned by EXIF"])).rotate(-90, expand=True)), 32, rng)
    assert tokens[list(GOOD).index("turned by EXIF")] == model.tokenize(as_floats(as_tensor(upright[None].copy())))[0].tolist()


@pytest.mark.parametrize("crops", [0, 2])
def test_bad_pictures_get_a_reason_and_leave_the_batch_alone(make_config, inputs, run_job, tmp_path, crops):
    give_pictures(tmp_path, [data for data, _ in BAD.values()] + list(GOOD.values())[:10])
    config = make_config({"tokenize_images.random_crops": crops, "tokenize_images.batch_size": 3, "download.max_pixels": 100_000_000})
    result = run_job("tokenize_images", config, inputs)
    reasons = [reason for _, reason in BAD.values()]
    assert result["dropped"] == {reason: 3 * reasons.count(reason) for reason in sorted(set(reasons))}, "three parts"
    assert result["num_images"] == 30 * max(1, crops)
    dropped = read_parquet(min((tmp_path / result["image_tokens"] / "dropped").iterdir()), DROPPED_PAIRS)["reason"].to_pylist()
    assert dict(zip(BAD, dropped, strict=True)) == {name: reason for name, (_, reason) in BAD.items()}


def test_a_part_of_bad_pictures_only_becomes_an_empty_part(make_config, inputs, run_job, tmp_path):
    give_pictures(tmp_path, [b"<html>"] * 20)
    result = run_job("tokenize_images", make_config(), inputs)
    assert (result["num_images"], result["dropped"]) == (0, {"not_an_image": 60})


@pytest.mark.parametrize("random_crop", [False, True])
def test_odd_pictures_are_trained_on(make_config, pairs, run_job, tmp_path, random_crop):
    give_pictures(tmp_path, list(GOOD.values()))
    few = {
        "train_dvae.max_steps": 5,
        "train_dvae.batch_size": 12,
        "train_dvae.random_crop": random_crop,
        "train_dvae.random_flip": random_crop,
    }
    assert run_job("train_dvae", make_config({**few, "train_dvae.decode_threads": 2}), pairs)["num_steps"] == 5


@pytest.mark.parametrize("name", ["bomb", "cut JPEG", "page"])
def test_training_names_the_pair_whose_picture_is_bad(make_config, pairs, run_job, tmp_path, name):
    data, reason = BAD[name]
    give_pictures(tmp_path, [data] * 15)
    with pytest.raises(ValueError, match=rf"pair -?\d+: its picture cannot be decoded \({reason}: .*\); run the filter stage again"):
        run_job("train_dvae", make_config({"train_dvae.max_steps": 5, "train_dvae.batch_size": 12}), pairs)


def test_reconstructing_shows_the_odd_and_names_the_bad(make_config, inputs, run_job, tmp_path):
    names = []
    for name, data in {**GOOD, **{name: data for name, (data, _) in BAD.items()}}.items():
        (tmp_path / f"{name}.file").write_bytes(data)
        names.append(f"{name}.file")
    inputs = {"dvae": "dvae", "dvae_id": inputs["dvae_id"], "max_pictures": "100", "pictures": "\n".join(names)}
    result = run_job("reconstruct", make_config(), inputs)
    assert result["num_pictures"] == len(GOOD)
    assert {name.removesuffix(".file"): reason.split(":")[0] for name, reason in result["dropped"].items()} == {
        name: reason for name, (_, reason) in BAD.items()
    }
