"""Which language is it, for captions of a few words."""

import random

import pytest

from dalle_datasets.config import FilterConfig
from dalle_datasets.demo.demo_site import FOREIGN_CAPTIONS
from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene
from dalle_datasets.filters.captions import judge_language
from dalle_datasets.filters.languages import detect_language

ENGLISH = (
    "a cat",
    "red apple on white",
    "Two dogs on the beach at sunset",
    "An oil painting of a storm at sea",
    "teapot",
    "THE OLD BRIDGE IN WINTER",
    "a fluffy capybara wearing a hat",
)


@pytest.mark.parametrize("caption", ENGLISH)
def test_english_is_kept(caption):
    assert detect_language(caption, ("en",)).language == "en"


@pytest.mark.parametrize("caption", FOREIGN_CAPTIONS)
def test_other_languages_are_not(caption):
    language = detect_language(caption, ("en",)).language
    verdict = judge_language(language, FilterConfig())
    assert (verdict.reason, verdict.detail) == ("caption_language", f"language {language!r}")


def test_several_languages_may_be_wanted():
    wanted = ("en", "de", "fr")
    assert detect_language("ein roter Apfel auf weißem Hintergrund", wanted).language == "de"
    assert detect_language("une pomme rouge sur un fond blanc", wanted).language == "fr"
    assert detect_language("a red apple on a white background", wanted).language == "en"
    assert detect_language("una manzana roja sobre un fondo blanco", wanted).language == "es"


def test_a_language_without_a_dictionary_is_up_to_the_model():
    assert detect_language("白い背景の赤いりんご", ("ja",)).language == "ja"


def test_no_wanted_language_keeps_all():
    assert judge_language("xx", FilterConfig(languages=())).reason is None
    assert detect_language("ein roter Apfel auf weißem Hintergrund", ()).language == "de"


def test_captions_of_the_demo_world_are_english():
    for i, scene in enumerate(all_scenes()[::7]):
        caption = caption_scene(scene, random.Random(i))
        assert detect_language(caption, ("en",)).language == "en", caption


@pytest.mark.parametrize("caption", ["", " ", "12345", "🙂🙂", "\u200b", "?!", "a" * 10_000])
def test_what_is_no_language_is_no_error(caption):
    detect_language(caption, ("en",))


def test_the_detector_of_the_paper_throws_short_captions_away():
    """Why CLD3 is an option and not the default."""
    assert detect_language("A storm is coming over the old harbour of the town", ("en",), "cld3").language == "en"
    assert detect_language("ein roter Apfel liegt auf dem Tisch in der Küche", ("en",), "cld3").language == "de"
    captions = [caption_scene(scene, random.Random(i)) for i, scene in enumerate(all_scenes()[::20])]
    kept = sum(detect_language(caption, ("en",), "cld3").language == "en" for caption in captions) / len(captions)
    assert kept < 0.9
