"""Shards of pairs in forms that other programs read: webdataset tars, plain Parquet, Parquet as Hugging Face stores pictures.

Each is a source again: `source.kind=webdatasets` for tars, `url_tables` for Parquet.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import pyarrow as pa

from dalle_datasets.store.parquet import RowsWriter, atomic_path

Form = Literal["webdataset", "parquet", "hf"]
FORMS: tuple[Form, ...] = get_args(Form)
SUFFIXES: Mapping[Form, str] = {"webdataset": ".tar", "parquet": ".parquet", "hf": ".parquet"}
ROWS_PER_GROUP = 1_000
_ABOUT = [
    pa.field("pair_id", pa.int64(), nullable=False),  # as in the data root that it was exported from
    pa.field("caption", pa.string(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
    pa.field("licence", pa.string()),  # as the page or table gave it
    pa.field("page_url", pa.string()),  # of pairs from the web; paths of this machine stay here
    pa.field("image_url", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("language", pa.string(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("sha256", pa.string(), nullable=False),  # of the bytes that were downloaded; those here differ if they were made plain
    pa.field("clip_id", pa.string()),
    pa.field("clip_score", pa.float32()),
]
ABOUT = [field.name for field in _ABOUT]
"""What a shard says of a pair beside its picture."""
_FEATURES = {
    "image": {"_type": "Image"},
    **{field.name: {"dtype": str(field.type).replace("float", "float32"), "_type": "Value"} for field in _ABOUT},
}
_PLAIN = pa.schema([pa.field("image", pa.binary(), nullable=False), *_ABOUT])
_HUGGING_FACE = pa.schema(
    [pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])), *_ABOUT],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif", b"MM\0*": ".tif"}


class Shard(Protocol):
    """A file to which pairs are added: `ABOUT` and `image`, its bytes."""

    def append(self, row: dict[str, Any]) -> None:
        """Add one pair."""


@contextmanager
def open_shard(path: Path, form: Form) -> Iterator[Shard]:
    """A new shard, complete under its name when the block ends well, else absent. Raises `OSError` naming it when the disk is full."""
    if form == "webdataset":
        with atomic_path(path) as partial, tarfile.open(partial, "w") as tar:
            yield _TarShard(tar)
    else:
        with RowsWriter(path, _PLAIN if form == "parquet" else _HUGGING_FACE, ROWS_PER_GROUP) as writer:
            yield writer if form == "parquet" else _StructShard(writer)


class _TarShard:
    """Three members a pair, called by its id: the picture, `.txt` its caption, `.json` all that is known of it."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def append(self, row: dict[str, Any]) -> None:
        key, about = f"{row['pair_id']:019d}", {name: row[name] for name in ABOUT}
        members = ((suffix_of(row["image"]), row["image"]), (".txt", row["caption"].encode()), (".json", json.dumps(about).encode()))
        for suffix, data in members:
            member = tarfile.TarInfo(key + suffix)  # of no time and nobody, so that equal pairs make equal files
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))


class _StructShard:
    def __init__(self, writer: RowsWriter) -> None:
        self._writer = writer

    def append(self, row: dict[str, Any]) -> None:
        path = f"{row['pair_id']:019d}{suffix_of(row['image'])}"
        self._writer.append({**row, "image": {"bytes": row["image"], "path": path}})


def suffix_of(image: bytes) -> str:
    """The suffix of a picture file by its first bytes; `.png` for what is none of ours, which pairs are not."""
    if image[:4] == b"RIFF":
        return ".webp"
    if image[4:8] == b"ftyp":
        return ".avif"
    return next((suffix for magic, suffix in _MAGIC.items() if image.startswith(magic)), ".png")
