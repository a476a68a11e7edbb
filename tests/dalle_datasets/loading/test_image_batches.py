"""Pictures reach training in an order and a shape that depend on seed and step only."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dalle_datasets.loading.image_batches import (
    ImageBatches,
    centre,
    dvae_augmentation,
    dvae_augmentation_with_flip,
    transformer_augmentation,
)
from dalle_datasets.loading.row_order import seeded_random
from dalle_datasets.store.parquet import write_parts
from dalle_datasets.store.schemas import PAIRS


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_pairs(directory: Path, images: list[bytes], split_of=lambda i: "train") -> None:
    text = {name: ["x"] * len(images) for name in ("sha256", "pixel_sha256", "language", "source", "page_url", "image_url", "candidate_id")}
    numbers = {name: [1] * len(images) for name in ("width", "height", "num_caption_words", "aspect_ratio")}
    table = pa.table(
        {
            "pair_id": list(range(len(images))), "caption": [f"picture {i}" for i in range(len(images))], "image": images,
            "split": [split_of(i) for i in range(len(images))], **text, **numbers,
        }
    )  # fmt: skip
    write_parts(directory, table, PAIRS, rows_per_part=7, row_group_size=3)


@pytest.fixture
def flat_pairs(tmp_path: Path) -> Path:
    """20 pictures whose grey is their pair id; every fifth is in the validation split."""
    pictures = [png(np.full((8, 10, 3), i, np.uint8)) for i in range(20)]
    write_pairs(tmp_path, pictures, lambda i: "validation" if i % 5 == 4 else "train")
    return tmp_path


def ids(source: ImageBatches, num_steps: int, **settings) -> list[list[int]]:
    stream = source.batches(4, **settings)
    return [next(stream).pair_ids.tolist() for _ in range(num_steps)]


def test_an_epoch_holds_every_pair_of_the_split_once_and_pictures_belong_to_their_ids(flat_pairs):
    stream = ImageBatches(flat_pairs, "train", 4).batches(4, seed=0)
    batches = [next(stream) for _ in range(4)]
    seen = [i for batch in batches for i in batch.pair_ids.tolist()]
    assert sorted(seen) == [i for i in range(20) if i % 5 != 4]
    for batch in batches:
        assert batch.images.shape == (4, 4, 4, 3)
        assert batch.images.dtype == np.uint8
        assert (batch.images == batch.pair_ids[:, None, None, None]).all()
        assert batch.captions == [f"picture {i}" for i in batch.pair_ids]


def test_batches_from_a_step_on_are_those_of_an_uninterrupted_run(flat_pairs):
    source = ImageBatches(flat_pairs, "train", 4)
    assert ids(source, 11, seed=3)[5:] == ids(ImageBatches(flat_pairs, "train", 4), 6, seed=3, start_step=5)
    assert ids(source, 4, seed=3) != ids(source, 4, seed=4)


def test_two_readers_see_disjoint_halves_of_each_batch(flat_pairs):
    source = ImageBatches(flat_pairs, "train", 4)
    halves = [ids(source, 6, seed=1, rank=rank, world_size=2) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == ids(source, 6, seed=1)


def test_augmented_pictures_do_not_depend_on_the_number_of_threads_or_readers(tmp_path):
    rng = np.random.default_rng(0)
    write_pairs(tmp_path, [png(rng.integers(0, 256, (20, 24, 3), np.uint8)) for _ in range(8)])
    plain = next(ImageBatches(tmp_path, "train", 8, square=dvae_augmentation).batches(4, seed=1)).images
    threaded = ImageBatches(tmp_path, "train", 8, square=dvae_augmentation, num_threads=3)
    assert (next(threaded.batches(4, seed=1)).images == plain).all()
    assert (next(threaded.batches(4, seed=1, rank=1, world_size=2)).images == plain[2:]).all()


def test_in_order_gives_every_pair_once_as_stored(flat_pairs):
    batches = list(ImageBatches(flat_pairs, "validation", 4).in_order(3))
    assert [batch.pair_ids.tolist() for batch in batches] == [[4, 9, 14], [19]], "batches are full, however small the row groups"


def test_centre_takes_the_middle_square_and_averages_areas():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:4], image[:, 4:6] = 100, 200
    assert centre(image, 2, seeded_random())[..., 0].tolist() == [[100, 200], [100, 200]]
    assert centre(image, 4, seeded_random())[..., 0].tolist() == [[100, 100, 200, 200]] * 4


@pytest.mark.parametrize("square", [centre, dvae_augmentation, dvae_augmentation_with_flip, transformer_augmentation])
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 9, 3), (64, 64, 3), (90, 64, 3), (300, 200, 3)])
def test_every_picture_becomes_a_square_of_the_side_asked_for(square, shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for i in range(5):
        assert square(image, 64, seeded_random(i)).shape == (64, 64, 3)


def test_listing_1_looks_anywhere_and_mirrors_half_of_the_time():
    # A horizontal ramp: the mean says where the crop was, the slope which way round.
    image = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (64, 200, 3))
    crops = [dvae_augmentation_with_flip(image, 32, seeded_random(i)).astype(int) for i in range(200)]
    means = [crop.mean() for crop in crops]
    assert min(means) < 45
    assert max(means) > 155
    assert 0.4 < np.mean([crop[0, -1, 0] < crop[0, 0, 0] for crop in crops]) < 0.6


def test_listing_2_stays_near_the_centre_and_never_mirrors():
    image = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (64, 200, 3))
    crops = [transformer_augmentation(image, 64, seeded_random(i)).astype(int) for i in range(200)]
    lefts = [crop[0, 0, 0] for crop in crops]
    assert min(lefts) == 3 * 136 // 8
    assert max(lefts) == 5 * 136 // 8 - 1
    assert all(crop[0, -1, 0] > crop[0, 0, 0] for crop in crops)


def test_a_picture_that_cannot_be_decoded_is_named(tmp_path):
    write_pairs(tmp_path, [b"not a picture"])
    with pytest.raises(ValueError, match=r"pair 0: its picture cannot be decoded \(not_an_image: .*\); run the filter stage again"):
        next(ImageBatches(tmp_path, "train", 8).batches(1, seed=0))


def test_a_split_without_pairs_is_refused(flat_pairs):
    with pytest.raises(ValueError, match=r"has no pairs of split 'test'; run the filter stage first"):
        ImageBatches(flat_pairs, "test", 8)


def test_a_batch_that_does_not_split_is_refused(flat_pairs):
    with pytest.raises(ValueError, match=r"batch_size=4 does not split evenly over 3 processes; choose a multiple"):
        next(ImageBatches(flat_pairs, "train", 8).batches(4, seed=0, world_size=3))
