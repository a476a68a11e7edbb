"""Who may import whom, and how fast the command answers."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_import_contracts_hold():
    """The layers and prohibitions of pyproject.toml (`[tool.importlinter]`)."""
    done = run_python("from importlinter.cli import lint_imports_command; lint_imports_command()")
    assert done.returncode == 0, done.stdout


def test_the_command_line_loads_nothing_heavy():
    """`dalle --help` answers at once because commands import what they need when they run."""
    heavy = ["torch", "prefect", "duckdb", "open_clip", "pyarrow", "numpy", "PIL", "pandas", "img2dataset", "tokenizers"]
    done = run_python(f"import sys, flows.cli.main; print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["config", "presets"]])
def test_simple_questions_take_less_than_a_second_of_cpu(arguments):
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_python(f"from flows.cli.main import main; main({arguments!r})")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime) < 1.0


def test_a_flow_process_does_not_load_torch():
    """Jobs are child processes; the flow that waits for them should not hold 300 MB for nothing."""
    done = run_python("import sys, flows.run_pipeline; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_folders_that_would_shadow_other_packages_are_not_packages():
    """`datasets` is Hugging Face's import name and `sql` jupysql's; ours are reached as dalle_datasets."""
    for folder in ("datasets", "sql"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_flow_files_are_verb_noun_and_never_a_name_of_the_standard_library():
    """`flows/tokenize.py`, loaded by path, replaced the standard library's `tokenize`."""
    names = [path.stem for path in (ROOT / "flows").glob("*.py") if not path.stem.startswith("_")]
    assert not set(names) & sys.stdlib_module_names
    assert sorted(name for name in names if "_" not in name) == ["api", "bootstrap"]
