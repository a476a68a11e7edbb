"""Job: take over a model folder, as `dalle export` writes it. Input: `folder`, an absolute path, and `model_id`."""

import shutil
from pathlib import Path
from typing import Any

from dalle_model.generator import NETWORKS
from dalle_model.model_folder import CARD, check_model, read_model_folder
from dalle_model.running.run_dir import JobRun


def run(run: JobRun) -> dict[str, Any]:
    """Check every file and copy the networks to the run directory; returns their ids and where they are."""
    model = read_model_folder(Path(run.inputs["folder"]))
    if model.id != run.inputs["model_id"]:
        raise ValueError(f"{model.folder} holds model {model.id} now, not {run.inputs['model_id']}; import it again")
    check_model(model)
    for kind in NETWORKS:
        shutil.copytree(model.network(kind), run.run_dir / kind, dirs_exist_ok=True)
    if (model.folder / CARD).exists():
        shutil.copyfile(model.folder / CARD, run.run_dir / CARD)
    return {
        **model.ids,
        "seen": list(model.seen),
        "tokenizer": run.layout.relative(run.run_dir / "tokenizer"),
        "checkpoint": run.layout.relative(run.run_dir),
    }
