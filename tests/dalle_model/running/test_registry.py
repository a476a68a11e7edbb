"""The table of jobs agrees with the modules, and the ids of runs are those that older data roots hold."""

from importlib.util import find_spec
from pathlib import Path

from dalle_model import jobs
from dalle_model.config.presets import preset
from dalle_model.running.registry import JOBS
from dalle_model.running.run_dir import run_directory

RUN_IDS = {
    "train_bpe": "train-bpe-14dbb1b70ca6",
    "train_dvae": "train-dvae-b16e4bcc32f5",
    "tokenize_captions": "tokenize-captions-81feb73cce90",
    "tokenize_images": "tokenize-images-386d559d6085",
    "train_clip": "train-clip-f9d5bfb31a1d",
    "score_pairs": "score-pairs-6b7c644ba746",
    "score_safety": "score-safety-71a2b70f5e31",
    "train_transformer": "train-transformer-776d0a0ae2cd",
    "generate_images": "generate-images-ced6e245c430",
    "score_generations": "score-generations-a9ece13ce2bf",
    "evaluate": "evaluate-cbafbadeb1b6",
    "import_weights": "import-weights-f7967d0dc140",
    "import_model": "import-model-c8f62a623a54",
    "reconstruct": "reconstruct-869e46effd26",
}
"""Ids that an earlier edition gave: a change of one makes people's finished work anew."""


def test_ids_of_runs_are_those_of_earlier_editions() -> None:
    inputs = {"pairs": "pairs/x", "pairs_id": "ab"}
    assert {name: run_directory(name, preset("demo"), inputs).name for name in JOBS} == RUN_IDS


def test_every_job_has_an_entry_and_a_file() -> None:
    modules = {path.stem for path in Path(jobs.__path__[0]).glob("*.py") if not path.stem.startswith("__")}
    assert modules == set(JOBS)
    assert all(find_spec(f"dalle_model.jobs.{name}") for name in JOBS)
    assert all(map(find_spec, {module for job in JOBS.values() for module in job.late_imports}))
