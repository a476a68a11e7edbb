"""Settings as a JSON schema, from which forms are made and requests are checked before anything runs."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from dalle_model.config.parsing import hints_of, meanings
from dalle_model.config.tree import Config


def overrides_schema() -> dict[str, Any]:
    """The schema of an object of dotted settings, each with its meaning; other names are refused. Ranges are checked when a run starts."""
    said = meanings(Config)
    properties = {name: {"title": name, "description": said[name], **_of(hint)} for name, hint in _leaves(Config) if name != "preset"}
    return {"type": "object", "title": "overrides", "properties": properties, "additionalProperties": False}


def _leaves(cls: type, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, hint in hints_of(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _leaves(typing.cast(type, hint), f"{path}{name}.")
        else:
            yield f"{path}{name}", hint


def _of(hint: Any) -> dict[str, Any]:
    """The schema of one setting's type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"type": "string", "enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(arg) for arg in args]}
    if origin is tuple:
        return {"type": "array", "items": _of(args[0])}
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}[hint]}
