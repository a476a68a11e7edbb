"""Decontamination: pictures that look like one of an evaluation set are dropped.

(The paper found 21% of MS-COCO's validation images in its training set by near-duplicate search.)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dalle_datasets.filters.hashes import Fingerprint, Fingerprints, fingerprint_of
from dalle_datasets.images import IMAGE_SUFFIXES, ImageError, decode_image
from dalle_datasets.store.ids import content_id
from dalle_datasets.store.parquet import open_parquet


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
