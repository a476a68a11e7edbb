"""A new stage is an entry in the registry and a file: a copy of the package with both runs it by every way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dalle_model
from dalle_datasets.catalog.artifacts import ARTIFACTS
from dalle_model.running.registry import JOBS
from flows.cli.run import FLOWS

ENTRY = '    Job(name="count_toys", sections=("tokenizer",), version=1, flow="train_tokenizers"),\n'
MODULE = """
def run(run):
    return {"num_toys": int(run.inputs["toys"])}
"""
FLOW = """
import json, sys
from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.ingest import ingest_run
from dalle_datasets.store.layout import open_data_root
from dalle_model.config.presets import preset
from dalle_model.running.run_dir import prepare
from flows.runtime.run import execute_job

config = preset("demo", {"paths.data_root": sys.argv[1]})
if sys.argv[2] == "prepare":
    print(prepare("count_toys", config, {"toys": "3"}))
else:
    made = execute_job("count_toys", config, {"toys": "4"})
    layout = open_data_root(sys.argv[1])
    with connect(layout.catalog) as con:
        ingest_run(con, layout, layout.run(made["run_id"]))
        print(json.dumps(con.execute("SELECT job, result FROM runs").fetchall()))
"""


def test_every_flow_of_the_registry_can_be_run() -> None:
    assert {job.flow for job in JOBS.values() if job.flow} <= set(FLOWS)


def test_the_catalog_knows_all_that_jobs_make() -> None:
    made = {(kind, key) for job in JOBS.values() for kind, key in job.makes.items()}
    assert made == {(kind, artifact.path_key) for kind, artifact in ARTIFACTS.items()}


def test_a_stage_is_an_entry_and_a_file(tmp_path: Path) -> None:
    package = tmp_path / "code" / "dalle_model"
    shutil.copytree(dalle_model.__path__[0], package, ignore=shutil.ignore_patterns("__pycache__"))
    registry = package / "running" / "registry.py"
    registry.write_text(registry.read_text().replace("_TABLE = (\n", f"_TABLE = (\n{ENTRY}"))
    (package / "jobs" / "count_toys.py").write_text(MODULE)
    path = os.pathsep.join([str(package.parent), *(folder for folder in sys.path if folder)])

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, cwd=package.parent, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1] if done.stdout else ""

    root = str(tmp_path / "data")
    by_hand = Path(python("-c", FLOW, root, "prepare"))
    python("-m", "dalle_model.jobs", "count_toys", str(by_hand))
    assert json.loads((by_hand / "result.json").read_text())["num_toys"] == 3
    ((job, result),) = json.loads(python("-c", FLOW, root, "run"))
    assert (job, json.loads(result)) == ("count_toys", {"num_toys": 4})
