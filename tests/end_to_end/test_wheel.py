"""What an index would serve: the wheel, installed where no checkout can be imported, holds all that the commands need."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.end_to_end.test_demo import SETTINGS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([*_uv(), "build", "--quiet", "--out-dir", str(folder), str(ROOT)], check=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and nothing else of ours; what it depends on is borrowed from the tests' environment."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder)
    python = folder / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    subprocess.run([*_uv(), "pip", "install", "--quiet", "--no-deps", "--python", str(python), str(wheel)], check=True, timeout=300)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    borrowed = next(path for path in map(Path, sys.path) if (path / "pyarrow").is_dir())
    (site_packages / "borrowed.pth").write_text(f"{borrowed}\n")  # whose own .pth files, the editable install's too, are not read
    return folder


def _uv() -> list[str]:
    """`make setup` puts uv beside the environment that it makes."""
    return [str(Path(sys.prefix) / "tools" / "bin" / "uv")]


def run(installed: Path, cwd: Path, *words: str) -> str:
    """What a program of that environment prints, in a folder of its own and without this session's paths."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DALLE", "PREFECT"))}
    environment = {**kept, "PREFECT_HOME": str(cwd / "prefect"), "OMP_NUM_THREADS": "1"}
    command = [str(installed / "bin" / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=1_800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_source_distribution_is_the_checkout(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    checkout = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip("\0").split("\0")
    assert held == {*checkout, "PKG-INFO"}


@pytest.mark.slow
def test_the_metadata_says_who_what_and_for_which_python(built):
    (path,) = built.glob("*.whl")
    with ZipFile(path) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    assert metadata["Requires-Python"] == "<3.13,>=3.11"
    assert metadata["License-Expression"] == "Apache-2.0 AND CC-BY-SA-4.0"
    assert len(metadata.get_all("License-File")) == 2
    assert "The maintainers" in metadata["Author"]
    assert metadata["Description-Content-Type"] == "text/markdown"


@pytest.mark.slow
def test_commands_find_their_files_in_the_wheel(installed, tmp_path):
    where = run(installed, tmp_path, "python", "-c", "import flows, dalle_datasets as d; print(flows.__file__, d.__file__)").split()
    assert all(Path(path).is_relative_to(installed) for path in where), where
    assert "drop_reasons" in run(installed, tmp_path, "dalle", "query", "--list")
    code = """
from importlib.resources import files
from pathlib import Path
from flows.operation.deployments import deployments_of
from flows.operation.site import read_site
site = Path("site.toml")
site.write_text('version = 1\\nname = "birds"\\npreset = "demo"\\n')
print(len(deployments_of(read_site(site))["deployments"]))
print(*(package for package in ("open_dalle", "dalle_model", "dalle_datasets", "flows") if (files(package) / "py.typed").is_file()))
"""
    num_deployments, typed = run(installed, tmp_path, "python", "-c", code).splitlines()
    assert int(num_deployments) > 10
    assert typed == "open_dalle dalle_model dalle_datasets flows"


@pytest.mark.long
def test_the_demo_runs_without_a_checkout(installed, tmp_path, migrated_database):
    if migrated_database.exists():  # by an earlier test; it saves 13 s of CPU
        (tmp_path / "data" / "prefect").mkdir(parents=True)
        shutil.copy(migrated_database, tmp_path / "data" / "prefect" / "prefect.db")
    settings = [part for text in SETTINGS for part in ("--set", text)]
    run(installed, tmp_path, "dalle", "demo", *settings)
    assert (tmp_path / "data" / "report" / "index.html").is_file()
    assert "kept" in run(installed, tmp_path, "dalle", "query", "funnel")
