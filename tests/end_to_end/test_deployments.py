"""What the README tells an operator to type: bootstrap, deploy everything, and a worker that completes a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from dalle_datasets.layout import Layout
from dalle_datasets.parquet import write_parts
from dalle_datasets.schemas import PAIRS
from dalle_model.config.presets import preset
from dalle_model.jobs.contract import prepare, read_result

pytestmark = [pytest.mark.slow, pytest.mark.prefect]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(prefect_server):
    """Run a program in the checkout against the session's server; returns what it printed."""
    environment = {
        **os.environ,
        "PREFECT_API_URL": prefect_server,
        "DALLE_HOME": str(ROOT),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
    }

    def start(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return start


def test_every_flow_deploys_and_a_worker_completes_a_run(run, tmp_path):
    for _ in range(2):  # twice, because both say that they may be repeated
        assert "limits are ready" in run("flows.bootstrap")
    assert "Deployment" in run("prefect", "--no-prompt", "deploy", "--all")
    deployed = json.loads(run("prefect", "deployment", "ls", "--output", "json"))
    assert len(deployed) == 12
    run_dir = prepare("train_bpe", preset("demo", {"paths.data_root": str(tmp_path)}), write_captions(tmp_path))
    run("prefect", "deployment", "run", "run-job/cpu", "--param", "job=train_bpe", "--param", f"run_dir={run_dir}")
    run("prefect", "worker", "start", "--pool", "cpu", "--type", "process", "--run-once", "--prefetch-seconds", "60")
    assert read_result(run_dir)["num_captions"] == 40
    runs = json.loads(run("prefect", "flow-run", "ls", "--flow-name", "run-job", "--output", "json"))
    assert [entry["state_name"] for entry in runs] == ["Completed"]


def write_captions(root: Path) -> dict[str, str]:
    """Pairs that are just enough to learn a vocabulary from; returns the job's inputs."""
    blank = {field.name: b"" if pa.types.is_binary(field.type) else "" if pa.types.is_string(field.type) else 0 for field in PAIRS}
    rows = [{**blank, "pair_id": i, "caption": f"a red apple number {i}", "split": "train"} for i in range(40)]
    folder = Layout(root).pairs("web")
    write_parts(folder, pa.Table.from_pylist(rows, schema=PAIRS.with_metadata(None)), PAIRS, rows_per_part=100, row_group_size=100)
    return {"pairs": Layout(root).relative(folder), "pairs_id": "1"}
