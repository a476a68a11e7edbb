"""Captions apart from their pictures, as evaluation sets publish them: COCO's `captions_*.json` and CUB's `text_c10` folders.

COCO: one object with `images` (id, file_name, coco_url, license) and `annotations` (image_id, caption). CUB: a folder `text_c10` with a
folder for each class and in it a text for each picture, a caption on every line; the pictures lie in folders of the same names.
(Conceptual Captions' TSV files, caption and address, are tables: `tables.py`.)
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from dalle_datasets.texts.captions import captions_in

MAX_BYTES = 1 << 30
"""Of an annotation file; COCO's largest has 66 MB."""
COCO_NAME = re.compile(r"captions_\w+\.json", re.IGNORECASE)
CUB_FOLDER = "text_c10"
_HEAD_BYTES = 65_536
_LOOKS_LIKE_COCO = re.compile(rb'\s*\{.*"(?:images|annotations)"\s*:\s*\[', re.DOTALL)


def coco_rows(path: Path) -> list[dict[str, Any]] | None:
    """A row for each image of a COCO file: file_name, coco_url, captions, license; None for any other file.

    Raises `ValueError` for one that is larger than `MAX_BYTES`, and what is wrong with one that is damaged.
    """
    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(_HEAD_BYTES)
        if not _LOOKS_LIKE_COCO.match(head):
            return None
        data = head + stream.read(MAX_BYTES - len(head) + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path.name} has more than {MAX_BYTES:,} bytes, too many for a file of captions; split it")
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError(f"{path.name}: its JSON is nested too deeply") from None
    except ValueError as error:
        if "Extra data" in str(error):  # lines of JSON
            return None
        raise ValueError(f"{path.name}: not valid JSON ({error}); get it again") from None
    images, annotations = (_dicts(found.get(name)) for name in ("images", "annotations"))
    licences = {_key(row.get("id")): row.get("url") or row.get("name") for row in _dicts(found.get("licenses"))}
    captions: dict[str, list[str]] = {}
    for row in annotations:
        if isinstance(row.get("caption"), str):
            captions.setdefault(_key(row.get("image_id")), []).append(row["caption"])
    return [
        {
            "file_name": row.get("file_name"),
            "coco_url": row.get("coco_url") or row.get("flickr_url"),
            "captions": captions.get(_key(row.get("id")), []),
            "license": licences.get(_key(row.get("license"))),
        }
        for row in images
    ]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _key(value: Any) -> str:
    """An id as text, whatever stands there."""
    return json.dumps(value, default=str)


class Annotations:
    """The captions that the annotation files somewhere in a folder have for its pictures."""

    def __init__(self, root: Path) -> None:
        """Reads COCO files, and notes the texts of CUB folders. A file that cannot be read is one of `problems`."""
        self.problems: list[str] = []
        self._of_name: dict[str, tuple[list[str], str | None]] = {}
        self._of_place: dict[str, Path] = {}
        self.files: set[Path] = set()
        for folder, names, files in os.walk(root):
            names.sort()
            here = Path(folder)
            for name in sorted(files):
                if COCO_NAME.fullmatch(name):
                    self._read_coco(here / name)
                elif name.endswith(".txt") and here.parent.name == CUB_FOLDER:
                    self.files.add(here / name)
                    self._of_place[f"{here.name}/{Path(name).stem}"] = here / name

    def _read_coco(self, path: Path) -> None:
        try:
            rows = coco_rows(path)
        except (OSError, ValueError) as error:
            self.problems.append(f"{type(error).__name__}: {error}")
            rows = []
        if rows is None:
            return
        self.files.add(path)
        for row in rows:
            if isinstance(row["file_name"], str):
                name = Path(row["file_name"]).name
                texts, licence = self._of_name.get(name, ([], None))
                said = row["license"] if isinstance(row["license"], str) else licence
                self._of_name[name] = ([*texts, *captions_in(row["captions"])], said)

    def find(self, picture: Path) -> tuple[list[str], str | None, Path | None]:
        """(captions, licence, the file of text that holds them instead), all empty for a picture that none of the files names."""
        texts, licence = self._of_name.get(picture.name, ([], None))
        return texts, licence, None if texts else self._of_place.get(f"{picture.parent.name}/{picture.stem}")
