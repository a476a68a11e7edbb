"""A machine with a GPU has `open-dalle[train]` and pytest: the tests that are for it import nothing else."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ["prefect", "duckdb", "dall_e", "open_clip", "img2dataset", "pandas", "hypothesis"]


def test_they_are_collected_where_only_training_is_installed() -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    arguments = ["-q", "--collect-only", "-p", "no:cacheprovider", "-m", "gpu", "tests/on_gpu"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_a_training_that_begins_with_a_validation_learns[bf16]" in done.stdout


def test_they_are_all_in_their_folder() -> None:
    mark = "pytest.mark." + "gpu"
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if mark in path.read_text()]
    assert marked
    assert {path.parent for path in marked} == {ROOT / "tests" / "on_gpu"}
