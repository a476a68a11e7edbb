"""Who may import whom, and what the command does not load."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_import_contracts_hold():
    """The layers and prohibitions of pyproject.toml (`[tool.importlinter]`)."""
    done = run_python("from importlinter.cli import lint_imports_command; lint_imports_command()")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["config", "presets"]], ids=" ".join)
def test_the_command_line_loads_nothing_heavy(arguments):
    """`dalle --help` answers at once because commands import what they need when they run."""
    heavy = ["torch", "prefect", "duckdb", "open_clip", "pyarrow", "numpy", "PIL", "pandas", "img2dataset", "tokenizers"]
    code = f"""
        import atexit, sys
        from flows.cli.main import main
        atexit.register(lambda: print("loaded:", [name for name in {heavy} if name in sys.modules]))
        main({arguments})
    """
    done = run_python(dedent(code))
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stdout, done.stdout


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
