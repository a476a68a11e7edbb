"""The candidates of the newest discovery: 16 bytes each in memory, their texts stay in Parquet."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dalle_datasets.filters.candidate_table import ids_of
from dalle_datasets.store.parquet import iter_file
from dalle_datasets.store.schemas import CANDIDATES

ORIGINS = ("licence", "document")
"""What a pair takes over from its candidate. Few different values, so each is kept once."""


class CurrentCandidates(NamedTuple):
    """Ids in ascending order, and where each came from."""

    ids: NDArray[np.uint64]
    origins: NDArray[np.int32]
    """[N, 2] places in `values`."""
    values: list[str | None]

    def are_in(self, ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of some ids are candidates; images of earlier ones may still lie about."""
        places = np.searchsorted(self.ids, ids)
        found = places < len(self.ids)
        found[found] = self.ids[places[found]] == ids[found]
        return found

    def origin_of(self, candidate_id: str) -> dict[str, str | None]:
        """Values of `ORIGINS` of a candidate."""
        place = np.searchsorted(self.ids, np.uint64(int(candidate_id, 16)))
        return {name: self.values[code] for name, code in zip(ORIGINS, self.origins[place], strict=True)}


def read_candidates(path: Path) -> CurrentCandidates:
    """Read a file of `schemas.CANDIDATES`, a batch at a time. Raises `SchemaError`."""
    place_of: dict[str | None, int] = {None: 0}
    ids, origins = [np.zeros(0, np.uint64)], [np.zeros((0, len(ORIGINS)), np.int32)]
    for batch in iter_file(path, CANDIDATES, ["candidate_id", *ORIGINS]):
        ids.append(ids_of(batch["candidate_id"]))
        codes = [[place_of.setdefault(value, len(place_of)) for value in batch[name].to_pylist()] for name in ORIGINS]
        origins.append(np.array(codes, np.int32).T)
    all_ids = np.concatenate(ids)
    order = np.argsort(all_ids)
    return CurrentCandidates(all_ids[order], np.concatenate(origins)[order], list(place_of))
