"""Lists of tensors as JSON in place of the pickle that `torch.distributed.checkpoint` writes.

A training continues from files in a folder that others may write. Reading a pickle runs whatever it names, so none is read: the list of
tensors is JSON, checked while it is read, and the tensors themselves are read by `torch.load(weights_only=True)`.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

TENSORS = "tensors.json"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64)}


class StateWriter(FileSystemWriter):
    """Writes the tensors of one process, and in the first one the list of all."""

    def finish(self, metadata: Metadata, results: Any) -> None:
        """Write which tensor is where."""
        places = {written.index: written.storage_data for one in results for written in one}
        tensors = {
            name: {
                "dtype": str(entry.properties.dtype).removeprefix("torch."),
                "shape": list(entry.size),
                "pieces": [_piece(name, number, chunk, places) for number, chunk in enumerate(entry.chunks)],
            }
            for name, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)  # `Checkpointer` saves nothing else
        }
        with (Path(self.path) / TENSORS).open("w") as file:
            json.dump(tensors, file, indent=1)
            file.flush()
            os.fsync(file.fileno())


class StateReader(FileSystemReader):
    """Reads what `StateWriter` wrote. Raises `ValueError` for a list of tensors that it cannot have written."""

    def shapes(self) -> dict[str, torch.Size]:
        """The tensors by name."""
        entries = self.read_metadata().state_dict_metadata
        return {name: entry.size for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The list of tensors."""
        folder = Path(self.path)
        metadata = Metadata(state_dict_metadata={}, storage_data={}, storage_meta=StorageMeta(load_id=self.load_id))
        try:
            for name, said in json.loads((folder / TENSORS).read_text()).items():
                entry, places = _read_entry(folder, said)
                metadata.state_dict_metadata[name] = entry
                for number, (chunk, place) in enumerate(zip(entry.chunks, places, strict=True)):
                    metadata.storage_data[MetadataIndex(name, chunk.offsets, number)] = place
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{folder / TENSORS} is no list of tensors of a training ({type(error).__name__}: {error}); "
                f"delete {folder} to continue from the checkpoint before it"
            ) from error
        return metadata


def _read_entry(folder: Path, said: Any) -> tuple[TensorStorageMetadata, list[_StorageInfo]]:
    """One tensor and where its pieces are: in files of the folder, none larger than what is there."""
    dtype, shape = _DTYPES[said["dtype"]], _numbers(said["shape"])
    chunks = [ChunkStorageMetadata(_numbers(piece["offsets"]), _numbers(piece["shape"])) for piece in said["pieces"]]
    places = [_StorageInfo(_file_name(piece["file"]), *_numbers(piece["bytes"])) for piece in said["pieces"]]
    num_bytes = sum(place.length for place in places)
    if math.prod(shape) * dtype.itemsize > num_bytes or any(
        place.offset + place.length > (folder / place.relative_path).stat().st_size for place in places
    ):
        raise ValueError(f"{list(shape)} numbers of {said['dtype']} do not fit into their files")
    return TensorStorageMetadata(TensorProperties(dtype=dtype), shape, chunks), places


def _piece(name: str, number: int, chunk: ChunkStorageMetadata, places: dict[MetadataIndex, Any]) -> dict[str, Any]:
    place = places[MetadataIndex(name, chunk.offsets, number)]
    return {
        "offsets": list(chunk.offsets),
        "shape": list(chunk.sizes),
        "file": place.relative_path,
        "bytes": [place.offset, place.length],
    }


def _numbers(values: Any) -> torch.Size:
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < 2**62 for value in values):
        raise ValueError(f"{str(values)[:80]} are no sizes")
    return torch.Size(values)


def _file_name(name: Any) -> str:
    """The name of a file in the same folder."""
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".distcp"):
        raise ValueError(f"{str(name)[:80]!r} is no file of a checkpoint")
    return name
