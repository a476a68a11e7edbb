"""Identity of settings: which of them decide a result, and fingerprints of what was made from what.

Settings are fields of frozen dataclasses. Each counts, unless the `metadata` of its field says otherwise.
"""

import dataclasses
import hashlib
import json
from typing import Any

OPERATIONAL = {"operational": True}
"""`metadata` of a setting that says how to run (processes, waiting, ports): it counts as its default, whatever its value."""

LATER = {"later": True}
"""`metadata` of a setting that is younger than data roots: at its default it does not count, so their ids stay."""


def plain_values(section: Any) -> dict[str, Any]:
    """The section as JSON-ready values (tuples become lists)."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(section)))
    return values


def identity(section: Any) -> dict[str, Any]:
    """The values that decide the id of a result, by name: `OPERATIONAL` settings at their defaults, no `LATER` ones at theirs."""
    values = plain_values(section)
    for field in dataclasses.fields(section):
        if field.metadata.get("operational"):
            values[field.name] = field.default
        if field.metadata.get("later") and (field.metadata.get("operational") or getattr(section, field.name) == field.default):
            del values[field.name]
    return values


def deciding(section: Any) -> dict[str, Any]:
    """`identity` without `OPERATIONAL` settings: what a change of result can come from."""
    operational = {field.name for field in dataclasses.fields(section) if field.metadata.get("operational")}
    return {name: value for name, value in identity(section).items() if name not in operational}


def fingerprint(*parts: Any, length: int = 12) -> str:
    """Hex digest of the canonical JSON of sections (their `identity`) and plain values; ids and cache keys come from it."""
    plain = [identity(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:length]
