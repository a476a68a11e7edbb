"""The settings with which a source was collected, so that no flow uses pairs of other settings.

Later stages are found by fingerprints of their settings; the pairs of a source lie in one folder, whatever they were collected with.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dalle_datasets.store.identity import deciding
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.locks import held, holder_of
from dalle_datasets.store.manifest import MANIFEST
from dalle_datasets.store.parquet import atomic_path
from dalle_model.config.tree import Config
from flows.runtime.progress import note

SETTINGS_FILE = "settings.json"
_MOST_NAMED = 3


def collection_versions() -> dict[str, int]:
    """Stage -> edition of its code."""
    from dalle_datasets.download import download_images
    from dalle_datasets.filters import filter_pairs
    from dalle_datasets.sources import discover

    return {"discover": discover.VERSION, "download": download_images.VERSION, "filter": filter_pairs.VERSION}


def collection_settings(config: Config) -> dict[str, Any]:
    """Everything that decides which pairs a collection brings from the same web: dotted settings, and the editions of the stages."""
    sections = {name: deciding(getattr(config, name)) for name in ("source", "download", "filter", "shards")}
    chosen = sections | {"version of": collection_versions()}
    return {f"{section}.{name}": value for section, values in chosen.items() for name, value in values.items()}


@contextmanager
def collecting(layout: Layout, config: Config) -> Iterator[None]:
    """Collect alone: two at once would spoil each other's files, so the second waits. Leaving well records the settings."""
    lock = layout.source(config.source.name) / "lock"
    with held(lock) as is_mine:
        if not is_mine:
            note(f"source {config.source.name!r} is being collected by {holder_of(lock)}; waiting for it")
    with held(lock, wait=True):
        yield
        folder = layout.pairs(config.source.name)
        settings = {"inputs_id": _inputs_id(folder), "settings": collection_settings(config)}
        with atomic_path(folder / SETTINGS_FILE) as partial:
            partial.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")


def check_collected(layout: Layout, config: Config) -> None:
    """Raise `ValueError` unless the pairs of the source were collected with these settings, naming what is different."""
    folder, now = layout.pairs(config.source.name), collection_settings(config)
    try:
        recorded = json.loads((folder / SETTINGS_FILE).read_text())
        # Of other pairs when a collection was killed between writing them and writing its settings.
        then: dict[str, Any] = recorded["settings"] if recorded["inputs_id"] == _inputs_id(folder) else {}
    except (OSError, ValueError, KeyError, TypeError):
        then = {}
    different = [name for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
    if not different:
        return
    reasons = [f"{name.replace('version of.', 'version of ')}={then.get(name)}, not {now.get(name)}" for name in different[:_MOST_NAMED]]
    if len(different) > _MOST_NAMED:
        reasons.append(f"and {len(different) - _MOST_NAMED} more settings")
    what = f"was collected with {', '.join(reasons)}" if then else "does not say with which settings it was collected"
    raise ValueError(
        f"{folder} {what}; run `dalle run collect_pairs` with these settings (what is there already is not fetched again), "
        "or take the pairs as they are with --set flow.check_pairs=false"
    )


def _inputs_id(folder: Path) -> str:
    """What the pairs in a folder were made from, as their manifest says."""
    return str(json.loads((folder / MANIFEST).read_text())["inputs_id"])
