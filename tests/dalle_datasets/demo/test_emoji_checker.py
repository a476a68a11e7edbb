"""The checker names every true scene, survives noise, and is strict about colour words."""

import random

import numpy as np
import pytest

from dalle_datasets.demo.emoji_checker import EmojiChecker, right_attributes
from dalle_datasets.demo.emoji_scenes import NATURAL, Scene, all_scenes, draw_scene

SCENES = random.Random(1).sample(all_scenes(), 40)


@pytest.fixture(scope="module")
def checker() -> EmojiChecker:
    return EmojiChecker()


@pytest.mark.parametrize("size", [32, 64])
def test_true_pictures_are_recognised_at_any_size(checker, size):
    seen = checker.recognise(np.stack([draw_scene(scene, size) for scene in SCENES]))
    assert sum(a == b for a, b in zip(seen, SCENES, strict=True)) >= (38 if size == 32 else 40)


def test_noise_does_not_change_the_answer(checker):
    noise = np.random.default_rng(0).normal(0, 20, (40, 64, 64, 3))
    pictures = np.stack([draw_scene(scene, 64) for scene in SCENES]) + noise
    seen = checker.recognise(np.clip(pictures, 0, 255).astype(np.uint8))
    assert sum(a == b for a, b in zip(seen, SCENES, strict=True)) >= 38


def test_each_changed_attribute_is_noticed_alone():
    asked = Scene("apple", "red", "white", "big")
    assert right_attributes(asked, asked) == {"object": True, "color": True, "background": True, "layout": True, "all": True}
    assert right_attributes(Scene("pear", "red", "white", "big"), asked) == {
        "object": False, "color": True, "background": True, "layout": True, "all": False,
    }  # fmt: skip
    assert not right_attributes(Scene("apple", "red", "white", "two"), asked)["layout"]
    assert not right_attributes(Scene("apple", "red", "pink", "big"), asked)["background"]


def test_a_glyph_s_own_colour_does_not_pass_for_a_named_one():
    """An early checker took an apple in its natural red for "a red apple", then a banana for "a red banana" too."""
    assert not right_attributes(Scene("apple", NATURAL, "white", "big"), Scene("apple", "red", "white", "big"))["color"]


def test_a_big_batch_gives_the_same_answers_as_a_small_one(checker):
    pictures = np.stack([draw_scene(scene, 32) for scene in SCENES])
    many = np.tile(pictures, (30, 1, 1, 1))
    assert checker.recognise(many) == checker.recognise(pictures) * 30


def test_other_shapes_are_errors(checker):
    with pytest.raises(ValueError, match=r"pictures are float64 \[1, 32, 32, 3\]; the checker reads uint8 \[N, S, S, 3\]"):
        checker.recognise(np.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match=r"side of 48 pixels; the checker reads multiples of 32"):
        checker.recognise(np.zeros((1, 48, 48, 3), np.uint8))
