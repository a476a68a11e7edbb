"""Measurements for the filters, made once per candidate: thresholds can change without decoding again."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dalle_datasets.config import FilterConfig
from dalle_datasets.filters.captions import boilerplate_share, count_letters, count_words, has_markup, has_personal, is_file_name
from dalle_datasets.filters.hashes import fingerprint_of
from dalle_datasets.filters.languages import detect_language
from dalle_datasets.images import ImageError, decode_and_check, pixel_sha256
from dalle_datasets.store.identity import fingerprint
from dalle_datasets.store.parquet import SchemaError, check_parquet, open_parquet, read_parquet, write_parquet
from dalle_datasets.store.schemas import IMAGES, MEASURES
from dalle_datasets.web.failures import OK

VERSION = 6
BATCH_ROWS = 64


def measure_part(images: Path, target: Path, settings: FilterConfig, max_pixels: int) -> int:
    """Measure the downloaded rows of one part of `schemas.IMAGES` into `target`; returns the number of its rows.

    Nothing is done if `target` was made from the same rows with the same settings; else its measures of pictures that are still here
    are kept.
    """
    check_parquet(images, IMAGES)
    rows: pa.Table = pq.read_table(images, columns=["candidate_id", "sha256"], partitioning=None)
    settings_id = fingerprint("measure", VERSION, *_language_settings(settings), max_pixels)
    made_from = fingerprint(settings_id, rows["candidate_id"].to_pylist(), rows["sha256"].to_pylist())
    found = _metadata(target)
    if found.get(b"made_from") == made_from.encode():
        return int(rows.num_rows)
    known: dict[tuple[str, str], dict[str, Any]] = {}
    if found.get(b"settings") == settings_id.encode():
        known = {(row["candidate_id"], row["sha256"]): row for row in read_parquet(target, MEASURES).to_pylist()}
    measures = []
    with open_parquet(images) as file:
        for batch in file.iter_batches(BATCH_ROWS, columns=["candidate_id", "caption", "status", "sha256", "image"]):
            here = [row for row in batch.to_pylist() if row["status"] == OK]
            measures += [known.get((row["candidate_id"], row["sha256"])) or measure(row, settings, max_pixels) for row in here]
    metadata = {"made_from": made_from, "settings": settings_id}
    write_parquet(target, pa.Table.from_pylist(measures, schema=MEASURES), MEASURES, metadata=metadata)
    return int(rows.num_rows)


def _metadata(path: Path) -> dict[bytes, bytes]:
    """Metadata of a part of measures; empty if there is none, or it is of another version."""
    try:
        return dict(check_parquet(path, MEASURES).metadata or {})
    except SchemaError:
        return {}


def measure(row: dict[str, Any], settings: FilterConfig, max_pixels: int) -> dict[str, Any]:
    """One row of `schemas.MEASURES` from `candidate_id`, `caption`, `sha256` and `image`."""
    caption = row["caption"]
    language = detect_language(caption, *_language_settings(settings))
    measures = {
        "candidate_id": row["candidate_id"],
        "sha256": row["sha256"],
        "has_file_name": is_file_name(caption),
        "num_caption_words": count_words(caption),
        "num_caption_letters": count_letters(caption),
        "boilerplate_share": boilerplate_share(caption),
        "has_markup": has_markup(caption),
        "has_personal": has_personal(caption),
        "language": language.language,
        "language_probability": language.probability,
        "dictionary_share": language.dictionary_share,
    }
    try:
        image, is_plain = decode_and_check(row["image"], max_pixels)
    except ImageError as error:
        return {**measures, "image_problem": error.reason, "image_detail": error.detail}
    return {
        **measures,
        "width": image.width,
        "height": image.height,
        "is_plain": is_plain,
        "pixel_sha256": pixel_sha256(image),
        **fingerprint_of(image)._asdict(),
    }


def _language_settings(settings: FilterConfig) -> tuple[tuple[str, ...], str]:
    """What measuring depends on; the thresholds come later."""
    return settings.languages, settings.language_detector
