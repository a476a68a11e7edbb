"""What owners say against the use of pages and pictures, in all the ways in which headers and pages say it."""

from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalle_datasets.web.opt_outs import DIRECTIVES, directive_against, header_opt_out, meta_opt_out

OPT_OUT = st.tuples(st.sampled_from(sorted(DIRECTIVES)), st.sampled_from(["", "*: ", "open-dalle: ", "Open-DALLE:"])).map(
    lambda pair: pair[1] + pair[0]
)
VALUES = st.one_of(
    st.integers(-1, 999).map(str),
    st.sampled_from(
        ["large", "standard", "none", "25 Jun 2030 15:00:00 PST", "Saturday, 25-Jun-30 15:00:00 PST", "2030-06-25T15:00:00+02:00"]
    ),
)
OTHER = st.one_of(
    st.sampled_from(["all", "index", "follow", "nofollow", "noarchive", "nosnippet", "", " "]),
    st.tuples(st.sampled_from(["max-snippet", "max-image-preview", "max-video-preview", "unavailable_after"]), VALUES).map(": ".join),
    st.tuples(st.sampled_from(["googlebot", "otherbot/2.1"]), st.sampled_from(["noai", "noindex", "nofollow", "max-snippet: 3"])).map(
        ": ".join
    ),
    st.text(max_size=12),
)
SPACE = st.sampled_from(["", " ", "\t", "  "])


def listed(directives, spaces, is_upper):
    text = ",".join(space + directive + space for directive, space in zip(directives, spaces, strict=True))
    return text.upper() if is_upper else text


@st.composite
def values(draw, *wanted):
    """A header with `wanted` directives somewhere among any others."""
    directives = draw(st.permutations([*draw(st.lists(OTHER, max_size=6)), *(draw(one) for one in wanted)]))
    return listed(directives, draw(st.lists(SPACE, min_size=len(directives), max_size=len(directives))), draw(st.booleans()))


@given(values(OPT_OUT))
def test_an_opt_out_is_seen_among_any_other_directives(value):
    assert directive_against(value, "open-dalle") in DIRECTIVES


@given(st.lists(values(), max_size=3), values(OPT_OUT), st.lists(values(), max_size=3))
def test_an_opt_out_is_seen_in_any_of_several_headers_and_elements(before, value, after):
    assert meta_opt_out([("Robots", text) for text in (*before, value, *after)], "open-dalle").code == "meta_robots"
    headers = Message()
    for text in (*before, value, *after):
        headers["X-Robots-Tag"] = "".join(c for c in text if c.isprintable() or c == "\t")
    assert header_opt_out(headers, "open-dalle").code == "x_robots_tag"


@given(st.lists(st.one_of(OTHER.filter(str.isascii), st.just("otherbot: noai")), max_size=6).filter(
    lambda pieces: not any(word in DIRECTIVES for piece in pieces if ":" not in piece for word in piece.lower().replace(",", " ").split())
))  # fmt: skip
def test_what_others_are_told_and_values_are_no_opt_outs(pieces):
    known = [
        piece for piece in pieces if piece.partition(":")[0] in ("googlebot", "otherbot", "max-image-preview", "unavailable_after", "all")
    ]
    assert directive_against(", ".join(known), "open-dalle") is None


@pytest.mark.parametrize(
    "value", ["noindex nofollow", "max-snippet:20 noai", "nofollow;noai", '"noai"', "foo: bar, noai", "noai: yes", "all, *:none"]
)
def test_ways_of_writing_that_no_standard_knows(value):
    assert directive_against(value, "open-dalle")


@pytest.mark.parametrize(("value", "is_reserved"), [("1", True), ("0", False), (" 1 ", True), ("true", True), ("", False), ("0, 1", True)])
def test_reservations_in_headers_and_pages(value, is_reserved):
    headers = Message()
    headers["tdm-reservation"] = value
    assert (header_opt_out(headers, "open-dalle") is not None) is is_reserved
    found = meta_opt_out([("TDM-Reservation", value), ("tdm-policy", "http://a.example/")], "open-dalle")
    assert (found is not None and found.code == "tdm_reserved") is is_reserved
