"""Strict reading and writing of any tree of frozen dataclasses.

One mechanism serves files, the command line and flow parameters: unknown names and wrong types
fail at once, with the dotted path and a suggestion.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
import itertools
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from dalle_datasets.store.identity import identity, plain_values

T = TypeVar("T")


def saved_settings(section: Any) -> dict[str, Any]:
    """The settings that a network's id is made of: `to_dict` without those that came later and are not used."""
    return identity(section)


def to_dict(section: Any) -> dict[str, Any]:
    """The section as JSON-ready values (tuples become lists)."""
    return plain_values(section)


def from_dict(cls: type[T], values: Mapping[str, Any], path: str = "") -> T:
    """Build `cls` from JSON values. Raises `ValueError` naming the dotted path of the first bad setting."""
    hints = hints_of(cls)
    kwargs: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{path}.{key}" if path else key
        if key not in hints:
            raise ValueError(f"{where}: no such setting{_suggest(key, hints, path)}")
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ValueError(f"{where}: {value!r} is not a group of settings; set one of its fields instead")
            kwargs[key] = from_dict(typing.cast(type, hints[key]), value, where)
        else:
            kwargs[key] = _coerce(hints[key], value, where)
    return cls(**kwargs)


def with_overrides(section: T, overrides: Mapping[str, Any]) -> T:
    """A copy of `section` with dotted settings replaced, e.g. `{"transformer.num_layers": "8"}`.

    Values may be Python values or text as typed on a command line.
    """
    values = to_dict(section)
    for dotted, value in overrides.items():
        cls, node = type(section), values
        path: list[str] = []
        *parents, leaf = dotted.split(".")
        for name in parents:
            hints = hints_of(cls)
            if name not in hints or not dataclasses.is_dataclass(hints[name]):
                raise ValueError(f"{dotted}: no such setting{_suggest(name, hints, '.'.join(path), [*parents[len(path) + 1 :], leaf])}")
            cls, node, path = typing.cast(type, hints[name]), node[name], [*path, name]
        hints = hints_of(cls)
        if leaf not in hints:
            raise ValueError(f"{dotted}: no such setting{_suggest(leaf, hints, '.'.join(path))}")
        if dataclasses.is_dataclass(hints[leaf]):
            raise ValueError(
                f"{dotted} is a group of settings; set one of its fields: {', '.join(hints_of(typing.cast(type, hints[leaf])))}"
            )
        node[leaf] = _coerce(hints[leaf], value, dotted)
    return from_dict(type(section), values)


def meanings(cls: type, path: str = "") -> dict[str, str]:
    """Dotted setting -> the text below its field in the source, on one line. Fields of a base class count."""
    found: dict[str, str] = {}
    hints = hints_of(cls)
    for base in reversed(cls.__mro__[:-1]):
        body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(base)).body[0]).body
        for node, below in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = below.value.value if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) else ""
                found[f"{path}{node.target.id}"] = " ".join(str(text).split())
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            found |= meanings(typing.cast(type, hint), f"{path}{name}.")
    return found


@functools.cache
def _cached_hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def hints_of(cls: Any) -> dict[str, Any]:
    """Field -> type of a class, looked up once."""
    return _cached_hints(cls)


def _suggest(name: str, known: Mapping[str, Any], parent: str, tail: list[str] | None = None) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {'.'.join([*([parent] if parent else []), near[0], *(tail or [])])!r}?"
    return f"; known here: {', '.join(known)}"


def _split_list(text: str) -> list[str]:
    """The items between commas. A comma of an item has a backslash before it; backslashes of its own before a comma are doubled."""
    items, item = [], ""
    for piece in re.split(r"(\\*,)", text):
        num_backslashes = len(piece) - 1
        if not piece.endswith(","):
            item += piece
        elif num_backslashes % 2:
            item += "\\" * (num_backslashes // 2) + ","
        else:
            items.append(item + "\\" * (num_backslashes // 2))
            item = ""
    return [item for item in [*items, item] if item]


def _coerce(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(value, str) and origin is not tuple and str not in (hint, *args):
        value = value.strip()  # spaces are part of texts alone
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(repr, args))}")
        return value
    if origin in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            if type(None) in args:
                return None
            raise ValueError(f"{where}: needs a value")
        return _coerce(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        items = _split_list(value) if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError(f"{where}: {value!r} is not a list; separate items with commas (a comma inside one is written \\,)")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_coerce(args[0], item, where) for item in items)
        if len(items) != len(args):
            raise ValueError(f"{where}: {value!r} has {len(items)} items, expected {len(args)}")
        return tuple(_coerce(arg, item, where) for arg, item in zip(args, items, strict=True))
    if hint is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise ValueError(f"{where}: {value!r} is not true or false")
    if hint is int and not isinstance(value, bool):
        if isinstance(value, int):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str):
            try:
                return int(value.replace("_", ""))
            except ValueError:
                pass
        raise ValueError(f"{where}: {value!r} is not a whole number")
    if hint is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{where}: {value!r} is not a number") from None
    if hint is str and isinstance(value, str):
        return value
    raise ValueError(f"{where}: {value!r} is not of type {getattr(hint, '__name__', hint)}")
