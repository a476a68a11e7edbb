"""Caption rules on captions as they are found."""

import random

import pytest

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters import captions
from dalle_datasets.sources.demo_site import BOILERPLATE_CAPTIONS, FILE_NAME_CAPTIONS, FOREIGN_CAPTIONS, SHORT_CAPTIONS
from dalle_datasets.sources.emoji_scenes import all_scenes, caption_scene

LIMITS = FilterConfig()
GOOD = (
    "a small dog on the left side on a blue background",
    "Two children playing football in the park, May 2014",
    "View of the harbour from the castle",
    "My cat sleeping on a photo album",
    "The copyright office in Washington",
    "A stock pot on a gas stove",
    "Download speeds explained with a water pipe",
    "Clock tower at 10:15 on a sunny day in Prague",
)


@pytest.mark.parametrize(
    ("caption", "words"), [("a red car", 3), ("", 0), ("  two   words ", 2), ("白色背景上的红苹果", 5), ("赤い car", 2), ("흰색 배경", 2)]
)
def test_words_are_counted_in_every_script(caption, words):
    assert captions.count_words(caption) == words


@pytest.mark.parametrize(("caption", "letters"), [("a red car", 7), ("1 2 3!", 0), ("né", 2), ("तस्वीर", 6)])
def test_letters(caption, letters):
    assert captions.count_letters(caption) == letters


@pytest.mark.parametrize("caption", [*FILE_NAME_CAPTIONS, "photo.JPEG", "IMG-0042", "dscn1234 (2)", "my holiday in spain.png"])
def test_file_names(caption):
    assert captions.judge_file_name(captions.is_file_name(caption), caption).reason == "caption_file_name"


@pytest.mark.parametrize(
    "caption",
    [*BOILERPLATE_CAPTIONS, "Taken on 2014-05-03", "Image 7", "Picture taken at 14:05 on 3rd of May, 2014", "Photo credit: © 2010"],
)
def test_boilerplate(caption):
    verdict = captions.judge_boilerplate(captions.boilerplate_share(caption), LIMITS)
    assert verdict.reason == "caption_boilerplate"
    assert "% boilerplate" in verdict.detail


@pytest.mark.parametrize("caption", GOOD)
def test_good_captions_are_neither(caption):
    assert not captions.is_file_name(caption)
    assert captions.boilerplate_share(caption) <= 0.5
    assert captions.judge_length(captions.count_words(caption), captions.count_letters(caption), LIMITS).reason is None


@pytest.mark.parametrize("caption", SHORT_CAPTIONS)
def test_short_captions(caption):
    assert captions.judge_length(captions.count_words(caption), captions.count_letters(caption), LIMITS).reason == "caption_short"


def test_why_a_caption_is_short():
    assert captions.judge_length(2, 9, LIMITS).detail == "2 words"
    assert captions.judge_length(3, 3, LIMITS).detail == "3 letters"


def test_dirty_captions_of_the_demo_break_one_rule_only():
    """So that its drop counts do not depend on the order of the rules."""
    for caption in BOILERPLATE_CAPTIONS + FOREIGN_CAPTIONS:
        assert captions.judge_length(captions.count_words(caption), captions.count_letters(caption), LIMITS).reason is None, caption
        assert not captions.is_file_name(caption), caption
    for caption in SHORT_CAPTIONS:
        assert not captions.is_file_name(caption), caption
    for caption in FOREIGN_CAPTIONS:
        assert captions.boilerplate_share(caption) <= 0.5, caption


def test_every_caption_of_the_demo_world_passes():
    for i, scene in enumerate(all_scenes()):
        caption = caption_scene(scene, random.Random(i))
        assert captions.boilerplate_share(caption) == 0, caption
        assert captions.count_words(caption) >= 3


@pytest.mark.parametrize(
    "caption",
    [
        "a <b>red</b> car",
        "<br/>",
        "see https://example.org/x",
        "www.example.org",
        "Tom &amp; Jerry",
        "car &#39;",
        "photo from flickr.com",
        "[img]x",
        "{{title}} of it",
        "a%20%2Fcar",
        "index.html of the page",
    ],
)
def test_markup(caption):
    assert captions.judge_markup(captions.has_markup(caption), LIMITS).reason == "caption_markup"


@pytest.mark.parametrize(
    "caption",
    ["a < b and c > d", "Tom & Jerry", "50% off", "St. Mary's Church", "I <3 cats", "price: 3.50", "e.g. a car", "A {set} of keys"],
)
def test_no_markup(caption):
    assert not captions.has_markup(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "mail jane.doe@example.org",
        "jane (at) example (dot) org",
        "call +44 20 7946 0958 now",
        "(030) 123 456 78",
        "555-867-5309",
        "tel +491701234567",
    ],
)
def test_personal(caption):
    assert captions.has_personal(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "taken on 2014-05-03",
        "12/08/2013 in Rome",
        "1024 x 768 px",
        "10 20 people",
        "from 1914-1918",
        "ISBN 3",
        "the 100 200 race",
        "@home with the cat",
        "3.141592",
    ],
)
def test_not_personal(caption):
    assert not captions.has_personal(caption)
