"""What looks alike, and what does not."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from dalle_datasets.filters.evaluation import index_looks
from dalle_datasets.filters.hashes import MAX_HASH_BITS, Look, look_at
from dalle_datasets.sources.emoji_scenes import COLORS, Scene, draw_scene, split_scenes

SCENES = [scene for scene in split_scenes(600)["training"] if scene.color != "natural"][:300]
PICTURES = [Image.fromarray(draw_scene(scene, 128)) for scene in SCENES]


@pytest.fixture(scope="module")
def looks():
    return [look_at(picture) for picture in PICTURES]


@pytest.fixture(scope="module")
def index(looks):
    return index_looks(looks)


def jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=70)
    return Image.open(buffer).convert("RGB")


def find(index, look):
    return index.find(look.phash, look.dhash, np.frombuffer(look.thumbnail, np.uint8)).tolist()


@pytest.mark.parametrize(
    "change",
    [jpeg, lambda p: p.resize((64, 64), Image.Resampling.LANCZOS), lambda p: p.resize((300, 300), Image.Resampling.BICUBIC)],
    ids=["jpeg", "half", "larger"],
)
def test_recompressed_and_scaled_pictures_are_found(index, change):
    found = [i in find(index, look_at(change(picture))) for i, picture in enumerate(PICTURES[::5]) for i in [5 * i]]
    assert sum(found) / len(found) >= 0.85


def test_other_scenes_do_not_look_alike(index):
    """Flat clip art, where one hash alone confuses objects; colour alone differs too."""
    confused = [(SCENES[i], SCENES[j]) for i in range(len(SCENES)) for j in index.alike(i).tolist() if j > i]
    assert len(confused) <= 1, confused


def test_colour_alone_makes_a_difference():
    looks = [look_at(Image.fromarray(draw_scene(Scene("heart", color, "white", "big"), 64))) for color in COLORS]
    assert all(len(index_looks(looks).alike(i)) == 1 for i in range(len(looks)))


def test_the_index_finds_what_comparing_all_with_all_finds():
    """Hashes at random distances around the limit; the banded index must not miss one."""
    rng = random.Random(0)
    thumbnail = bytes(48)
    looks = []
    for _ in range(60):
        phash, dhash = rng.getrandbits(64), rng.getrandbits(64)
        for _ in range(6):
            flips = [sum(1 << bit for bit in rng.sample(range(64), rng.randrange(0, 7))) for _ in range(2)]
            values = [(value ^ flip) - (1 << 64 if (value ^ flip) >> 63 else 0) for value, flip in zip((phash, dhash), flips, strict=True)]
            looks.append(Look(*values, thumbnail, 50.0))

    def distance(a, b):
        return ((a ^ b) & (2**64 - 1)).bit_count()

    index = index_looks(looks)
    for i, look in enumerate(looks):
        expected = [
            j
            for j, other in enumerate(looks)
            if distance(look.phash, other.phash) <= MAX_HASH_BITS and distance(look.dhash, other.dhash) <= MAX_HASH_BITS
        ]
        assert index.alike(i).tolist() == expected


def test_contrast():
    assert look_at(Image.new("RGB", (50, 40), "red")).contrast == 0
    checkers = Image.fromarray(np.kron([[0, 1] * 32, [1, 0] * 32] * 32, np.ones((2, 2))).astype(np.uint8) * 255).convert("RGB")
    assert look_at(checkers).contrast == pytest.approx(127.5, abs=1)


def test_large_pictures_look_like_small_ones(looks, index):
    large = PICTURES[7].resize((3_000, 3_000), Image.Resampling.LANCZOS)
    assert 7 in find(index, look_at(large))


def test_an_empty_index():
    assert find(index_looks([]), Look(0, 0, bytes(48), 1.0)) == []
