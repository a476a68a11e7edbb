"""A folder of captioned pictures from emoji glyphs on colours: `python benchmarks/glyph_folder.py GLYPHS.csv PNG_FOLDER OUT`.

For those who want more than the demo's 32 objects and have no collection of their own. GLYPHS.csv and the transparent PNGs are those of
an OpenMoji release (columns `hexcode` and `annotation`, files `HEXCODE.png`; CC BY-SA 4.0, so name OpenMoji beside what you
publish). OUT becomes a source for `dalle run collect_pairs --set source.kind=image_folders`; the README of this folder has the commands.
"""

import argparse
import csv
import random
from pathlib import Path

from PIL import Image

BACKGROUNDS = {
    "white": (255, 255, 255), "yellow": (255, 240, 150), "pink": (255, 200, 215), "light blue": (160, 205, 255),
    "light green": (190, 235, 180), "orange": (255, 190, 110), "purple": (205, 180, 240), "grey": (200, 200, 200),
}  # fmt: skip
SIDE = 128


def draw(glyph: Image.Image, background: tuple[int, int, int], rng: random.Random) -> Image.Image:
    """The glyph somewhere on a square of one colour, between 70% and 95% of its side."""
    side = round(SIDE * rng.uniform(0.7, 0.95))
    resized = glyph.resize((side, side), Image.Resampling.LANCZOS)
    picture = Image.new("RGBA", (SIDE, SIDE), (*background, 255))
    picture.alpha_composite(resized, (rng.randint(0, SIDE - side), rng.randint(0, SIDE - side)))
    return picture.convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("glyphs", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng, rows = random.Random(0), []
    with arguments.annotations.open(newline="") as file:
        names = {row["hexcode"]: row["annotation"] for row in csv.DictReader(file)}
    for code, name in sorted(names.items()):
        path = arguments.glyphs / f"{code}.png"
        if not path.exists():
            continue
        with Image.open(path) as image:
            glyph = image.convert("RGBA")
        for color, rgb in BACKGROUNDS.items():
            file_name = f"{code}-{color.replace(' ', '-')}.png"
            draw(glyph, rgb, rng).save(arguments.out / file_name)
            rows.append({"file_name": file_name, "caption": f"{name} on a {color} background".replace("a orange", "an orange")})
    with (arguments.out / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file_name", "caption"])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} pictures in {arguments.out}")


if __name__ == "__main__":
    main()
