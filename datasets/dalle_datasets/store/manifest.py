"""Manifests of the collection stages: the file that marks a stage as finished.

A stage writes its files first and its manifest last. A manifest with the same inputs means that there is nothing to do;
anything else (no manifest, other settings, a killed run) means that the stage runs again.
"""

import json
from pathlib import Path
from typing import Any, Protocol

from dalle_datasets.store.parquet import atomic_path, list_parts

MANIFEST = "manifest.json"


class Report(Protocol):
    """How a stage tells the outside how far it is; `dalle_model.running.progress.report_progress` is one."""

    def __call__(self, done: int, total: int, unit: str, **numbers: float) -> None: ...


def no_progress(done: int, total: int, unit: str, **numbers: float) -> None:
    """A report that goes nowhere."""


def load_if_current(folder: Path, inputs: str) -> dict[str, Any] | None:
    """What the manifest of `folder` says if the stage ended with these inputs and its files are all there, else None."""
    manifest = _read(folder)
    if manifest.get("inputs_id") != inputs or manifest.get("files") != _sizes(folder):
        return None
    result: dict[str, Any] = manifest["result"]
    return result


def result_of(folder: Path) -> dict[str, Any]:
    """The result in the manifest of `folder`, whatever its inputs; empty when the stage has not ended or the manifest is broken."""
    result = _read(folder).get("result")
    return result if isinstance(result, dict) else {}


def _read(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _sizes(folder: Path) -> dict[str, int]:
    """Parts and their bytes: a deleted or shortened one must not be vouched for."""
    return {path.name: path.stat().st_size for path in list_parts(folder)}


def invalidate(folder: Path) -> None:
    """Withdraw the manifest before the files it vouches for are touched."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)


def amend(folder: Path, **changes: Any) -> None:
    """Vouch for the files as they are now, after rows were taken out of them; nothing if the stage has not ended."""
    manifest = _read(folder)
    if "inputs_id" in manifest:
        commit(folder, manifest["inputs_id"], result_of(folder) | changes)


def commit(folder: Path, inputs: str, result: dict[str, Any]) -> None:
    """Say that the stage ended well. Written last."""
    with atomic_path(folder / MANIFEST) as partial:
        partial.write_text(json.dumps({"inputs_id": inputs, "files": _sizes(folder), "result": result}, indent=2) + "\n")
