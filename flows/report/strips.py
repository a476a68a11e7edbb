"""What a transformer drew for the same prompts while it trained, as a strip for each prompt."""

import base64
import io
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from flows.report.pictures import Embedded, embed

MAX_CELL = 64
"""Side of a picture in Prefect, whose database keeps the page."""


@dataclass(frozen=True, slots=True)
class Strip:
    """The pictures of a prompt."""

    prompt: str
    moments: list[tuple[int, Image.Image]]
    """(updates made, picture), by updates."""

    def embedded(self) -> list[tuple[int, Embedded]]:
        """As parts of a page."""
        return [(step, embed(picture)) for step, picture in self.moments]


def read_strips(folder: Path) -> list[Strip]:
    """The strips of a training, none where nothing was drawn; a sheet that cannot be read is left out."""
    try:
        prompts = list(json.loads((folder / "prompts.json").read_text()))
    except (OSError, ValueError):
        return []
    strips = [Strip(str(prompt), []) for prompt in prompts]
    for path in sorted(folder.glob("step-*.png")):
        try:
            with Image.open(path) as file:
                sheet = file.convert("RGB")
        except OSError:
            continue
        side = sheet.height
        for i, strip in enumerate(strips[: sheet.width // side]):
            strip.moments.append((int(path.stem.removeprefix("step-")), sheet.crop((i * side, 0, (i + 1) * side, side))))
    return [strip for strip in strips if strip.moments]


def strips_page(folder: Path) -> str:
    """Markdown with one picture: a row for each prompt, a column for each look."""
    strips = read_strips(folder)
    if not strips:
        return ""
    side = min(MAX_CELL, strips[0].moments[0][1].width)
    sheet = Image.new("RGB", (side * max(len(strip.moments) for strip in strips), side * len(strips)), "white")
    for y, strip in enumerate(strips):
        for x, (_, picture) in enumerate(strip.moments):
            sheet.paste(picture.resize((side, side), Image.Resampling.BOX), (x * side, y * side))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    data = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    steps = ", ".join(f"{step:,}" for step, _ in strips[0].moments)
    prompts = "\n".join(f"{i}. {escape(strip.prompt).translate(_MARKDOWN)}" for i, strip in enumerate(strips, 1))
    return (
        f"# What it draws so far\n\n![a row for each prompt]({data})\n\nAfter {steps} updates, one picture each, not chosen.\n\n{prompts}\n"
    )


_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in r"\`*_[]()#!|~"})
