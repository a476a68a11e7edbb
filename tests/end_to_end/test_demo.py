"""The whole pipeline as a newcomer starts it: it ends, a second run takes seconds, and a killed one ends with the same tables."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from dalle_datasets.catalog.connection import open_published
from dalle_datasets.catalog.queries import run_sql
from dalle_datasets.catalog.snapshot import contents
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.schemas import PAIRS
from tests.parts import read_parts

pytestmark = pytest.mark.slow

SETTINGS = (
    "source.num_scenes=100",
    "train_dvae.max_steps=6",
    "train_dvae.checkpoint_every=2",
    "train_clip.max_steps=6",
    "train_clip.batch_size=16",
    "train_transformer.max_steps=6",
    "train_transformer.batch_size=8",
    "train_transformer.checkpoint_every=2",
    "sampling.num_images=4",
    "evaluate.num_prompts=2",
)


COLLECTED = {"sources", "images", "measures", "pairs", "dropped", "collections", "networks", "runs"}
"""Folders of a data root that a collection fills, and those of the runs and networks."""


def command(root: Path, *words: str) -> list[str]:
    settings = (f"paths.data_root={root}", *SETTINGS)
    return [
        sys.executable,
        "-c",
        "from flows.cli.main import main; main()",
        *(words or ("demo",)),
        *(part for text in settings for part in ("--set", text)),
    ]


OFFLINE = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""In front of a command: a namespace in which there is nothing but the loopback address."""


@functools.cache
def can_go_offline() -> bool:
    """Whether this user may start a program in such a namespace."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    nobody = subprocess.run([*OFFLINE, "ip", "route", "get", "192.0.2.1"], capture_output=True, text=True, check=False)
    return "Network is unreachable" in nobody.stderr


def without_prefect() -> dict[str, str]:
    """The environment of somebody who has no Prefect server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def demo(root: Path, *words: str, before: Sequence[str] = ()) -> str:
    """Run it, or another command with its settings, to the end; returns what it printed."""
    done = subprocess.run(
        [*before, *command(root, *words)], env=without_prefect(), capture_output=True, text=True, check=False, cwd=root.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stop_when(root: Path, pattern: str, sign: signal.Signals = signal.SIGKILL, timeout_s: float = 900.0) -> tuple[int, str]:
    """Start it and send a signal as soon as a file that matches `pattern` appears under the data root: SIGINT as Ctrl-C does, to
    all of its processes, any other to the command alone. Returns its exit status and what it said.
    """
    log = root.parent / "stopped.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command(root), env=without_prefect(), stdout=subprocess.DEVNULL, stderr=stream, cwd=root.parent, start_new_session=True
        )
        deadline = time.monotonic() + timeout_s
        try:
            while not list(root.glob(pattern)):
                assert process.poll() is None, f"it ended before {pattern} appeared: {log.read_text()}"
                assert time.monotonic() < deadline, f"{pattern} did not appear"
                time.sleep(0.02)
            (os.killpg if sign == signal.SIGINT else os.kill)(process.pid, sign)
            return process.wait(60), log.read_text()
        finally:
            process.kill()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, str, dict[str, list[tuple[object, ...]]]]:
    """The data root of a run that nobody disturbed, what the run printed, and its tables before any test goes on in it.

    Who has made one with these settings may name it: `DEMO_DATA_ROOT=FOLDER DEMO_PRINTED=FILE` save a run. A copy is used.
    Otherwise it is made without a network, where that is permitted.
    """
    root = tmp_path_factory.mktemp("demo") / "data"
    if made := os.environ.get("DEMO_DATA_ROOT"):
        shutil.copytree(made, root)
        printed = Path(os.environ["DEMO_PRINTED"]).read_text()
    else:
        printed = demo(root, before=OFFLINE if can_go_offline() else ())
    shutil.copytree(root, root.parent / "before_tests")
    return Layout(root), printed, tables(Layout(root))


def tables(layout: Layout) -> dict[str, list[tuple[object, ...]]]:
    """All rows, without what tells time. Each execution that ends has stage times of its own, so stages are named once."""
    with open_published(layout) as con:
        rows = contents(con)
    return {**rows, "stage_times": sorted(set(rows["stage_times"]))}


def test_it_ends_with_a_summary_a_gallery_and_a_catalog(undisturbed):
    layout, printed, rows = undisturbed
    for words in (
        "kept",
        "dropped: caption short",
        "dVAE: PSNR",
        "codes in use",
        "CLIP: loss",
        "transformer: image loss",
        "held out pair",
        "train transformer",
    ):
        assert words in printed
    assert layout.report.stat().st_size > 10_000
    assert len(rows["pairs"]) == 100
    assert len(rows["generations"]) == 3 * 2 * 4
    assert len(rows["stage_times"]) > 15


@pytest.mark.skipif(not can_go_offline(), reason="`unshare -rn` is not permitted here, or there is no `ip`")
def test_nobody_asked_for_a_name_of_the_outer_world(undisturbed):
    """The run had the loopback address only; telemetry would have left its errors in the server's log."""
    layout, _, _ = undisturbed
    logged = (layout.root / "prefect" / "server.log").read_text()
    assert "Name or service not known" not in logged
    assert "name resolution" not in logged


