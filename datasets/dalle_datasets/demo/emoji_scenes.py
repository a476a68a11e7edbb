"""The demo's world: captioned scenes drawn from real OpenMoji glyphs, with four attributes that can be checked.

A scene is an object in a colour, on a background, in a layout. Some (object, colour) pairs are held out
completely, and some scenes of the other pairs are kept back as "unseen", so that a picture made for such a
prompt shows composition, not memory.
"""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GLYPH_DIR = Path(__file__).parent / "openmoji"

# Caption noun -> file name (the code point) of the glyph in OpenMoji 17 (CC BY-SA 4.0, see openmoji/LICENSE.md).
OBJECTS = {
    "apple": "1F34E", "banana": "1F34C", "pear": "1F350", "strawberry": "1F353", "mushroom": "1F344", "burger": "1F354",
    "ice cream": "1F368", "cat": "1F431", "dog": "1F436", "fish": "1F41F", "butterfly": "1F98B", "turtle": "1F422",
    "elephant": "1F418", "rabbit": "1F430", "duck": "1F986", "owl": "1F989", "car": "1F697", "bicycle": "1F6B2",
    "airplane": "2708", "rocket": "1F680", "sailboat": "26F5", "train": "1F682", "house": "1F3E0", "castle": "1F3F0",
    "tree": "1F333", "sunflower": "1F33B", "star": "2B50", "umbrella": "2602", "guitar": "1F3B8", "clock": "23F0",
    "heart": "2764", "teapot": "1FAD6",
}  # fmt: skip
NATURAL = "natural"
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 40), "orange": (245, 140, 30), "yellow": (250, 215, 40),
    "green": (60, 170, 60), "blue": (50, 100, 230), "purple": (140, 60, 190),
}  # fmt: skip
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255), "yellow": (255, 240, 150), "pink": (255, 200, 215), "blue": (160, 205, 255),
}  # fmt: skip
LAYOUTS = ("big", "left", "right", "two")
PROMPT_SETS = ("training", "unseen_scene", "held_out_pair")

_IRREGULAR_PLURALS = {"strawberry": "strawberries", "butterfly": "butterflies", "fish": "fish"}


@dataclass(frozen=True, slots=True, order=True)
class Scene:
    """What one picture shows."""

    object: str
    color: str
    """A name in `COLORS`, or `NATURAL` for the glyph's own colours."""
    background: str
    layout: str


def all_scenes() -> list[Scene]:
    """Every scene of the world, in a fixed order."""
    return [Scene(o, c, b, la) for o in OBJECTS for c in (NATURAL, *COLORS) for b in BACKGROUNDS for la in LAYOUTS]


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """One (object, colour) pair per object that no published picture shows."""
    colors = list(COLORS)
    return frozenset((name, colors[i % len(colors)]) for i, name in enumerate(OBJECTS))


def split_scenes(num_published: int) -> dict[str, list[Scene]]:
    """Scenes for each of `PROMPT_SETS`: those published, unseen scenes of seen pairs, and held-out pairs, each shuffled once.

    Raises `ValueError` when too few scenes would be left unseen.
    """
    held = held_out_pairs()
    scenes = all_scenes()
    random.Random(5).shuffle(scenes)
    seen = [s for s in scenes if (s.object, s.color) not in held]
    if num_published > len(seen) - 64:
        raise ValueError(f"source.num_scenes={num_published} leaves fewer than 64 unseen scenes; use at most {len(seen) - 64}")
    return {
        "training": seen[:num_published],
        "unseen_scene": seen[num_published:],
        "held_out_pair": [s for s in scenes if (s.object, s.color) in held],
    }


