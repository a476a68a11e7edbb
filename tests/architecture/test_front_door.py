"""What a newcomer meets first: pages whose links and commands hold, a version and Pythons that agree everywhere."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PAGES = [path for path in ROOT.rglob("*.md") if not any(part.startswith(".") or part == "data" for part in path.relative_to(ROOT).parts)]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_commands_and_options_of_the_pages_exist():
    from flows.cli.main import app

    root = typer.main.get_command(app)
    asked = [
        (page, line.strip())
        for page in PAGES
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip().startswith("dalle ")
    ]
    assert len(asked) > 20
    for page, line in asked:
        command, words = root, shlex.split(line, comments=True)[1:]
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, f"{page.name}: {line}"
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
        options = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert options <= known, f"{page.name}: {line}"


def test_targets_of_make_in_the_pages_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text())}
    asked |= {name for page in PAGES for name in re.findall(r"^make ([a-z-]+)", page.read_text(), re.MULTILINE)}
    assert asked - targets == set()


def test_the_version_is_the_same_everywhere():
    releases = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == ("Unreleased", "")
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", date) for _, date in releases[1:])
    groups = set(re.findall(r"^### (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE))
    assert groups <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == releases[1][0] == PROJECT["version"]
    assert " AND ".join(citation["license"]) == PROJECT["license"]
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_workflow_runs_what_is_promised():
    named = sorted(re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"])))
    linux, macos = WORKFLOW["jobs"]["linux"], WORKFLOW["jobs"]["macos"]
    assert linux["strategy"]["matrix"]["python"] == macos["strategy"]["matrix"]["python"] == named == ["3.11", "3.12"]
    assert PROJECT["requires-python"] == ">=3.11,<3.13"
    assert [job["steps"][-1]["run"] for job in (linux, macos)] == [".ci/run", "make test"]
    assert linux["env"] == macos["env"] == {"PYTHON": "python${{ matrix.python }}"}
    said = subprocess.run(
        ["make", "-n", "test", "PYTHON=python-of-the-matrix", "VENV=/nonexistent"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "python-of-the-matrix -m venv" in said
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_hooks_are_the_tools_of_make_check():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    check = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    for hook in repository["hooks"]:
        tool, *words = hook["entry"].split()
        assert f"$(BIN)/{Path(tool).name}{''.join(f' {word}' for word in words[:1] if word[0] != '-')}" in check, hook["entry"]


def test_a_hook_mends_a_file_as_the_project_formats(tmp_path):
    path = tmp_path / "draft.py"
    path.write_text("import sys\nimport os\nprint( sys, os )\n")
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in reversed(repository["hooks"][:2]):
        tool, *words = hook["entry"].split()
        command = [sys.executable, "-m", Path(tool).name, *words, "--config", str(ROOT / "pyproject.toml"), str(path)]
        subprocess.run(command, check=True, capture_output=True)
    assert path.read_text() == "import os\nimport sys\n\nprint(sys, os)\n"


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem)
def test_issue_forms_are_whole(path):
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "labels", "body"} == set(form)
    ids = [item["id"] for item in form["body"] if item["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for item in form["body"]:
        assert item["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert item["attributes"]["value" if item["type"] == "markdown" else "label"]


def test_every_example_is_listed_and_run_by_a_test():
    scripts = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert scripts == set(re.findall(r"\]\((\w+\.py)\)", (ROOT / "examples" / "README.md").read_text()))
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert scripts == set(re.findall(r'run_example\("(\w+\.py)"', tests))