def test_the_second_run_starts_nothing(undisturbed):
    layout, _, _ = undisturbed
    before = tables(layout)
    assert "Everything is there already" in demo(layout.root)
    assert tables(layout) == before


@pytest.mark.long  # test_growing_root.py counts the work of a refresh
def test_a_refresh_of_an_unchanged_site_goes_through_all_stages_and_makes_nothing(undisturbed):
    layout, _, _ = undisturbed
    before = tables(layout)
    demo(layout.root, "run", "run_pipeline", "--refresh")
    after = tables(layout)
    for table in ("pairs", "dropped_pairs", "runs", "text_tokens", "clip_scores", "training_sets", "generations", "rerank_scores"):
        assert after[table] == before[table]


@pytest.mark.long  # test_draw_prompt_folder.py does so without networks
def test_prompts_that_are_dropped_into_a_folder_get_pictures_once(undisturbed):
    layout, _, _ = undisturbed
    folder = layout.root / "prompt_folder"
    folder.mkdir()
    (folder / "prompts.csv").write_text("prompt\na blue apple on a pink background\na red owl\n")
    os.utime(folder / "prompts.csv", (0, 0))
    drawn = json.loads(demo(layout.root, "run", "draw_prompt_folder"))
    batch = folder / "prompts.csv.pictures"
    assert drawn == {"prompts.csv": json.loads((batch / "batch.json").read_text())["run_id"]}
    assert sum(path.name.startswith("a-red-owl-") for path in batch.iterdir()) == 4
    assert any(row[0] for row in tables(layout)["generations"])
    before = batch.stat().st_ino
    assert json.loads(demo(layout.root, "run", "draw_prompt_folder")) == drawn
    assert batch.stat().st_ino == before
    shutil.rmtree(folder)


def test_ten_pictures_that_are_forgotten_leave_no_trace_and_do_not_come_back(undisturbed, tmp_path, traces):
    layout = Layout(tmp_path / "data")
    shutil.copytree(undisturbed[0].root, layout.root)
    pairs = sorted(read_parts(layout.pairs("emoji_scenes"), PAIRS).to_pylist(), key=itemgetter("image_url"))
    asked_for = {row["prompt"] for row in rows_of(layout, "select prompt from prompts")}
    pairs = [pair for pair in pairs if pair["caption"] not in asked_for]  # what was drawn for a caption stays
    page = "http://emoji-scenes.localhost/gallery/6.html"
    by_page = [pair for pair in pairs if pair["page_url"] == page]
    others = [pair for pair in pairs if pair["page_url"] != page]
    (tmp_path / "letter.png").write_bytes(others[0]["image"])
    (tmp_path / "requests.csv").write_text("kind,value\n" + "".join(f"url,{pair['image_url']}\n" for pair in others[1:6]))
    request = ("forget", "--page", page, "--like", str(tmp_path / "letter.png"), "--requests", str(tmp_path / "requests.csv"))
    said = demo(layout.root, *request, "--yes")
    gone = [*by_page, *others[:6]]
    assert len(gone) >= 10
    trained = {row["transformer_id"] for row in rows_of(layout, "select result ->> 'transformer_id' as transformer_id from runs")} - {None}
    assert all(f"transformer {name}" in said for name in trained)
    names = ("caption", "image_url", "candidate_id", "sha256", "pixel_sha256", "pair_id")
    texts, pictures = {str(pair[name]) for pair in gone for name in names} | {page}, {pair["image"] for pair in gone}
    assert traces(layout.root, texts, pictures) == []
    assert "FAULT" not in (checked := demo(layout.root, "catalog", "check", "--files", "--hashed", "1000"))
    assert "leftover" not in checked
    demo(layout.root, "run", "collect_pairs", "--refresh")
    assert traces(layout.root, texts, pictures) == []
    left = {pair["pair_id"] for pair in read_parts(layout.pairs("emoji_scenes"), PAIRS).to_pylist()}
    assert left == {row["pair_id"] for row in rows_of(layout, "select pair_id from pairs")}
    assert len(left) <= 90


def rows_of(layout: Layout, sql: str) -> list[dict[str, Any]]:
    return run_sql(layout, sql).to_pylist()


def test_interrupted_and_killed_it_ends_with_the_same_tables(undisturbed, tmp_path):
    """From where all but CLIP is trained; `test_collect.py` kills collections. Which states are left depends on the kills."""
    layout, _, expected = undisturbed
    root = tmp_path / "data"
    shutil.copytree(layout.root.parent / "before_tests", root)
    for made in (*root.glob("runs/*"), *root.glob("networks/*"), *(path for path in root.iterdir() if path.name not in COLLECTED)):
        if not made.name.startswith(("train-clip", "clip")):
            shutil.rmtree(made) if made.is_dir() else made.unlink()
    status, said = stop_when(root, "runs/train-dvae-*/checkpoints/step-*2", signal.SIGINT)
    assert status == 130
    assert said.splitlines()[-1] == "dalle: interrupted; the same command goes on where this one stopped"
    assert str(root) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    for pattern in ("runs/train-transformer-*/checkpoints/step-*4", "runs/generate-images-*/status"):
        stop_when(root, pattern)
    demo(root)
    found = tables(Layout(root))
    for rows in (found, expected):
        rows["checkpoints"] = [row for row in rows["checkpoints"] if "state" not in row]
    assert found == expected
