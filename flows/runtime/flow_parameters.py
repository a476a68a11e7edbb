"""Types of the flows' parameters: what Prefect's forms offer, and what is refused when a run is asked for.

Flows themselves take any text, and say what is wrong with it as every command does.
"""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, WithJsonSchema

from dalle_model.config.presets import PRESETS
from dalle_model.config.schema import overrides_schema
from dalle_model.running.registry import JOBS
from flows.runtime import parameters


def _menu(names: Iterable[str], description: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(names), "description": description})


Preset = Annotated[str, _menu(PRESETS, "Named settings to start from.")]
Overrides = Annotated[parameters.Overrides, WithJsonSchema(overrides_schema())]
Job = Annotated[str, _menu(JOBS, "What to run.")]
NumProcesses = Annotated[int, Field(ge=1, description="Processes on the machine, one per GPU.")]
Refresh = Annotated[bool, Field(description="Ask the source what changed since.")]
