"""What looks alike, and what does not."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from dalle_datasets.demo.emoji_scenes import COLORS, Scene, draw_scene, split_scenes
from dalle_datasets.filters import hashes
from dalle_datasets.filters.hashes import MAX_HASH_BITS, Fingerprint, Fingerprints, find_near_duplicates, fingerprint_of

SCENES = [scene for scene in split_scenes(600)["training"] if scene.color != "natural"][:300]
PICTURES = [Image.fromarray(draw_scene(scene, 128)) for scene in SCENES]


@pytest.fixture(scope="module")
def fingerprints():
    return [fingerprint_of(picture) for picture in PICTURES]


def jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=70)
    return Image.open(buffer).convert("RGB")


def alike(left, right):
    """Sorted places of what looks alike."""
    found = find_near_duplicates(Fingerprints.of(left), Fingerprints.of(right))
    return sorted((int(i), int(j)) for places in found for i, j in zip(*places, strict=True))


@pytest.mark.parametrize(
    "change",
    [jpeg, lambda p: p.resize((64, 64), Image.Resampling.LANCZOS), lambda p: p.resize((300, 300), Image.Resampling.BICUBIC)],
    ids=["jpeg", "half", "larger"],
)
def test_recompressed_and_scaled_pictures_are_found(fingerprints, change):
    found = alike([fingerprint_of(change(picture)) for picture in PICTURES[::5]], fingerprints)
    assert sum((i, 5 * i) in found for i in range(60)) / 60 >= 0.85


def test_other_scenes_do_not_look_alike(fingerprints):
    """Flat clip art, where one hash alone confuses objects; colour alone differs too."""
    confused = [(SCENES[i], SCENES[j]) for i, j in alike(fingerprints, fingerprints) if i < j]
    assert len(confused) <= 1, confused


def test_colour_alone_makes_a_difference():
    fingerprints = [fingerprint_of(Image.fromarray(draw_scene(Scene("heart", color, "white", "big"), 64))) for color in COLORS]
    assert alike(fingerprints, fingerprints) == [(i, i) for i in range(len(fingerprints))]


@pytest.mark.parametrize("max_compared", [7, hashes.MAX_COMPARED])
def test_groups_of_bits_find_what_comparing_all_with_all_finds(max_compared, monkeypatch):
    """Hashes at random distances around the limit; the groups must not miss one, nor name one twice."""
    monkeypatch.setattr(hashes, "MAX_COMPARED", max_compared)
    rng = random.Random(0)
    thumbnail = bytes(48)
    fingerprints = []
    for _ in range(60):
        phash, dhash = rng.getrandbits(64), rng.getrandbits(64)
        for _ in range(6):
            flips = [sum(1 << bit for bit in rng.sample(range(64), rng.randrange(0, 7))) for _ in range(2)]
            values = [(value ^ flip) - (1 << 64 if (value ^ flip) >> 63 else 0) for value, flip in zip((phash, dhash), flips, strict=True)]
            fingerprints.append(Fingerprint(*values, thumbnail, 50.0))

    def distance(a, b):
        return ((a ^ b) & (2**64 - 1)).bit_count()

    assert alike(fingerprints, fingerprints) == [
        (i, j)
        for i, look in enumerate(fingerprints)
        for j, other in enumerate(fingerprints)
        if distance(look.phash, other.phash) <= MAX_HASH_BITS and distance(look.dhash, other.dhash) <= MAX_HASH_BITS
    ]


def test_contrast():
    assert fingerprint_of(Image.new("RGB", (50, 40), "red")).contrast == 0
    checkers = Image.fromarray(np.kron([[0, 1] * 32, [1, 0] * 32] * 32, np.ones((2, 2))).astype(np.uint8) * 255).convert("RGB")
    assert fingerprint_of(checkers).contrast == pytest.approx(127.5, abs=1)


def test_large_pictures_look_like_small_ones(fingerprints):
    large = PICTURES[7].resize((3_000, 3_000), Image.Resampling.LANCZOS)
    assert (0, 7) in alike([fingerprint_of(large)], fingerprints)


def test_nothing_to_compare():
    assert alike([], []) == []
    assert alike([Fingerprint(0, 0, bytes(48), 1.0)], []) == []