def draw_scene(scene: Scene, size: int) -> NDArray[np.uint8]:
    """The picture of a scene, uint8 [size, size, 3]. `size` is a multiple of 32."""
    unit = size // 8
    picture = np.empty((size, size, 3), np.float32)
    picture[:] = BACKGROUNDS[scene.background]
    for is_big, x, y in _slots(scene.layout, unit):
        paste_glyph(picture, scene.object, scene.color, 6 * unit if is_big else 4 * unit - max(1, unit // 4), x, y)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


def paste_glyph(picture: NDArray[np.float32], name: str, color: str, side: int, x: int, y: int) -> None:
    """Draw a glyph of `side` pixels into `picture`, float32 [H, W, 3] in [0, 255], with its upper left corner at (x, y)."""
    glyph = _sized_glyph(name, color, side)
    area = picture[y : y + side, x : x + side]
    area[:] = area * (1 - glyph[..., 3:] / 255) + glyph[..., :3]


def plural_of(name: str) -> str:
    """The plural of an object's name."""
    return _IRREGULAR_PLURALS.get(name, name + ("es" if name[-1] in "sxh" else "s"))


def caption_scene(scene: Scene, rng: random.Random) -> str:
    """An English caption of a scene in one of several phrasings."""
    thing = scene.object if scene.color == NATURAL else f"{scene.color} {scene.object}"
    one = f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"
    plural = plural_of(scene.object)
    two = plural if scene.color == NATURAL else f"{scene.color} {plural}"
    place = rng.choice([f"on a {scene.background} background", f"on {scene.background}", f"with a {scene.background} background"])
    phrasings = {
        "big": [f"{one} {place}", f"a picture of {one} {place}", f"a big {thing} {place}"],
        "left": [f"{one} on the left {place}", f"a small {thing} on the left side {place}"],
        "right": [f"{one} on the right {place}", f"a small {thing} on the right side {place}"],
        "two": [f"two {two} {place}", f"a picture of two {two} {place}"],
    }
    return rng.choice(phrasings[scene.layout])


def prompts(prompt_set: str, num_prompts: int, num_published: int) -> list[tuple[str, Scene]]:
    """The first prompts of a set with the scene each asks for. Prompts do not depend on how the site was built."""
    scenes = split_scenes(num_published)[prompt_set][:num_prompts]
    return [(caption_scene(scene, random.Random(1_000 + i)), scene) for i, scene in enumerate(scenes)]


def _slots(layout: str, unit: int) -> list[tuple[bool, int, int]]:
    """(is the glyph big, x, y) of each glyph of a layout."""
    margin = max(1, unit // 4) // 2
    left, right, middle = margin, 4 * unit + margin, 2 * unit + margin
    return {
        "big": [(True, unit, unit)],
        "left": [(False, left, middle)],
        "right": [(False, right, middle)],
        "two": [(False, left, middle), (False, right, middle)],
    }[layout]


@cache
def _glyph(name: str) -> NDArray[np.uint8]:
    """RGBA glyph, cropped to what is drawn and padded to a square."""
    with Image.open(GLYPH_DIR / f"{OBJECTS[name]}.png") as file:
        image = file.convert("RGBA")
    box = image.getbbox()
    assert box is not None, f"glyph of {name} is empty"
    image = image.crop(box)
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square)


@cache
def _sized_glyph(name: str, color: str, side: int) -> NDArray[np.float32]:
    """Glyph with premultiplied alpha, float32 [side, side, 4] in [0, 255]."""
    rgba = _glyph(name)
    if color != NATURAL:
        rgba = _tint(rgba, COLORS[color])
    premultiplied = rgba.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    planes = [np.asarray(Image.fromarray(premultiplied[..., i]).resize((side, side), Image.Resampling.LANCZOS)) for i in range(4)]
    sized: NDArray[np.float32] = np.clip(np.stack(planes, -1), 0, 255)
    sized[..., :3] = np.minimum(sized[..., :3], sized[..., 3:])
    return sized


def _tint(rgba: NDArray[np.uint8], rgb: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Recolour a glyph and keep its light and shade: the median tone becomes `rgb`, darker goes to black, lighter to white."""
    alpha = rgba[..., 3] / 255
    luminance = (rgba[..., :3].astype(np.float32) / 255) @ np.array([0.3, 0.59, 0.11], np.float32)
    inside = (alpha > 0.5) & (luminance > 0.2)  # without the black outlines
    median = max(float(np.median(luminance[inside])) if inside.any() else 0.6, 0.35)
    tone, target = luminance[..., None], np.array(rgb, np.float32) / 255
    darker = target * np.clip(tone / median, 0, 1)
    lighter = target + (1 - target) * 0.6 * np.clip((tone - median) / (1.001 - median), 0, 1)
    tinted = np.round(np.where(tone <= median, darker, lighter) * 255)
    return np.concatenate([tinted, rgba[..., 3:]], -1).astype(np.uint8)
