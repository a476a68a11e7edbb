"""The downloaded bytes of a few candidates, found without reading those of all the others."""

from collections.abc import Collection, Mapping

import pyarrow.parquet as pq

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts

MAX_PARTS = 2_000
"""Parts of a source that are looked through; the ids of two million candidates take some seconds."""


def find_images(layout: Layout, wanted: Mapping[str, Collection[str]]) -> dict[str, bytes]:
    """Candidate id -> bytes as they came, of those candidates (by source) that are there and were downloaded."""
    found: dict[str, bytes] = {}
    for source, ids in wanted.items():
        left = set(ids)
        for part in list_parts(layout.images(source))[:MAX_PARTS]:
            if not left:
                break
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    if left.isdisjoint(file.read_row_group(group, columns=["candidate_id"])["candidate_id"].to_pylist()):
                        continue
                    rows = file.read_row_group(group, columns=["candidate_id", "image"]).to_pylist()
                    here = {row["candidate_id"]: row["image"] for row in rows if row["candidate_id"] in left}
                    found |= {candidate_id: image for candidate_id, image in here.items() if image}
                    left -= set(here)
    return found
