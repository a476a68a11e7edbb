"""Python API: load the trained networks of a data root by preset and overrides."""

from typing import Any

from dalle_model.generator import Generator
from flows.runtime.parameters import config_from_parameters
from flows.runtime.upstream import inputs_of


def open_generator(data_root: str = "data", preset: str = "demo", overrides: dict[str, Any] | None = None) -> Generator:
    """The trained networks under `data_root`, ready to draw.

    `overrides` are dotted settings, e.g. {"sampling.temperature": 0.5}. Raises `ValueError` naming the flow to run when a network is not
    there yet.
    """
    config = config_from_parameters(preset, {"paths.data_root": data_root, **(overrides or {})})
    return Generator(config, inputs_of("generate_images", config))
