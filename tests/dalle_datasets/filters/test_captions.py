"""Caption rules on captions as they are found."""

import random
import time

import pytest

from dalle_datasets.config import FilterConfig
from dalle_datasets.demo.demo_site import BOILERPLATE_CAPTIONS, FILE_NAME_CAPTIONS, FOREIGN_CAPTIONS, SHORT_CAPTIONS
from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene
from dalle_datasets.filters import captions

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


@pytest.mark.parametrize(
    "caption",
    [
        *FILE_NAME_CAPTIONS, "photo.JPEG", "IMG-0042", "dscn1234 (2)", "my holiday in spain.png", "IMG_20200501_101112",
        "DJI_0042", "GOPR1234",
        "Screenshot 2020-05-01 at 10.11.12", "Screen Shot 2020-05-01 at 10.11.12 AM", "WhatsApp Image 2020-05-01 at 10.11.12", "image (3)",
        "a8f3e2b19c0d4e5f8a7b6c5d4e3f2a1b", "550e8400-e29b-41d4-a716-446655440000", "untitled-1 copy", "PXL_20210304_112233444",
        "my-holiday-photo-1024x768", "red_car_final_v2", "IMG-20200101-WA0001",
    ],
)  # fmt: skip
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


@pytest.mark.parametrize(
    "caption",
    ["Area 51", "photo 51 of the cat", "thumbnail.png of a cat", "state-of-the-art", "Photo 5", "image of 3 cats", "accessibilities",
     "Boeing 747-400", "Photo 2014 in Paris", "untitled"],
)  # fmt: skip
def test_words_and_numbers_that_are_no_file_names(caption):
    assert not captions.is_file_name(caption)


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


@pytest.mark.parametrize(
    "caption",
    ["call +1 (415) 555-2671", "Tel: 020 7946 0958", "our server 192.168.0.1", "jane (at) example (dot) org", "number 123-45-6789"],
)
def test_personal_data(caption):
    assert captions.has_personal(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "ISBN 978-3-16-148410-0 book",
        "1939-1945 war memorial",
        "12 x 34 56 cm",
        "version 1.2.3",
        "built (1920) 300 years ago",
        "12.5.2014",
        "1.2.3.400",
    ],
)
def test_numbers_that_belong_to_nobody(caption):
    assert not captions.has_personal(caption)


@pytest.mark.parametrize(
    "caption",
    [
        'src="a.jpg" alt cat',
        "<!-- a cat -->",
        "<?php echo cat",
        "${name} on a sofa",
        "nbsp; a cat",
        "cats at example.co.uk",
    ],
)
def test_remnants_of_markup(caption):
    assert captions.has_markup(caption)


@pytest.mark.parametrize(
    "caption", ["C++ <3", "a < b and c > d", "salt & pepper", "AT&T; store", "U.S.A. flag", "the set {1, 2}", "e = mc2"]
)
def test_signs_that_are_no_markup(caption):
    assert not captions.has_markup(caption)


@pytest.mark.parametrize("text", ["a", "a-", "1 ", "1.", "img 1.", "{", "<a", "(12) ", "src =", "1.1.", "-_"])
def test_no_caption_takes_long(text):
    """Patterns that go back and forth take time that grows with the square of the length, or worse."""
    started = time.process_time()
    caption = text * (20_000 // len(text))
    captions.is_file_name(caption), captions.has_markup(caption), captions.has_personal(caption), captions.boilerplate_share(caption)
    assert time.process_time() - started < 0.5
