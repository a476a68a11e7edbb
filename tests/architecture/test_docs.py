"""The documentation site: its reference is what the code says, its table of the paper names what exists, its pages are all there."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The reference pages, written anew by another process, whose environment holds no data root."""
    code = (
        "import runpy, sys; from pathlib import Path; here = runpy.run_path(sys.argv[1])\n"
        "[Path(sys.argv[2], f'{name}.md').write_text(here['render'](name), encoding='utf-8') for name in here['PAGES']]"
    )
    folder = tmp_path_factory.mktemp("reference")
    subprocess.run([sys.executable, "-c", code, str(DOCS / "write_reference.py"), str(folder)], check=True, cwd=ROOT)
    return folder


@pytest.mark.parametrize("name", ["settings", "commands", "tables", "schemas"])
def test_the_reference_says_what_the_code_says(name, reference):
    written = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")
    assert written == (reference / f"{name}.md").read_text(encoding="utf-8"), "python docs/write_reference.py writes it again"


def test_every_file_and_test_beside_the_paper_exists():
    rows = re.findall(r"^\| .* \| `([^`]+)` \| `([^`]+)::([^`]+)` \|$", (DOCS / "paper.md").read_text(), re.MULTILINE)
    assert len(rows) == (DOCS / "paper.md").read_text().count("\n| ") - 2 > 30
    for code, path, test in rows:
        assert (ROOT / code).is_file(), code
        assert re.search(rf"^def {test}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{test}"


def test_every_page_is_in_the_navigation_and_every_entry_a_page():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry if isinstance(entry, list) else entry.values()) for page in pages(part)]

    entries = pages(site["nav"])
    own = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert {entry for entry in entries if not entry.startswith("repository/")} == own
    hook = (DOCS / "repository_pages.py").read_text()
    for entry in entries:
        if entry.startswith("repository/"):
            assert f'"{entry.removeprefix("repository/")}"' in hook
            assert (ROOT / entry.removeprefix("repository/")).is_file()


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs mkdocs (the extra docs)")
def test_the_site_is_built_strictly_and_asks_no_other_host(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loaded = re.findall(r"<(?:script|img|link|iframe)[^>]*(?:src|href)=\"?(https?://[^\" >]+)", page.read_text())
        assert loaded == [], page.name
