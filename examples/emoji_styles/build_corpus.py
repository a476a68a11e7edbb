"""Render emoji of seven openly licensed packs to a table of captioned pictures: python examples/emoji_styles/build_corpus.py emoji-corpus

Needs npm, and `pip install resvg_py==0.5.0 emoji==2.16.0` beside open-dalle. Packages are fetched once, by npm from the registry that
it is set up for, and must have the integrity hashes below. A second run renders only packs that are missing. Written are

corpus.parquet    image (PNG, 128 x 128, on white), caption, page_url (pack and concept), licence, author, concept, style
unseen.parquet    the same for concepts that nothing is trained on, one in 32, chosen by a hash of the name
packs.json        name, version, integrity, licence, author and style of every pack, and how many pictures of it there are

Left out, by rule: names that are not those of a Unicode emoji ("lockwithinkpen", "guard 2"), flags, skin tones but one of each gesture
(the same in all packs), icons that a pack hides. OpenMoji is share-alike (CC BY-SA 4.0) and left out, too, unless `--share-alike` asks
for it.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

SIDE = 128
UNSEEN_SHARE = 1 / 32
PACKS = {
    "noto": (
        "1.2.9", "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR"
        "6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==", "noto",
    ),
    "twemoji": (
        "1.2.5", "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5za"
        "Mm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==", "twemoji",
    ),
    "fluent-emoji": (
        "1.2.7", "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P"
        "6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==", "3d",
    ),
    "fluent-emoji-flat": (
        "1.2.6", "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUm"
        "ZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==", "flat",
    ),
    "emojione": (
        "1.2.3", "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY7"
        "0YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==", "emojione",
    ),
    "fxemoji": (
        "1.2.2", "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8"
        "tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==", "firefox",
    ),
    "streamline-emojis": (
        "1.2.4", "sha512-iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n"
        "7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==", "outline",
    ),
}  # fmt: skip
"""npm package @iconify-json/NAME -> version, integrity, what its style is called in captions."""
SHARE_ALIKE = {
    "openmoji": (
        "1.2.29", "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5G"
        "eb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==", "openmoji",
    ),
}  # fmt: skip
PHRASINGS = ("{a}{concept}, {style} style", "{concept}, {style} style", "{concept} in {style} style", "{style} style {concept}")
TONES = ("light", "medium light", "medium", "medium dark", "dark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write; packages are kept in its folder `packages`")
    parser.add_argument("--share-alike", action="store_true", help="with OpenMoji's pictures, whose licence then holds for the weights")
    arguments = parser.parse_args()
    folder = arguments.folder
    wanted = PACKS | (SHARE_ALIKE if arguments.share_alike else {})
    packs = {name: read_pack(fetch(name, *about[:2], folder / "packages")) for name, about in wanted.items()}
    names = emoji_names(packs.values())
    account, tables = {}, []
    for name, pack in packs.items():
        path = folder / "packs" / f"{name}.parquet"
        if not path.exists():
            write(path, list(pictures(name, wanted[name][2], pack, names)))
        tables.append(pq.read_table(path))
        licence, author = pack["info"]["license"]["spdx"], pack["info"]["author"]["name"]
        account[name] = {"package": f"@iconify-json/{name}", "version": wanted[name][0], "integrity": wanted[name][1], "licence": licence}
        account[name] |= {"author": author, "style": wanted[name][2], "num_pictures": len(tables[-1])}
        print(f"{name}: {len(tables[-1]):,} pictures, {licence}, {author}", flush=True)
    rows = pa.concat_tables(tables)
    is_unseen = pa.array([share(concept) < UNSEEN_SHARE for concept in rows["concept"].to_pylist()])
    for file, chosen in (("unseen", is_unseen), ("corpus", pc.invert(is_unseen))):
        pq.write_table(rows.filter(chosen), folder / f"{file}.partial")
        (folder / f"{file}.partial").replace(folder / f"{file}.parquet")
        print(f"{file}.parquet: {pc.sum(chosen).as_py():,} pictures")
    (folder / "packs.json").write_text(json.dumps(account, indent=1) + "\n")


def fetch(name: str, version: str, integrity: str, folder: Path) -> Path:
    """The package's archive, from npm unless it is there. Raises `SystemExit` when it is not the one that was used."""
    path = folder / f"iconify-json-{name}-{version}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"@iconify-json/{name}@{version}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found = "sha512-" + b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != integrity:
        raise SystemExit(f"{path} has integrity {found}, expected {integrity}; delete it and run again")
    return path


