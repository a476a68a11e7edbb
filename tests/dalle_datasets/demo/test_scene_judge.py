"""The judge of `dalle bench scenes` names every rendered scene, survives noise, and is strict about each question alone."""

from itertools import islice

import numpy as np
import pytest

from dalle_datasets.demo.emoji_scenes import held_out_pairs
from dalle_datasets.demo.scene_judge import SceneJudge, is_right
from dalle_datasets.demo.scene_questions import QUESTIONS, SPLITS, Scene, Thing, scenes, training_scenes

ASKED = [scene for question in QUESTIONS for split in SPLITS for scene in islice(scenes(question, split), 12)]


@pytest.fixture(scope="module")
def judge():
    return SceneJudge()


def test_rendered_truth_is_judged_right_and_other_scenes_wrong(judge):
    pictures = np.stack([scene.draw() for scene in ASKED])
    noise = np.random.default_rng(0).normal(0, 20, pictures.shape)
    for shown in (pictures, np.clip(pictures + noise, 0, 255).astype(np.uint8)):
        assert all(is_right(seen, scene) for seen, scene in zip(judge.look(shown), ASKED, strict=True))
    others = ASKED[1:] + ASKED[:1]
    wrong = [is_right(seen, other) for seen, other in zip(judge.look(pictures), others, strict=True)]
    assert sum(wrong) <= 0.02 * len(ASKED), "hardly any scene answers the question of its neighbour"


def test_each_question_is_about_one_thing(judge):
    cat, dog = Thing("cat"), Thing("dog")
    (seen,) = judge.look(Scene("position", (cat, dog), "white", "left of").draw()[None])
    assert (seen.background, seen.layout, seen.things) == ("white", ("left", "right"), (cat, dog))
    assert is_right(seen, Scene("position", (cat, dog), "pink", "left of"))
    assert is_right(seen, Scene("position", (dog, cat), "white", "right of")), "the same, said the other way round"
    assert not is_right(seen, Scene("position", (dog, cat), "white", "left of"))
    assert not is_right(seen, Scene("position", (cat, dog), "white", "above"))
    assert is_right(seen, Scene("two_objects", (dog, cat), "white"))
    assert not is_right(seen, Scene("one_object", (cat,), "white"))
    (seen,) = judge.look(Scene("counting", (cat,) * 3, "white").draw()[None])
    assert [is_right(seen, Scene("counting", (cat,) * number, "white")) for number in (2, 3, 4)] == [False, True, False]
    asked = (Thing("cat", "red"), Thing("dog", "blue"))
    (swapped,) = judge.look(Scene("colour_attribution", (Thing("cat", "blue"), Thing("dog", "red")), "white", "left of").draw()[None])
    assert not is_right(swapped, Scene("colour_attribution", asked, "white"))
    assert is_right(swapped, Scene("two_objects", (dog, cat), "white")), "whatever their colours"
    assert not is_right(swapped, Scene("colours", (Thing("cat", "blue"),), "white"))


def test_a_smear_is_nothing(judge):
    picture = Scene("one_object", (Thing("cat"),), "white").draw().astype(float)
    gray = np.tile(picture.mean((0, 1)), (64, 64, 1))
    blobs = [gray]
    for color in np.random.default_rng(1).integers(0, 256, (40, 3)):
        blob = np.full((64, 64, 3), 255.0)
        blob[16:48, 16:48] = color
        blobs.append(blob)
    seen = judge.look(np.stack(blobs).astype(np.uint8))
    assert seen[0].things.count(None) == len(seen[0].things)
    assert sum(any(thing is not None for thing in what.things) for what in seen) <= 8, "squares are hardly ever glyphs"


def test_pictures_of_other_shapes_are_refused(judge):
    with pytest.raises(ValueError, match=r"pictures are float64 \[1, 32, 32, 3\]; the judge reads uint8"):
        judge.look(np.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="have a side of 48 pixels; the judge reads multiples of 32"):
        judge.look(np.zeros((1, 48, 48, 3), np.uint8))


def test_no_training_scene_shows_what_is_held_out_and_those_asked_for_are_trained_on():
    trained_on = list(training_scenes(600))
    assert len(set(trained_on)) == 600
    assert {scene.split for scene in trained_on} == {"seen"}
    shown = {part for scene in trained_on for part in scene.composition}
    for question in QUESTIONS:
        assert set(islice(scenes(question, "seen"), 16)) <= set(trained_on)
        held_out = list(islice(scenes(question, "held_out"), 16))
        assert len(held_out) == 16
        assert all(not shown.issuperset(scene.composition) for scene in held_out)
    pairs = {(thing.object, thing.color) for scene in trained_on for thing in scene.things}
    assert not pairs & held_out_pairs(), "nor what the demo holds out"


def test_captions_use_the_words_of_the_demo():
    assert Scene("counting", (Thing("strawberry"),) * 4, "pink").caption() == "four strawberries on a pink background"
    things = (Thing("apple", "red"), Thing("owl", "blue"))
    assert Scene("colour_attribution", things, "white").caption() == "a red apple and a blue owl on a white background"
    assert (
        Scene("position", (Thing("owl"), Thing("cat")), "blue", "left of").caption() == "an owl to the left of a cat on a blue background"
    )
    captions = [Scene("position", (Thing("owl"), Thing("cat")), "blue", relation).caption() for relation in ("left of", "above")]
    assert captions == ["an owl to the left of a cat on a blue background", "an owl above a cat on a blue background"]
