"""Columns for the rules that compare all candidates: 41 bytes each, and 64 more with perceptual hashes.

Everything else stays in Parquet and is read one part at a time. Ids and captions are 8-byte hashes: among a billion pictures the
chance that any two share one by accident is 3%, and then one of them is dropped as a duplicate.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dalle_datasets.filters.duplicates import CODES, Drops
from dalle_datasets.filters.hashes import THUMBNAIL_BYTES, Fingerprints

NOT_CURRENT = 255
"""Code of a row that no candidate of the newest discovery belongs to."""
assert len(CODES) < NOT_CURRENT


class CandidateTable(NamedTuple):
    """N measured candidates in the order of the parts."""

    candidates: NDArray[np.uint64]
    pictures: NDArray[np.uint64]
    """A hash of the decoded pixels."""
    captions: NDArray[np.uint64]
    """Upper and lower case are the same."""
    num_pixels: NDArray[np.int64]
    fingerprints: Fingerprints
    """Empty if no rule asks."""
    drops: Drops

    @classmethod
    def empty(cls, num_rows: int, has_fingerprints: bool) -> "CandidateTable":
        """An empty table for `num_rows` candidates."""
        num_fingerprints = num_rows if has_fingerprints else 0
        candidates, pictures, captions = (np.zeros(num_rows, np.uint64) for _ in range(3))
        fingerprints = Fingerprints(
            np.zeros(num_fingerprints, np.uint64),
            np.zeros(num_fingerprints, np.uint64),
            np.zeros((num_fingerprints, THUMBNAIL_BYTES), np.uint8),
        )
        return cls(candidates, pictures, captions, np.zeros(num_rows, np.int64), fingerprints, Drops.nothing(num_rows))

    def fill(self, first: int, table: pa.Table, captions: list[str]) -> None:
        """Put the measures of a part, with their captions, at `first` and after."""
        rows = slice(first, first + table.num_rows)
        self.candidates[rows] = ids_of(table["candidate_id"])
        has_pixels = table["pixel_sha256"].is_valid().to_numpy()
        seen = table.filter(pa.array(has_pixels))
        self.pictures[rows][has_pixels] = ids_of(seen["pixel_sha256"])
        self.captions[rows] = [int.from_bytes(hashlib.blake2b(c.casefold().encode(), digest_size=8).digest(), "big") for c in captions]
        sides = [seen[side].to_numpy().astype(np.int64) for side in ("width", "height")]
        self.num_pixels[rows][has_pixels] = sides[0] * sides[1]
        if len(self.fingerprints.phashes):
            self.fingerprints.phashes[rows][has_pixels] = seen["phash"].to_numpy().view(np.uint64)
            self.fingerprints.dhashes[rows][has_pixels] = seen["dhash"].to_numpy().view(np.uint64)
            thumbnails = np.frombuffer(b"".join(seen["thumbnail"].to_pylist()), np.uint8)
            self.fingerprints.thumbnails[rows][has_pixels] = thumbnails.reshape(-1, THUMBNAIL_BYTES)


def ids_of(digests: pa.ChunkedArray) -> NDArray[np.uint64]:
    """The first 16 hex digits as numbers: whole candidate ids, the beginnings of SHA-256."""
    digits = "".join(digest[:16] for digest in digests.to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)
