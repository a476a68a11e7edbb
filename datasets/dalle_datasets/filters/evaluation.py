"""Decontamination: pictures that look like one of an evaluation set, and pairs with one of its captions, are dropped.

(The paper found 21% of MS-COCO's validation images in its training set by near-duplicate search.)
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dalle_datasets.filters.hashes import Fingerprint, Fingerprints, fingerprint_of
from dalle_datasets.images import IMAGE_SUFFIXES, ImageError, decode_image
from dalle_datasets.sources.tables import caption_of, table_records
from dalle_datasets.store.ids import content_id
from dalle_datasets.store.parquet import open_parquet
from dalle_datasets.texts.captions import captions_in
from dalle_datasets.texts.decoding import decode_text


class EvaluationSet(NamedTuple):
    """Pictures to stay away from."""

    names: list[str]
    fingerprints: Fingerprints


def read_evaluation_set(places: tuple[str, ...], max_pixels: int) -> EvaluationSet:
    """Folders of images and Parquet files with a column `image`.

    Raises `ValueError` for a place that does not exist or holds no picture.
    """
    names: list[str] = []
    fingerprints: list[Fingerprint] = []
    for place in places:
        before = len(fingerprints)
        for name, data in _read(Path(place).expanduser()):
            try:
                fingerprints.append(fingerprint_of(decode_image(data, max_pixels)))
                names.append(name)
            except ImageError:
                continue
        if len(fingerprints) == before:
            raise ValueError(f"filter.evaluation_images has {place!r}, which holds no picture; give a folder of images or a Parquet file")
    return EvaluationSet(names, Fingerprints.of(fingerprints))


def read_evaluation_captions(places: tuple[str, ...]) -> frozenset[str]:
    """The captions in some files, folded. Raises `ValueError` for a place that does not exist or holds no caption."""
    found: set[str] = set()
    for place in places:
        try:
            folded = {fold_caption(caption) for caption in read_captions(Path(place).expanduser())} - {""}
        except OSError as error:
            raise ValueError(f"filter.evaluation_captions has {place!r}, which cannot be read: {error}") from error
        if not folded:
            raise ValueError(
                f"filter.evaluation_captions has {place!r}, which holds no caption; give a captions_*.json, a text_c10 folder, a text or "
                "a table"
            )
        found |= folded
    return frozenset(found)


def read_captions(place: Path) -> Iterator[str]:
    """Every caption of a folder of texts, of a text with a line for each, or of a table (COCO's annotations are one).

    Raises `ValueError` for a file that is none of these, `OSError` for one that is not there.
    """
    if place.is_dir() or place.suffix.lower() == ".txt":
        for path in sorted(place.rglob("*.txt")) if place.is_dir() else [place]:
            yield from captions_in(decode_text(path.read_bytes()).text.splitlines())
        return
    for record in table_records(place, str(place)):
        if isinstance(record.value, dict):
            yield from captions_in(caption_of(record.value))


def fold_caption(caption: str) -> str:
    """A caption whatever its case, punctuation and spaces."""
    return " ".join(_WORDS.findall(caption.casefold()))


_WORDS = re.compile(r"\w+")


def captions_id(places: tuple[str, ...]) -> str:
    """An id of the files of captions, as `evaluation_id` makes one of pictures; empty where there are none."""
    files = []
    for place in places:
        path = Path(place).expanduser()
        for text in sorted(path.rglob("*.txt")) if path.is_dir() else [path] if path.is_file() else []:
            status = text.stat()
            files.append(f"{place} {text.name} {status.st_size} {status.st_mtime_ns}")
    return content_id("evaluation captions", *files) if places else ""


def evaluation_id(places: tuple[str, ...]) -> str:
    """An id of the evaluation files: another one, a changed size or time, and the pairs are judged again."""
    files = []
    for place in places:
        for name, path in _list(Path(place).expanduser()):
            status = path.stat()
            files.append(f"{place} {name} {status.st_size} {status.st_mtime_ns}")
    return content_id("evaluation", *files)


def _list(place: Path) -> list[tuple[str, Path]]:
    """(name, path) of every file."""
    if place.is_dir():
        return [(path.relative_to(place).as_posix(), path) for path in sorted(place.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    return [(place.name, place)] if place.is_file() else []


def _read(place: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of every picture."""
    for name, path in _list(place):
        if place.is_dir():
            yield name, path.read_bytes()
            continue
        row = 0
        with open_parquet(path) as file:
            for batch in file.iter_batches(256, columns=["image"]):
                for data in batch.column(0).to_pylist():
                    yield f"{name} row {row}", data or b""
                    row += 1
