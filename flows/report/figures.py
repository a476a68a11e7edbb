"""Charts as inline SVG: no scripts, no network, and colours that follow the page's light or dark theme."""

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup, escape

from flows.report.templating import piece

MIN_BARS = 8
"""Least width of a histogram, in bars."""
MAX_POINTS = 300
"""A curve with more points is thinned: nobody sees more, and the page stays small."""

At = Callable[[float, float], tuple[float, float]]
"""Maps data coordinates to those of the picture."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 14, 34

WIDE, SMALL = (520, 250), (360, 210)
"""Sizes of charts of which two and three stand side by side."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    label: str
    points: Sequence[tuple[float, float]]
    color: str
    """Name of a CSS variable without the dashes, e.g. `training`."""
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """How a line chart looks beside its lines."""

    x_label: str
    y_range: tuple[float, float] | None = None
    """Instead of the range of the data."""
    x_ticks: Sequence[float] | None = None
    """Exactly these are labelled, evenly apart (for n = 1, 4, 8, …)."""
    with_dots: bool = False
    y_text: Callable[[float], str] = lambda value: short(value)
    y_name: str = ""
    """Unit of the axis, above it."""
    right: tuple[str, float] | None = None
    """A second axis on the right: its unit, and how many units of the left axis one of them is worth."""
    size: tuple[int, int] = WIDE


def line_chart(title: str, series: Sequence[Series], look: Lines, legend: Sequence[Series] | None = None) -> Markup:
    """Lines over a common x axis, with a title. The legend explains every line, or the ones given in `legend`."""
    drawn = [item for item in series if item.points]
    return _figure(title, line_svg(title, series, look), drawn if legend is None else legend) if drawn else empty_chart(title)


def line_svg(title: str, series: Sequence[Series], look: Lines) -> Markup:
    """The lines alone; at least one of them has a point."""
    width, height = look.size
    drawn = [item for item in series if item.points]
    x_ticks, x_label, right_margin = look.x_ticks, look.x_label, _LEFT if look.right else _RIGHT
    top = _TOP + (12 if look.y_name else 0)
    place = {x: i for i, x in enumerate(x_ticks)} if x_ticks else None
    scaled = [[(place[x] if place else x, y) for x, y in thin(item.points)] for item in drawn]
    xs, ys = [x for points in scaled for x, _ in points], [y for points in scaled for _, y in points]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-9)
    y_low, y_high = look.y_range or padded(min(ys), max(ys))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (min(max(y, y_low), y_high) - y_low) / (y_high - y_low)
        return _LEFT + across * (width - _LEFT - right_margin), height - _BOTTOM - up * (height - top - _BOTTOM)

    parts = [_axis_y(at, x_low, x_high, nice_ticks(y_low, y_high), look.y_text)]
    parts.append(_text(_LEFT - 7, 10, look.y_name, "end", "axis-name"))
    if look.right:
        name, worth = look.right
        ticks = nice_ticks(y_low / worth, y_high / worth)
        parts += [_text(width - right_margin + 7, at(x_low, tick * worth)[1] + 4, short(tick), "start") for tick in ticks]
        parts.append(_text(width - right_margin + 7, 10, name, "start", "axis-name"))
    labels = [(place[x], f"{x:g}") for x in x_ticks] if place and x_ticks else [(x, short(x)) for x in nice_ticks(x_low, x_high)]
    parts += [_text(at(x, y_low)[0], height - _BOTTOM + 16, text, "middle") for x, text in labels]
    parts.append(_text((_LEFT + width - right_margin) / 2, height - 3, x_label, "middle", "axis-name"))
    for item, points in zip(drawn, scaled, strict=True):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        dashes = ' stroke-dasharray="5 4"' if item.is_dashed else ""
        parts.append(f'<polyline points="{path}" style="stroke:var(--{item.color})"{dashes}/>')
        if look.with_dots:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" style="fill:var(--{item.color})">'
                f"<title>{escape(item.label)}: {value:.3g}</title></circle>"
                for (x, y), (_, value) in zip((at(*point) for point in points), points, strict=True)
            ]
    described = "; ".join(f"{item.label} from {item.points[0][1]:.3g} to {item.points[-1][1]:.3g}" for item in drawn)
    return _svg(width, height, f"{title}: {described}", parts)