def read_pack(path: Path) -> dict[str, Any]:
    """Icons, information, characters and categories of a pack, by file name."""
    with tarfile.open(path) as archive:
        found: dict[str, Any] = {"chars": {}, "metadata": {}}
        for name in ("icons", "info", "chars", "metadata"):
            if f"package/{name}.json" in archive.getnames():
                file = archive.extractfile(f"package/{name}.json")
                assert file is not None
                found[name] = json.load(file)
    return found


def emoji_names(packs: Any) -> dict[str, str]:
    """What Unicode's emoji are called, by any name that a pack gives them: letters and digits alone, because packs differ in the rest."""
    names: dict[str, str] = {}
    for pack in packs:
        for code, name in pack["chars"].items():
            if re.fullmatch(r"[0-9a-f]+(-[0-9a-f]+)*", code) and (unicode := unicode_name(code)):
                names.setdefault(letters(name), unicode)
    return names


def unicode_name(code: str) -> str | None:
    """`1f43c` as "panda"."""
    import emoji

    text = "".join(chr(int(point, 16)) for point in code.split("-"))
    for candidate in (text, text + "\ufe0f"):
        name = emoji.demojize(candidate, language="en")
        if re.fullmatch(r":[^:]+:", name):
            return re.sub(r"[_-]", " ", name.strip(":")).lower()
    return None


def letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def share(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def pictures(pack_name: str, style: str, pack: dict[str, Any], names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The rows of a pack."""
    flags = {name for group, members in pack["metadata"].get("categories", {}).items() if group == "Flags" for name in members}
    for name, icon in pack["icons"]["icons"].items():
        concept = names.get(letters(name))
        if concept is None or icon.get("hidden") or name in flags or concept.startswith("flag") or not is_chosen_tone(concept):
            continue
        try:
            image = render(pack["icons"], icon)
        except (ValueError, OSError) as error:
            print(f"{pack_name}/{name} cannot be drawn: {error}")
            continue
        page = f"https://www.npmjs.com/package/@iconify-json/{pack_name}?concept={quote(concept.replace(' ', '-'))}"
        caption = caption_of(concept, style)
        about = {"licence": pack["info"]["license"]["spdx"], "author": pack["info"]["author"]["name"]}
        yield {"image": image, "caption": caption, "page_url": page, **about, "concept": concept, "style": style}


def is_chosen_tone(concept: str) -> bool:
    """Whether a concept has no skin tone, or the one that its gesture is kept in."""
    if "skin tone" not in concept:
        return True
    found = re.fullmatch(rf"(.+?) ({'|'.join(TONES)}) skin tone", concept)
    return found is not None and found[2] == TONES[int(share(found[1]) * len(TONES))]


def caption_of(concept: str, style: str) -> str:
    """A caption with the style's name, in one of several phrasings."""
    article = "" if concept.endswith("s") else "an " if concept[0] in "aeiou" else "a "
    phrasing = PHRASINGS[int(share(f"{concept} {style}") * len(PHRASINGS))]
    return phrasing.format(a=article, concept=concept, style=style)


def render(pack: dict[str, Any], icon: dict[str, Any]) -> bytes:
    """A PNG of 128 x 128 pixels, centred on white."""
    import resvg_py

    width, height = (icon.get(name, pack.get(name, 16)) for name in ("width", "height"))
    wide, high = (SIDE, max(1, round(SIDE * height / width))) if width >= height else (max(1, round(SIDE * width / height)), SIDE)
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" {{}}>{icon["body"]}</svg>'
    sized = svg.replace("{}", f'width="{wide}" height="{high}"', 1)
    drawn = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=sized, width=wide, height=high)))).convert("RGBA")
    canvas = Image.new("RGBA", (SIDE, SIDE), "white")
    canvas.alpha_composite(drawn, ((SIDE - drawn.width) // 2, (SIDE - drawn.height) // 2))
    file = io.BytesIO()
    canvas.convert("RGB").save(file, "PNG")
    return file.getvalue()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


if __name__ == "__main__":
    main()
