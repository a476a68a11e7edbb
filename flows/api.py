"""Python API: load the trained networks of a data root by preset and overrides."""

from typing import Any

from dalle_model.generator import Generator
from flows.runtime.parameters import find_config
from flows.runtime.upstream import inputs_of


def open_generator(data_root: str = "data", preset: str | None = None, overrides: dict[str, Any] | None = None) -> Generator:
    """The trained networks under `data_root`, ready to draw.

    They are those of the data root's own settings, or of a preset. `overrides` are dotted settings, e.g. {"sampling.temperature": 0.5}.
    Raises `ValueError` naming the flow to run when a network is not there yet.
    """
    config = find_config(preset, {"paths.data_root": data_root, **(overrides or {})})
    return Generator.open(config, inputs_of("generate_images", config))
