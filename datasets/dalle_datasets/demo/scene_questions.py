"""The world of `dalle bench scenes`: GenEval's six questions as scenes drawn from the demo's glyphs.

What is asked (Ghosh et al., 2023): one object, two objects, counting, colours, position, colour attribution. Every scene belongs to one of
three splits, whoever asks and whenever: `seen` ones may be trained on, `unseen` ones show a known composition in a new scene, and
`held_out` ones need a composition (`Scene.composition`) that no seen scene shows.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from dalle_datasets.demo.emoji_scenes import BACKGROUNDS, COLORS, NATURAL, OBJECTS, held_out_pairs, paste_glyph, plural_of

VERSION = 1
"""Edition of the questions; scores of different ones cannot be compared."""
QUESTIONS = ("one_object", "two_objects", "counting", "colours", "position", "colour_attribution")
SPLITS = ("seen", "unseen", "held_out")
NUMBERS = {2: "two", 3: "three", 4: "four"}
RELATIONS = ("left of", "right of", "above", "below")
HELD_OUT_OF, UNSEEN_OF = 8, 5
"""One in so many compositions is held out, and one in so many of the other scenes is unseen."""
PICTURE_SIDE = 64
BIG, SMALL = 6 * PICTURE_SIDE // 8, 4 * PICTURE_SIDE // 8 - 2
"""Sides of glyphs, pixels of a picture of `PICTURE_SIDE`."""
SLOTS = {
    "big": (8, 8), "left": (1, 17), "right": (33, 17), "top": (17, 1), "bottom": (17, 33),
    "top left": (1, 1), "top right": (33, 1), "bottom left": (1, 33), "bottom right": (33, 33),
}  # fmt: skip
"""Left and upper edge of the glyph in a picture of `PICTURE_SIDE`."""
LAYOUTS = (
    ("big",), ("left",), ("right",), ("left", "right"), ("top", "bottom"), ("top left", "top right", "bottom"),
    ("top left", "top right", "bottom left", "bottom right"),
)  # fmt: skip
"""Where glyphs may stand together; a single one on a side is a scene of the demo."""
OF_NUMBER = {1: LAYOUTS[0], 2: LAYOUTS[3], 3: LAYOUTS[5], 4: LAYOUTS[6]}


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """An object in a colour of `COLORS`, or in its own (`NATURAL`)."""

    object: str
    color: str = NATURAL

    def __str__(self) -> str:
        named = self.object if self.color == NATURAL else f"{self.color} {self.object}"
        return f"{'an' if named[0] in 'aeiou' else 'a'} {named}"


@dataclass(frozen=True, slots=True, order=True)
class Scene:
    """What a picture shows, and which question it answers."""

    question: str
    things: tuple[Thing, ...]
    """One for each glyph."""
    background: str
    relation: str = ""
    """Of the first thing to the second; only asked for where the question is `position`."""

    @property
    def composition(self) -> tuple[tuple[str, ...], ...]:
        """What must be known together; where any of these is held out, the scene is."""
        names = [thing.object for thing in self.things]
        match self.question:
            case "one_object":
                return (("background", names[0], self.background),)
            case "counting":
                return (("number", names[0], NUMBERS[len(names)]),)
            case "colours" | "colour_attribution":
                return tuple(("colour", thing.object, thing.color) for thing in self.things)
            case _:
                return (("objects", *sorted(names)),)

    @property
    def split(self) -> str:
        """One of `SPLITS`."""
        if any(_is_held_out(part) for part in self.composition):
            return "held_out"
        return "unseen" if _number_of(self) % UNSEEN_OF == 0 else "seen"

    def caption(self) -> str:
        """What is asked, in the words of the demo."""
        first, second = str(self.things[0]), str(self.things[-1])
        match self.question:
            case "one_object" | "colours":
                said = first
            case "counting":
                said = f"{NUMBERS[len(self.things)]} {plural_of(self.things[0].object)}"
            case "position":
                said = f"{first} {'to the ' if self.relation in RELATIONS[:2] else ''}{self.relation} {second}"
            case _:
                said = f"{first} and {second}"
        return f"{said} on a {self.background} background"

    def draw(self) -> NDArray[np.uint8]:
        """The picture, uint8 [64, 64, 3]."""
        slots: tuple[str, ...] = OF_NUMBER[len(self.things)]
        things = self.things
        if self.relation in ("right of", "below"):
            things = things[::-1]
        if self.relation in ("above", "below"):
            slots = LAYOUTS[4]
        picture = np.empty((PICTURE_SIDE, PICTURE_SIDE, 3), np.float32)
        picture[:] = BACKGROUNDS[self.background]
        for slot, thing in zip(slots, things, strict=True):
            paste_glyph(picture, thing.object, thing.color, BIG if slot == "big" else SMALL, *SLOTS[slot])
        return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def scenes(question: str, split: str) -> Iterator[Scene]:
    """Different scenes of a question and split, always in the same order, without end for as long as there are more."""
    rng, given, misses = random.Random(f"{VERSION} {question} {split}"), set[Scene](), 0
    while misses < 10_000:
        scene = _draw_scene(question, rng)
        if scene in given or scene.split != split:
            misses += 1
            continue
        misses = 0
        given.add(scene)
        yield scene


def _draw_scene(question: str, rng: random.Random) -> Scene:
    first, second = (Thing(name) for name in rng.sample(list(OBJECTS), 2))
    background, colors = rng.choice(list(BACKGROUNDS)), rng.sample(list(COLORS), 2)
    match question:
        case "one_object":
            return Scene(question, (first,), background)
        case "colours":
            return Scene(question, (Thing(first.object, colors[0]),), background)
        case "counting":
            return Scene(question, (first,) * rng.choice(list(NUMBERS)), background)
        case "position":
            return Scene(question, (first, second), background, rng.choice(RELATIONS))
        case "two_objects":
            return Scene(question, (first, second), background, rng.choice(RELATIONS[::2]))
        case "colour_attribution":
            things = (Thing(first.object, colors[0]), Thing(second.object, colors[1]))
            return Scene(question, things, background, rng.choice(RELATIONS[::2]))
    raise ValueError(f"question {question!r} is not one of {', '.join(QUESTIONS)}")


def _number_of(value: object) -> int:
    return int.from_bytes(blake2b(repr(value).encode(), digest_size=6).digest(), "big")


def _is_held_out(part: tuple[str, ...]) -> bool:
    """An object's colour as in the demo, whose networks never saw it either; others by a hash."""
    if part[0] == "colour":
        return part[1:] in held_out_pairs()
    return _number_of(part) % HELD_OUT_OF == 0


def training_scenes(num_scenes: int) -> Iterator[Scene]:
    """Scenes to train on, the questions in turn: only `seen` ones, so those that are asked for come first.

    Raises `ValueError` for more than there are.
    """
    waiting = {question: scenes(question, "seen") for question in QUESTIONS}
    given = 0
    while waiting and given < num_scenes:
        for question in list(waiting):
            scene = next(waiting[question], None)
            if scene is None:
                del waiting[question]
            elif given < num_scenes:
                given += 1
                yield scene
    if given < num_scenes:
        raise ValueError(f"there are {given:,} scenes to train on, not {num_scenes:,}; ask for fewer")