def histogram(
    title: str,
    bars: Sequence[tuple[float, float, float]],
    *,
    x_label: str,
    color: str = "accent",
    is_log: bool = False,
    kept: Sequence[float] | None = None,
    x_text: Callable[[float], str] = lambda value: f"{value:g}",
    size: tuple[int, int] = WIDE,
) -> Markup:
    """Bars (from, to, height) standing side by side. With `is_log`, heights are positive and drawn by their logarithm.

    `kept` is the part of each bar that is drawn in colour; the rest is grey, and a legend says so.
    """
    width, height = size
    if not bars:
        return empty_chart(title)
    heights = [count for _, _, count in bars]
    x_low, x_high = bars[0][0], bars[-1][1]
    if (missing := MIN_BARS * (bars[0][1] - x_low) - (x_high - x_low)) > 0:  # a lone bar would fill the picture
        x_low, x_high = x_low - missing / 2, x_high + missing / 2
    y_ticks = powers_of_ten(min(heights), max(heights)) if is_log else nice_ticks(0, max(heights))
    y_low, y_high = (math.log10(y_ticks[0]), math.log10(max(heights))) if is_log else (0.0, max(heights))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = ((math.log10(y) if is_log else y) - y_low) / (y_high - y_low)
        return _LEFT + across * (width - _LEFT - _RIGHT), height - _BOTTOM - up * (height - _TOP - _BOTTOM)

    floor = y_ticks[0] if is_log else 0.0
    parts = [_axis_y(at, x_low, x_high, y_ticks, short)]
    parts += [_text(at(x, floor)[0], height - _BOTTOM + 16, x_text(x), "middle") for x in nice_ticks(x_low, x_high)]
    parts.append(_text((_LEFT + width - _RIGHT) / 2, height - 3, x_label, "middle", "axis-name"))
    gap = 1 if len(bars) < 100 else 0
    outer = "grey" if kept else color
    for i, (x0, x1, count) in enumerate(bars):
        said = f"{x_text(x0)} to {x_text(x1)}: {count:,.6g}" + (f", {kept[i]:,.6g} kept" if kept else "")
        parts.append(_bar(at(x0, count), at(x1, floor), gap, outer, said))
        if kept and kept[i]:
            parts.append(_bar(at(x0, kept[i]), at(x1, floor), gap, color, said))
    described = f"{title}: {len(bars)} bars from {x_low:g} to {x_high:g}, the tallest {max(heights):,.3g}"
    legend = [Series("kept", [], color), Series("left out", [], "grey")] if kept else []
    return _figure(title, _svg(width, height, described, parts), legend)


def _bar(corner: tuple[float, float], opposite: tuple[float, float], gap: float, color: str, said: str) -> str:
    (left, top), (right, bottom) = corner, opposite
    box = f'x="{left + gap / 2:.1f}" y="{top:.1f}" width="{max(0.5, right - left - gap):.1f}" height="{max(0.0, bottom - top):.1f}"'
    return f'<rect {box} style="fill:var(--{color})"><title>{escape(said)}</title></rect>'


def horizontal_bars(title: str, bars: Sequence[tuple[str, float, str]], color: str = "accent") -> Markup:
    """Bars (label, value, text at its end) one below the other, as a list that reads well without the bars."""
    if not bars:
        return empty_chart(title)
    return piece("charts.html", "bars", title, bars, color, max(value for _, value, _ in bars) or 1)


def empty_chart(title: str) -> Markup:
    """What stands where there is nothing to draw."""
    return piece("charts.html", "empty", title)


def stylesheet() -> str:
    """The colours and the look of charts, for a page or for a picture by itself."""
    return Path(__file__).with_name("charts.css").read_text()


def as_data_url(svg: str, size: tuple[int, int] = SMALL) -> str:
    """A chart as a `data:` URL, for where only pictures can be shown; it brings its colours and its background along."""
    width, height = size
    alone = str(svg).replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" ', 1)
    background = f'<style>{stylesheet()}</style><rect width="{width}" height="{height}" style="fill:var(--card)"/>'
    return f"data:image/svg+xml;base64,{base64.b64encode(alone.replace('>', '>' + background, 1).encode()).decode()}"


def thin(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `MAX_POINTS` points, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return points
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return [points[round(i * step)] for i in range(MAX_POINTS)]


def padded(low: float, high: float) -> tuple[float, float]:
    """A range a little wider than the data, from zero when the data come near it."""
    span = (high - low) or abs(high) or 1.0
    bottom = 0.0 if 0 <= low < 0.35 * high else low - 0.06 * span
    return bottom, high + 0.06 * span


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers in [low, high]."""
    raw = (high - low) / wanted
    if raw <= 0:
        return [low]
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def powers_of_ten(low: float, high: float) -> list[float]:
    """From the last power of ten below `low` to the last one that `high` reaches, so that every bar has a height."""
    first = math.ceil(math.log10(low)) - 1
    return [10.0**i for i in range(first, max(first, math.floor(math.log10(high))) + 1)]


def short(value: float) -> str:
    """1500 as 1.5k."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def _axis_y(at: At, x_low: float, x_high: float, ticks: Sequence[float], text: Callable[[float], str]) -> str:
    lines = []
    for tick in ticks:
        (left, y), (right, _) = at(x_low, tick), at(x_high, tick)
        lines.append(
            f'<line class="grid" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>{_text(left - 7, y + 4, text(tick), "end")}'
        )
    return "".join(lines)


def _text(x: float, y: float, text: str, anchor: str, name: str = "tick") -> str:
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, description: str, parts: Sequence[str]) -> Markup:
    name = "chart wide" if width > SMALL[0] else "chart"
    head = f'<svg class="{name}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(description)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def _figure(title: str, svg: Markup, series: Sequence[Series]) -> Markup:
    return piece("charts.html", "figure", title, svg, series)
