"""The exact judge of `dalle bench scenes`: which glyphs in which colours stand where in a picture, and whether that answers a question.

Every background, layout and glyph is tried; the scene with the least squared error is named. A slot whose glyph explains too little of
what distinguishes it from the background holds nothing that can be named, so smears do not pass for the object that they are nearest to.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dalle_datasets.demo.emoji_checker import SIDE, shrink
from dalle_datasets.demo.emoji_scenes import BACKGROUNDS, COLORS, NATURAL, OBJECTS, paste_glyph
from dalle_datasets.demo.scene_questions import BIG, LAYOUTS, PICTURE_SIDE, SLOTS, SMALL, Scene, Thing

EXPLAINED = 0.7
"""Share of a slot's squared difference from the background that a glyph must account for. Squares of one colour pass for some glyph in
18% of cases, and 14% of true pictures fail when they are blurred by 1.5 of their 64 pixels."""
_THINGS = [Thing(name, color) for name in OBJECTS for color in (NATURAL, *COLORS)]
_AT_ONCE = 512
_BLOCK = PICTURE_SIDE // SIDE

Patch = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a picture shows."""

    background: str
    layout: tuple[str, ...]
    things: tuple[Thing | None, ...]
    """In each slot of the layout; None where nothing can be named."""


class SceneJudge:
    """Holds a template of every glyph in every colour on every background (9 MB); build one and use it for many pictures."""

    def __init__(self) -> None:
        self._colors = np.array(list(BACKGROUNDS.values()), np.float32) / 255
        self._templates = {size: _templates(size) for size in (BIG, SMALL)}

    def look(self, pictures: NDArray[np.uint8]) -> list[Seen]:
        """What each of the pictures shows, uint8 [N, S, S, 3] with S a multiple of 32. Raises `ValueError` for another shape or type."""
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.shape[1] != pictures.shape[2]:
            raise ValueError(f"pictures are {pictures.dtype} {list(pictures.shape)}; the judge reads uint8 [N, S, S, 3]")
        if pictures.shape[1] % SIDE:
            raise ValueError(f"pictures have a side of {pictures.shape[1]} pixels; the judge reads multiples of {SIDE}")
        found: list[Seen] = []
        for start in range(0, len(pictures), _AT_ONCE):
            found += self._look(np.stack([shrink(picture) for picture in pictures[start : start + _AT_ONCE]]))
        return found

    def _look(self, pictures: NDArray[np.float32]) -> list[Seen]:
        """`pictures` float32 [N, 32, 32, 3] in [0, 1]."""
        empty = np.stack([np.square(pictures - color).sum(3) for color in self._colors])  # [B, N, 32, 32]
        whole = empty.sum((2, 3))
        bare, error, best = {}, {}, {}
        for slot in SLOTS:
            rows, columns = _patch(slot)
            bare[slot] = empty[:, :, rows, columns].sum((2, 3))
            flat = pictures[:, rows, columns].reshape(len(pictures), -1)
            templates = self._templates[BIG if slot == "big" else SMALL]  # [B, T, D]
            distances = np.square(templates).sum(2)[:, None] - 2 * np.einsum("nd,btd->bnt", flat, templates, optimize=True)
            best[slot] = distances.argmin(2)
            error[slot] = distances.min(2) + np.square(flat).sum(1)
        totals = np.stack([whole + sum(error[slot] - bare[slot] for slot in layout) for layout in LAYOUTS])  # [L, B, N]
        found = []
        for n in range(len(pictures)):
            chosen, b = np.unravel_index(totals[:, :, n].argmin(), totals.shape[:2])
            layout = LAYOUTS[chosen]
            things = tuple(
                _THINGS[best[slot][b, n]] if error[slot][b, n] <= (1 - EXPLAINED) * bare[slot][b, n] else None for slot in layout
            )
            found.append(Seen(list(BACKGROUNDS)[b], layout, things))
        return found


def is_right(seen: Seen, asked: Scene) -> bool:
    """Whether a picture answers what was asked: that alone, no background, and no place where none was asked for."""
    things = [thing for thing in seen.things if thing is not None]
    if len(things) < len(seen.things) or len(things) != len(asked.things):
        return False
    if asked.question in ("colours", "colour_attribution"):
        return Counter(things) == Counter(asked.things)
    if Counter(thing.object for thing in things) != Counter(thing.object for thing in asked.things):
        return False
    if asked.question != "position":
        return True
    is_beside, is_first = asked.relation in ("left of", "right of"), things[0].object == asked.things[0].object
    return seen.layout == (("left", "right") if is_beside else ("top", "bottom")) and is_first == (asked.relation in ("left of", "above"))


def _patch(slot: str) -> Patch:
    """Rows and columns of a slot in a picture of 32 pixels."""
    (x, y), side = SLOTS[slot], BIG if slot == "big" else SMALL
    return slice(y // _BLOCK, -(-(y + side) // _BLOCK)), slice(x // _BLOCK, -(-(x + side) // _BLOCK))


def _templates(side: int) -> NDArray[np.float32]:
    """float32 [backgrounds, things, D]: a slot with each glyph; small slots all begin at an odd pixel, so one stands for them."""
    slot = "big" if side == BIG else "top left"
    rows, columns = _patch(slot)
    made = []
    for color in BACKGROUNDS.values():
        for thing in _THINGS:
            picture = np.empty((PICTURE_SIDE, PICTURE_SIDE, 3), np.float32)
            picture[:] = color
            paste_glyph(picture, thing.object, thing.color, side, *SLOTS[slot])
            made.append(shrink(np.clip(np.round(picture), 0, 255).astype(np.uint8))[rows, columns].ravel())
    return np.stack(made).reshape(len(BACKGROUNDS), len(_THINGS), -1)
