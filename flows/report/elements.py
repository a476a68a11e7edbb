"""What sections share: sets of prompts in words, cells of tables, the document around sections."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from flows.report.figures import stylesheet
from flows.report.templating import fill

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


class Cell(NamedTuple):
    """A cell of a table that is more than text."""

    text: str
    kind: str
    """`heading` of a row, `url` of a stranger, `code` or `bold`."""
    color: str = ""
    """Of a dot before a heading."""


def about_set(name: str) -> tuple[str, str, str]:
    """Title, explanation and colour of a set of prompts, a person's own included."""
    return SETS.get(name, (name.replace("_", " ").capitalize(), "", "other"))


def document(title: str, header: Markup, sections: Mapping[str, Markup], footer: str) -> str:
    """A page with its style inside, and links to its sections; those with nothing in them are left out."""
    shown = [(name, name.lower().replace(" ", "-"), content) for name, content in sections.items() if content]
    style = Markup(stylesheet() + Path(__file__).with_name("style.css").read_text())
    return fill("document.html", title=title, header=header, sections=shown, footer=footer, style=style) + "\n"


def laid_out(text: str) -> str:
    """JSON with a line for each value; other text as it is."""
    with suppress(ValueError):
        return json.dumps(json.loads(text), indent=1)
    return text
