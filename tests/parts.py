"""Reader of whole artefacts of several parts, which are small in tests."""

from pathlib import Path

import pyarrow as pa

from dalle_datasets.store.parquet import list_parts, read_parquet


def read_parts(directory: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """All parts of a folder as one table (for small artefacts). An empty folder gives an empty table."""
    tables = [read_parquet(part, schema, columns) for part in list_parts(directory)]
    if not tables:
        empty = schema.with_metadata(None).empty_table()
        return empty.select(columns) if columns else empty
    return pa.concat_tables(tables)
