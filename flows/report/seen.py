"""What a model ever learned from, as records that travel with its folder: by network and data set, with sources and licences."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dalle_datasets.store.layout import Layout
from flows.report.data import rows

Record = dict[str, Any]
"""role, network_id, run_id, data_id, num_pairs, sources; licences: a list of source, licence, num_pairs, num_pages; of: the roles of the
model's networks that learned from it, directly or not."""
_KEYS = ("role", "network_id", "run_id", "data_id", "num_pairs", "sources")


def seen_by_model(layout: Layout, ids: Mapping[str, str], told: Sequence[Record] = ()) -> list[Record]:
    """Everything that the networks of a model ("dvae_id" and so on) learned from, nearest first.

    `told` are the records of model folders that were imported; what they know of licences stays with them. Raises `ValueError` when
    nothing is published.
    """
    licences_told = {(record["network_id"], record["data_id"]): record["licences"] for record in told}
    records: dict[tuple[str, str], Record] = {}
    for role in ("transformer", "clip", "dvae", "tokenizer"):
        for row in rows(layout, "ever_seen", network_id=ids[f"{role}_id"]):
            key = (row["network_id"], row["data_id"])
            if key not in records:
                records[key] = {name: row[name] for name in _KEYS} | {"licences": licences_told.get(key), "of": []}
            if records[key]["licences"] is None:
                records[key]["licences"] = _licences(layout, row)
            records[key]["of"].append(role)
    return list(records.values())


def told_of(layout: Layout) -> list[Record]:
    """The records of all model folders that were imported into a data root."""
    imported = rows(layout, "runs", job="import_model")
    return [record for run in imported for record in json.loads(run["result"]).get("seen", [])]


def _licences(layout: Layout, row: Mapping[str, Any]) -> list[Record]:
    """Pairs by source and licence: of a training set exactly, of a source as it is today."""
    if row["role"] == "transformer":
        return [
            {name: found[name] for name in ("source", "licence", "num_pairs", "num_pages")}
            for found in rows(layout, "training_set_licences", training_set_id=row["data_id"])
        ]
    return [
        {"source": source, "licence": found["licence"], "num_pairs": found["num_pairs"], "num_pages": None}
        for source in row["sources"]
        for found in rows(layout, "licences", source=source)
    ]
