"""What the rules that look at all candidates together must remember of each: 41 bytes, and 64 more for its look.

Everything else stays in Parquet and is read one part at a time. Ids and captions are 8-byte hashes: among a billion pictures the
chance that any two share one by accident is 3%, and then one of them is dropped as a duplicate.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dalle_datasets.filters.duplicates import CODES, Against
from dalle_datasets.filters.hashes import THUMBNAIL_BYTES, Looks

GONE = 255
"""Code of a row that no candidate of the newest discovery belongs to."""
assert len(CODES) < GONE


class Columns(NamedTuple):
    """N measured candidates in the order of the parts."""

    candidates: NDArray[np.uint64]
    pictures: NDArray[np.uint64]
    """Of the decoded pixels."""
    captions: NDArray[np.uint64]
    """Upper and lower case are the same."""
    num_pixels: NDArray[np.int64]
    looks: Looks
    """Empty if no rule asks."""
    against: Against

    @classmethod
    def empty(cls, num_rows: int, with_looks: bool) -> "Columns":
        """Room for so many candidates."""
        num_looks = num_rows if with_looks else 0
        candidates, pictures, captions = (np.zeros(num_rows, np.uint64) for _ in range(3))
        looks = Looks(np.zeros(num_looks, np.uint64), np.zeros(num_looks, np.uint64), np.zeros((num_looks, THUMBNAIL_BYTES), np.uint8))
        return cls(candidates, pictures, captions, np.zeros(num_rows, np.int64), looks, Against.nothing(num_rows))

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
        if len(self.looks.phashes):
            self.looks.phashes[rows][has_pixels] = seen["phash"].to_numpy().view(np.uint64)
            self.looks.dhashes[rows][has_pixels] = seen["dhash"].to_numpy().view(np.uint64)
            thumbnails = np.frombuffer(b"".join(seen["thumbnail"].to_pylist()), np.uint8)
            self.looks.thumbnails[rows][has_pixels] = thumbnails.reshape(-1, THUMBNAIL_BYTES)


def ids_of(digests: pa.ChunkedArray) -> NDArray[np.uint64]:
    """The first 16 hex digits as numbers: whole candidate ids, the beginnings of SHA-256."""
    digits = "".join(digest[:16] for digest in digests.to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)
