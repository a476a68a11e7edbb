"""Charts: where points land, which ticks are shown, and what they say to those who cannot see them."""

import base64
import math
import re
from xml.etree import ElementTree

import pytest

from flows.report.figures import (
    Lines,
    Series,
    as_data_url,
    histogram,
    horizontal_bars,
    line_chart,
    line_svg,
    nice_ticks,
    padded,
    powers_of_ten,
    short,
    thin,
)
from flows.report.networks import join_bars


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in re.findall(r'points="([^"]*)"', svg)]


def test_a_line_runs_from_corner_to_corner():
    svg = line_chart("t", [Series("a", [(0, 0), (10, 1)], "accent")], Lines("x", y_range=(0, 1), size=(520, 250)))
    ((x0, y0), (x1, y1)) = points_of(svg)[0]
    assert (x0, y0) == (46, 250 - 34), "bottom left of the plot"
    assert (x1, y1) == (520 - 14, 14), "top right"


def test_given_ticks_stand_evenly_apart():
    svg = line_chart("t", [Series("a", [(1, 0.5), (4, 0.5), (8, 0.5)], "accent")], Lines("n", y_range=(0, 1), x_ticks=[1, 4, 8]))
    (x0, _), (x1, _), (x2, _) = points_of(svg)[0]
    assert x1 - x0 == pytest.approx(x2 - x1)


def test_a_chart_says_what_it_shows():
    svg = line_chart("Loss", [Series("train", [(0, 3), (10, 0.5)], "accent")], Lines("steps"))
    assert 'aria-label="Loss: train from 3 to 0.5"' in svg


def test_a_second_axis_counts_in_its_own_unit():
    """0 to 2 ln 2 nats on the left are 0 to 2 bits on the right, at the same heights."""
    top = 2 * math.log(2)
    look = Lines("steps", y_range=(0, top), y_name="nats", right=("bits", math.log(2)), size=(520, 250))
    svg = line_svg("Loss", [Series("train", [(0, 0), (1, top)], "accent")], look)
    right = re.findall(r'<text class="tick" x="481.0" y="([0-9.]+)" text-anchor="start">([0-9.]+)<', svg)
    assert {text: float(y) for y, text in right} == {"0": 220, "0.5": 172.5, "1": 125, "1.5": 77.5, "2": 30}, "4 below the lines, evenly"
    assert "nats</text>" in svg
    assert "bits</text>" in svg


def test_a_chart_by_itself_brings_its_colours_and_names_nothing_outside():
    address = as_data_url(line_svg("Loss", [Series("train", [(0, 0), (1, 1)], "accent")], Lines("steps")))
    svg = base64.b64decode(address.partition("base64,")[2]).decode()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "--accent:" in svg
    assert "prefers-color-scheme: dark" in svg
    assert re.findall(r"url\(|@import|<script|href", svg) == []


def test_one_line_needs_no_legend_and_two_do():
    one = Series("first", [(0, 0), (1, 1)], "accent")
    assert "legend" not in line_chart("t", [one], Lines("x"))
    assert line_chart("t", [one, Series("second", [(0, 1)], "held", is_dashed=True)], Lines("x")).count('class="key') == 2


def test_labels_are_escaped():
    assert "<b>" not in line_chart("<b>", [Series("<b>", [(0, 0), (1, 1)], "accent")], Lines("<b>"))
    assert "<b>" not in horizontal_bars("<b>", [("<b>", 1, "<b>")])


@pytest.mark.parametrize(
    "draw", [lambda: line_chart("t", [], Lines("x")), lambda: histogram("t", [], x_label="x"), lambda: horizontal_bars("t", [])]
)
def test_nothing_to_draw_is_said(draw):
    assert "Nothing was logged." in draw()


def test_a_flat_curve_and_a_single_point_can_be_drawn():
    assert points_of(line_chart("t", [Series("a", [(0, 2), (5, 2)], "accent")], Lines("x")))
    assert points_of(line_chart("t", [Series("a", [(3, 2)], "accent")], Lines("x")))


def test_bars_are_as_high_as_their_numbers():
    svg = histogram("t", [(0, 1, 5), (1, 2, 10)], x_label="x", size=(520, 250))
    heights = [float(value) for value in re.findall(r'<rect [^>]*height="([0-9.]+)"', svg)]
    assert heights == [pytest.approx((250 - 34 - 14) / 2, abs=0.1), pytest.approx(250 - 34 - 14, abs=0.1)]


def test_a_lone_bar_stands_in_the_middle_and_does_not_fill_the_picture():
    svg = histogram("t", [(9, 10, 5)], x_label="x", size=(524, 250))
    [(x, width)] = re.findall(r'<rect x="([0-9.]+)" [^>]*width="([0-9.]+)"', svg)
    plot = 524 - 46 - 14
    assert float(width) == pytest.approx(plot / 8 - 1, abs=0.1)
    assert float(x) + float(width) / 2 == pytest.approx(46 + plot / 2, abs=0.1)


def test_what_was_kept_is_part_of_its_bar():
    svg = histogram("t", [(0, 1, 10), (1, 2, 5)], x_label="x", kept=[5, 0])
    heights = [float(value) for value in re.findall(r'<rect [^>]*height="([0-9.]+)" style="fill:var\(--accent\)"', svg)]
    assert heights == [pytest.approx((250 - 34 - 14) / 2, abs=0.1)], "nothing is drawn for none"
    assert "0 to 1: 10, 5 kept" in svg
    assert "left out</li>" in svg


def test_bars_on_a_logarithmic_axis():
    svg = histogram("t", [(0, 1, 100), (1, 2, 10), (2, 3, 1)], x_label="x", is_log=True, size=(520, 250))
    heights = [float(value) for value in re.findall(r'<rect [^>]*height="([0-9.]+)"', svg)]
    assert heights == [pytest.approx(202 * i / 3, abs=0.1) for i in (3, 2, 1)]
    assert powers_of_ten(0.03, 19) == pytest.approx([0.01, 0.1, 1, 10])
    assert powers_of_ten(1, 1) == pytest.approx([0.1, 1])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 500, [0, 100, 200, 300, 400, 500]), (-0.12, 0.31, [-0.1, 0, 0.1, 0.2, 0.3]), (3, 3, [3])],
)
def test_ticks_are_round_numbers(low, high, ticks):
    assert nice_ticks(low, high) == ticks


@pytest.mark.parametrize(("value", "text"), [(1_500, "1.5k"), (2e6, "2M"), (0.25, "0.25"), (-3_000, "-3k")])
def test_short_numbers(value, text):
    assert short(value) == text


def test_a_range_starts_at_zero_when_the_data_come_near_it():
    assert padded(0.1, 2.0)[0] == 0
    assert 20 < padded(21.0, 24.0)[0] < 21


def test_long_curves_are_thinned_and_keep_their_ends():
    points = [(float(i), float(i)) for i in range(10_000)]
    thinned = thin(points)
    assert (len(thinned), thinned[0], thinned[-1]) == (300, points[0], points[-1])
    assert thin(points[:300]) == points[:300]


def test_joined_bars_keep_the_mean():
    bars = [(float(i), float(i + 1), float(i)) for i in range(1_000)]
    joined = join_bars(bars)
    assert len(joined) == 250
    assert joined[0] == (0.0, 4.0, 1.5)
    assert join_bars(bars[:10]) == bars[:10]
    assert join_bars([]) == []
