"""The small pieces of HTML that sections share. Every text that goes in is escaped here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

from flows.report.data import Picture
from flows.report.figures import stylesheet
from flows.report.pictures import Embedded

SETS = {
    "training": (
        "Captions it was trained on",
        "Scenes whose pictures the networks saw while they learned.",
        "training",
    ),
    "unseen_scene": (
        "Unseen scenes",
        "Object and colour were seen together, but never on this background in this layout.",
        "unseen",
    ),
    "held_out_pair": (
        "Held-out pairs",
        "No picture it learned from shows this object in this colour: to get it right is to compose.",
        "held",
    ),
}
"""Prompt set -> title, what it tests, colour."""

ATTRIBUTE_NAMES = {"object": "object", "color": "colour", "background": "background", "layout": "layout"}


def about_set(name: str) -> tuple[str, str, str]:
    """Title, explanation and colour of a set of prompts, a person's own included."""
    return SETS.get(name, (name.replace("_", " ").capitalize(), "", "other"))


def document(title: str, header: str, sections: Mapping[str, str], footer: str) -> str:
    """A page with its style inside, and links to its sections; those with nothing in them are left out."""
    shown = {name: content for name, content in sections.items() if content}
    links = "".join(f'<li><a href="#{_anchor(name)}">{name}</a></li>' for name in shown)
    body = "".join(f'<section id="{_anchor(name)}">{content}</section>' for name, content in shown.items())
    style = stylesheet() + Path(__file__).with_name("style.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>open-dalle: {escape(title)}</title><style>{style}</style></head><body>{header}"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}{footer}</main></body></html>\n'
    )


def heading(title: str, lead: str) -> str:
    """A section's title and first sentences."""
    return f'<h2>{escape(title)}</h2><p class="lead">{escape(lead)}</p>'


def card(content: str, kind: str = "") -> str:
    """A framed box; nothing for nothing."""
    return f'<div class="card {kind}">{content}</div>' if content else ""


def two_columns(*cards: str) -> str:
    """Boxes side by side where there is room."""
    return f'<div class="grid2">{"".join(cards)}</div>' if any(cards) else ""


def stack(*blocks: str) -> str:
    """Blocks one below the other."""
    return f'<div class="stack">{"".join(blocks)}</div>'


def image(picture: Embedded | None, alt: str) -> str:
    """A picture; a placeholder that says so when its file is missing."""
    if picture is None:
        return f'<div class="missing" role="img" aria-label="{escape(alt)} (the file is missing)"></div>'
    pixel = ' class="pixel"' if picture.is_pixel_art else ""
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img{pixel} src="{picture.src}" {size} alt="{escape(alt)}" loading="lazy">'


def dot(color: str) -> str:
    """A coloured dot."""
    return f'<span class="dot" style="background:var(--{color})"></span>'


def verdict(picture: Picture) -> str:
    """What the checker says of a picture, in words; nothing where nobody has judged."""
    if picture.verdict is None:
        return "<span></span>"
    right = [ATTRIBUTE_NAMES[name] for name, is_right in picture.verdict.items() if is_right]
    wrong = [ATTRIBUTE_NAMES[name] for name, is_right in picture.verdict.items() if not is_right]
    if not wrong:
        return '<span class="good">✓ right</span>'
    said = ", ".join(wrong) if len(wrong) < 3 else f"only {right[0]} right" if right else "everything"
    return f'<span class="bad" title="wrong: {escape(", ".join(wrong))}">✗ {escape(said)}</span>'


def mark(picture: Picture) -> str:
    """What the checker says of a picture, in one sign."""
    if picture.is_right is None:
        return ""
    return '<span class="good" title="all right">✓</span>' if picture.is_right else '<span class="bad" title="not all right">✗</span>'


def caption_and_score(picture: Picture) -> str:
    """What was asked for, whether it came out right, and how well CLIP thinks it did."""
    score = f'<span title="CLIP score: cosine similarity of picture and caption">{picture.clip_score:.3f}</span>'
    return f'<p class="caption">{escape(picture.prompt)}</p><div class="meta">{verdict(picture)}{score}</div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A list of names with values; the values are HTML."""
    return '<dl class="facts">' + "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def table(caption: str, head: Sequence[str], body: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose cells are HTML; the first cell of a row that is a heading comes as `<th>…`."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = "".join("<tr>" + "".join(cell if cell.startswith("<th") else f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body)
    return (
        f'<div class="scroll"><table class="{kind}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def folded(summary: str, text: str) -> str:
    """Long text behind a word to click on; JSON is laid out."""
    with suppress(ValueError):
        text = json.dumps(json.loads(text), indent=1)
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def settings(values: Mapping[str, object]) -> str:
    """All settings, folded."""
    return folded("all settings", json.dumps(values))


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")
