"""Every numeric setting has a range, and nothing but a number within it is taken."""

import dataclasses
import math
import re
import tempfile
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dalle_model.config.parsing import to_dict
from dalle_model.config.presets import preset
from dalle_model.config.settings_file import read_settings, render_settings
from dalle_model.config.tree import Config
from flows.cli.options import parse_settings


def numeric_settings(cls: type, path: str = "") -> dict[str, type]:
    """Dotted setting -> int or float, for every number in the tree."""
    found: dict[str, type] = {}
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            found |= numeric_settings(typing.cast(type, hint), f"{path}{name}.")
        else:
            found |= {f"{path}{name}": kind for kind in (int, float) if kind in (hint, *typing.get_args(hint))}
    return found


NUMERIC = numeric_settings(Config)


def test_a_number_that_cannot_be_meant_is_refused_with_its_name() -> None:
    """No range has no end, and none has room for what is not a number."""
    assert len(NUMERIC) > 100
    for name in NUMERIC:
        for text in ("nan", "inf", "-1e30", "1e30", str(10**40), "half"):
            with pytest.raises(ValueError, match=name.rpartition(".")[2]):
                preset("demo", {name: text})


@given(st.sampled_from(sorted(NUMERIC)), st.floats() | st.integers() | st.sampled_from([0, -1, 1e-40, -0.0, 0.5, 1, 2**63, math.pi]))
@settings(max_examples=100, deadline=None)
def test_any_number_is_taken_as_it_is_or_refused_with_a_sentence(name: str, value: Any) -> None:
    refusal = ""
    try:
        tree: Any = to_dict(preset("demo", {name: value}))
    except ValueError as error:
        refusal = str(error)
    if refusal:
        assert name.rpartition(".")[2] in refusal or ";" in refusal  # or the rule of another setting, with a remedy
        return
    for part in name.split("."):
        tree = tree[part]
    assert tree == value
    assert math.isfinite(tree)


def test_a_comma_inside_an_item_is_escaped() -> None:
    inputs = r"/data/birds [2021]\, 'red' \"x\",/data/鳥 é=1,C:\photos, a\\,b "
    config = preset("demo", {"source.kind": "image_folders", "source.inputs": inputs})
    assert config.source.inputs == (r"/data/birds [2021], 'red' \"x\"", "/data/鳥 é=1", r"C:\photos", " a\\", "b ")


ITEMS = st.text(st.characters(codec="utf-8") | st.sampled_from(",\\\"'[]{}*?=# \n\x7f\u2028"), min_size=1, max_size=9)


@given(st.lists(ITEMS, min_size=1, max_size=4), ITEMS)
@settings(max_examples=15, deadline=None)
def test_any_text_survives_the_command_line_and_the_settings_file(inputs: list[str], root: str) -> None:
    """Brackets, quotes, spaces, commas, backslashes, line ends and every script, in lists and alone."""
    escaped = [re.sub(r"(\\*),", r"\1\1\\,", item) for item in inputs]
    escaped = [re.sub(r"(\\+)$", r"\1\1", item) for item in escaped[:-1]] + escaped[-1:]
    typed = parse_settings([f"source.inputs={','.join(escaped)}", "source.kind= image_folders ", f"paths.data_root={root}"])
    config = preset("demo", typed)
    assert config.source.inputs == tuple(inputs)
    assert config.paths.data_root == root
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.toml"
        path.write_text(render_settings(config), encoding="utf-8", newline="")
        assert read_settings(path).source == config.source
