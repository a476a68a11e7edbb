"""What the playground shows of a data root: pairs, pictures made earlier, lineage, named queries. Reads the published catalog only."""

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from PIL import Image

from dalle_datasets.catalog.queries import list_queries, run_query
from dalle_datasets.images import ImageError, decode_image
from dalle_datasets.loading.image_batches import centre
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import open_parquet
from flows.report.pictures import MAX_PIXELS, embed, embed_bytes, embed_file

Row = dict[str, Any]

NUM_FOUND = 24
THUMBNAIL = 128
MAX_ROWS = 200
"""Rows of a query's answer that are sent to the page."""
MAX_EXACT = 2**53
"""JavaScript's numbers are exact up to here; larger ones, such as ids of pairs, are sent as text."""
NUM_EXAMPLES = 6


class Archive:
    """A data root. `ids` name the networks that the playground draws with; empty when there are none."""

    def __init__(self, layout: Layout, ids: Mapping[str, str]) -> None:
        self.layout, self.ids = layout, ids

    def describe(self) -> Row:
        """Counts, captions to begin with, and the runs that made pictures. Raises `ValueError` when nothing has been published."""
        runs = [row["run_id"] for row in self._ask("runs", job="generate_images")]
        captions = [row["caption"] for row in self._ask("find_pairs", words="", limit=200)]
        apart = captions[:: max(1, len(captions) // NUM_EXAMPLES)][:NUM_EXAMPLES]
        return {"num_pairs": sum(row["num_pairs"] for row in self._ask("sources")), "runs": runs[::-1], "examples": apart}

    def with_words(self, words: str) -> list[Row]:
        """Pairs whose captions have all the words."""
        return self._shown(self._ask("find_pairs", words=words, limit=NUM_FOUND))

    def like_embedding(self, embedding: list[float], limit: int = NUM_FOUND) -> list[Row]:
        """Pairs whose pictures CLIP finds most like an embedding."""
        return self._shown(self._ask("pairs_like_embedding", clip_id=self._id("clip_id"), embedding=str(embedding), limit=limit))

    def like_tokens(self, tokens: list[int], limit: int = NUM_FOUND) -> list[Row]:
        """Pairs whose image tokens agree most with these."""
        return self._shown(self._ask("pairs_like_tokens", dvae_id=self._id("dvae_id"), image_tokens=str(tokens), limit=limit))

    def with_token(self, token: int, side: int) -> list[Row]:
        """Pairs that use an image token, as the squares that the dVAE saw, `side` pixels wide."""
        return self._shown(self._ask("pairs_with_token", dvae_id=self._id("dvae_id"), image_token=token, limit=NUM_FOUND), side)

    def gallery(self, run_id: str, limit: int) -> list[Row]:
        """The best picture of each prompt of a run that `dalle generate` kept."""
        found = self._ask("gallery", run_id=run_id, limit=limit)
        return [{**json_row(row), "src": _source(embed_file(self.layout.root / row["image_path"]))} for row in found]

    def lineage(self, generation_id: str) -> Row:
        """Where a kept picture came from, and the training pairs most like it."""
        facts = self._ask("lineage", generation_id=generation_id)
        if not facts:
            raise ValueError(f"the published catalog has no picture {generation_id!r}")
        nearest = self._ask("nearest_training_pairs", generation_id=generation_id, limit=8)
        rows = [{**row, **self._ask("pair", pair_id=row["pair_id"])[0]} for row in nearest]
        return {"facts": [[row["fact"], row["value"]] for row in facts if row["value"] is not None], "nearest": self._shown(rows)}

    def provenance(self) -> list[list[str]]:
        """Where the transformer that draws here came from, as facts; empty when the catalog does not know it."""
        try:
            found = self._ask("checkpoint_provenance", transformer_id=self._id("transformer_id"))
        except ValueError:
            return []
        return [[row["fact"], row["value"]] for row in found if row["value"] is not None]

    def ask(self, name: str, params: Mapping[str, str]) -> Row:
        """The answer of a named query. Raises `ValueError` as `run_query` does, and for the parameter that is filled in."""
        if "root" in params:
            raise ValueError("root is filled in: the playground asks its own data root only")
        given = {key: value for key, value in params.items() if value != ""}
        rows = run_query(self.layout, name, given)
        shown = zip(*(column.to_pylist() for column in rows.slice(0, MAX_ROWS).columns), strict=True)
        return {"columns": rows.column_names, "rows": [[json_value(value) for value in row] for row in shown], "num_rows": rows.num_rows}

    def _ask(self, name: str, **params: Any) -> list[Row]:
        found: list[Row] = run_query(self.layout, name, params).to_pylist()
        return found

    def _id(self, name: str) -> str:
        if name not in self.ids:
            raise ValueError(f"this needs the {name.removesuffix('_id')}, and no trained networks were found in this data root")
        return self.ids[name]

    def _shown(self, rows: list[Row], side: int | None = None) -> list[Row]:
        """Rows of pairs with their pictures, ready for the page."""
        images = find_pictures(self.layout, rows)
        return [{**json_row(row), "src": _thumbnail(images.get(row["pair_id"]), side)} for row in rows]


def questions() -> list[Row]:
    """The named queries with what they take."""
    return [
        {
            "name": file.name,
            "purpose": file.purpose,
            "parameters": [
                {"name": parameter.name, "kind": parameter.kind, "is_optional": parameter.is_optional, "default": parameter.default}
                for parameter in file.parameters
                if parameter.name != "root"
            ],
        }
        for file in list_queries()
    ]


def find_pictures(layout: Layout, rows: Iterable[Row]) -> dict[int, bytes]:
    """Pair id -> bytes of its picture, of rows with `pair_id` and `part_path`. Only row groups that hold one are read."""
    wanted: dict[str, set[int]] = {}
    for row in rows:
        wanted.setdefault(row["part_path"], set()).add(row["pair_id"])
    found: dict[int, bytes] = {}
    for part, ids in wanted.items():
        path = layout.root / part
        if not path.is_file():
            continue
        with open_parquet(path) as file:
            for group in range(file.num_row_groups):
                here = file.read_row_group(group, columns=["pair_id"])["pair_id"].to_pylist()
                if places := [place for place, pair_id in enumerate(here) if pair_id in ids]:
                    images = file.read_row_group(group, columns=["image"])["image"].take(places).to_pylist()
                    found |= dict(zip((here[place] for place in places), images, strict=True))
    return found


def json_row(row: Row) -> Row:
    """A row as JSON has it."""
    return {name: json_value(value) for name, value in row.items()}


def json_value(value: Any) -> Any:
    """A value that JSON and JavaScript keep: no NaN, no number that would be rounded."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < MAX_EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return str(value)


def _thumbnail(data: bytes | None, side: int | None) -> str | None:
    if data is None:
        return None
    if side is None:
        return _source(embed_bytes(data, THUMBNAIL))
    try:
        square = centre(np.asarray(decode_image(data, MAX_PIXELS)), side, np.random.default_rng(0))
    except ImageError:
        return None
    return _source(embed(Image.fromarray(square), THUMBNAIL))


def _source(picture: Any) -> str | None:
    return picture.src if picture else None
