"""A machine with a GPU has `open-dalle[train]` and pytest: the tests that are for it import nothing else."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_the_program_for_a_gpu_runs_dry_where_only_training_is_installed(tmp_path: Path) -> None:
    """Every step at toy size on a CPU: what it imports and calls is there, and its results are written."""
    absent = ["prefect", "duckdb", "dall_e", "open_clip", "img2dataset", "pytest"]
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {absent}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "datasets"))), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "benchmarks/on_gpu.py", "--dry-run", "--minutes", "60", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line for line in lines if "error" in line or "failed" in line] == []
    steps = ["machine", "tests", "training", "sampling", "tokenising", "pictures"]
    assert [line["step"] for line in lines if line["what"] == "step"] == steps
    assert {line["skipped"] for line in lines if "skipped" in line} == {"pytest is not installed"}
    figures = {line["what"]: line for line in lines}
    assert figures["medium, structured"]["tokens_per_s"] > 0
    assert figures["large, 3 candidates"]["images_per_s"] > 0
    assert figures["transformer"]["num_steps"] == 2
    assert (tmp_path / "out" / "pictures.png").stat().st_size > 0


def test_a_step_that_fails_is_recorded_and_the_next_one_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    on_gpu = importlib.import_module("on_gpu")
    monkeypatch.setattr(on_gpu, "STEPS", {"tests": lambda bench: 1 / 0, "sampling": lambda bench: bench.attempt("a", lambda: {"b": 1})})
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--dry-run", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        on_gpu.main()
    assert ended.value.code == 1
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [(line["step"], line["what"], line.get("failed")) for line in lines] == [
        ("tests", "step", "ZeroDivisionError: division by zero"),
        ("sampling", "a", None),
        ("sampling", "step", None),
    ]
