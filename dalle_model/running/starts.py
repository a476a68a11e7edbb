"""Networks that trainings begin from: where a data root has one, and the inputs that name it.

What is trained on is the input `start`; what is taken over as it is has the name of its role, as everything that a run was given.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dalle_datasets.store.layout import RUN_RESULT, Layout
from dalle_model.config.tree import Config
from dalle_model.running.networks import role_of
from dalle_model.running.registry import MADE_BY


def start_inputs(layout: Layout, job: str, config: Config) -> dict[str, str]:
    """`{start: path, start_id: id}` of the network that a training begins from, or the same under its role if that is kept as it is.

    Empty for other jobs, and without a warm start. Raises `ValueError` when the network is not in the data root.
    """
    role = role_of(job)
    network_id = getattr(config.start, role) if role else ""
    if not role or not network_id:
        return {}
    name = role if config.start.keeps(role) else "start"
    return {name: find_weights(layout, role, network_id), f"{name}_id": network_id}


def find_weights(layout: Layout, role: str, network_id: str) -> str:
    """The folder of a network that was trained in a data root or brought there, relative to it. Raises `ValueError` when there is none."""
    for path in _made(layout, role, network_id):
        if (layout.root / path).exists():
            return path
    raise ValueError(
        f"start.{role}={network_id}: {layout.root} holds no such {role}; `dalle import FOLDER` brings one there, and "
        "`dalle networks` lists what was trained"
    )


def networks_in(result: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Role -> (id, path) of the networks that the result of a training or an import names."""
    job, found = result.get("job"), {}
    for role, (training, key) in MADE_BY.items():
        if f"{role}_id" not in result or job not in (training, "import_model", "import_weights"):
            continue
        path = str(result.get(key) or "")
        found[role] = (str(result[f"{role}_id"]), f"{path}/{role}" if job == "import_model" and key == "checkpoint" else path)
    return found


def _made(layout: Layout, role: str, network_id: str) -> Iterator[str]:
    for file in sorted(layout.runs.glob(f"*/{RUN_RESULT}")):
        try:
            found = networks_in(json.loads(Path(file).read_text()))
        except (OSError, ValueError, AttributeError):
            continue
        if role in found and found[role][0] == network_id:
            yield found[role][1]
