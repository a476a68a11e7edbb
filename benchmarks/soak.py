"""An installation left alone: schedules, events and workers follow a web site and a folder that grow, change and lose pictures.

    python benchmarks/soak.py --minutes 30 --out soak-results      # or: make soak MINUTES=30

A Prefect server of its own, every deployment of prefect.yaml, workers for both pools, all links of the chain, tiny networks. Nobody
touches anything until the time is over; then the tables are compared with what the world shows by then. Exit code 1 says what is wrong.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LINKS = (
    "tokenize-new-pairs", "score-new-tokens", "retrain-on-new-scores", "draw-after-training", "draw-folder-after-training",
    "judge-new-pictures",
)  # fmt: skip
CHAIN = ("collect-pairs", "tokenize-pairs", "score-pairs", "retrain-networks", "generate-images", "draw-prompt-folder", "evaluate-model")
TINY = {
    "filter.min_caption_words": 1, "filter.validation_share": 0.1, "shards.rows_per_part": 40, "shards.row_group_size": 20,
    "tokenizer.vocab_size": 300, "tokenizer.max_text_tokens": 40,
    "dvae.codebook_size": 16, "dvae.hidden_width": 8, "dvae.codebook_width": 8, "dvae.codebook_init": "random",
    "clip.embed_width": 32, "clip.width": 32, "clip.head_width": 16, "clip.vision_layers": 1, "clip.text_layers": 1,
    "transformer.num_layers": 1, "transformer.num_heads": 2, "transformer.d_model": 16,
    "train_dvae.max_steps": 20, "train_clip.max_steps": 20, "train_clip.batch_size": 16,
    "train_transformer.max_steps": 20, "train_transformer.batch_size": 8,
    "sampling.num_images": 4, "evaluate.num_prompts": 4,
}  # fmt: skip
WATCHED = {
    "dalle_datasets.filters.measure": ("decode_and_check", "1"),
    "dalle_model.jobs.tokenize_images": ("decode_image", "1"),
    "dalle_model.jobs.tokenize_captions": ("encode_pairs", "arguments[1].num_rows"),
    "dalle_model.jobs.score_pairs": ("centre", "1"),
}
"""Module -> the function in it that handles pairs one by one, and how many a call of it handles."""
COUNTER = """
import importlib.abc, importlib.util, os, sys
WATCHED = {watched!r}
class Watcher(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in WATCHED or name in sys.modules:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, self)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            function, size = WATCHED[name]
            real = getattr(module, function)
            def counted(*arguments, **named):
                line = f"{{os.environ.get('PREFECT__FLOW_RUN_ID', '')}} {{name}} {{eval(size)}}\\n"
                with open({log!r}, "a") as file:
                    file.write(line)
                return real(*arguments, **named)
            setattr(module, function, counted)
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Watcher())
"""
"""A sitecustomize.py: every process notes what it handles, for which flow run."""


class Pictures:
    """Scenes that have not been drawn yet; a caption belongs to one picture only."""

    def __init__(self) -> None:
        from dalle_datasets.demo.emoji_scenes import all_scenes, caption_scene

        self._random = random.Random(0)
        scenes = self._random.sample(all_scenes(), 3_000)
        by_caption = {caption_scene(scene, self._random): scene for scene in scenes}
        self._left = list(by_caption.items())

    def draw(self) -> tuple[str, bytes]:
        """A caption, and a picture as PNG."""
        from dalle_datasets.demo.emoji_scenes import draw_scene

        caption, scene = self._left.pop()
        buffer = BytesIO()
        Image.fromarray(draw_scene(scene, 48)).save(buffer, "PNG")
        return caption, buffer.getvalue()


class Site:
    """A web site of pages with captioned pictures. `withdrawn` is caption -> why it has to go."""

    name = "site"

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._lock = threading.Lock()
        self.pages: dict[str, list[tuple[str, str]]] = {}
        self.files: dict[str, bytes] = {}
        self.against: dict[str, tuple[int, str, dict[str, str]]] = {}
        """Page -> status, text in front of it, headers."""
        self.robots: list[str] = []
        self.withdrawn: dict[str, str] = {}
        self.replaced: dict[str, str] = {}
        self._num_pages = self.night = 0
        for _ in range(12):
            self._add_page(6)

    def _add_page(self, num_pictures: int) -> None:
        page = f"/{self._num_pages}.html"
        self._num_pages += 1
        shown = []
        for i in range(num_pictures):
            caption, data = self._pictures.draw()
            self.files[path := f"{page.removesuffix('.html')}-{i}.png"] = data
            shown.append((path, caption))
        self.pages[page] = shown

    def captions(self) -> set[str]:
        """What an honest collection of today brings. A page that fails today says nothing, so what it showed stays."""
        closed = {page for page, (status, _, _) in self.against.items() if status != 500}
        return {caption for page, shown in self.pages.items() if page not in closed for _, caption in shown}

    def change(self) -> None:
        """One day of the site: two new pages, a caption corrected, a picture replaced, one taken away, a page closed or failing."""
        with self._lock:
            self.night += 1
            for _ in range(2):
                self._add_page(4)
            open_pages = [page for page in self.pages if page not in self.against]
            first, second, third = open_pages[0], open_pages[1], open_pages[2]
            path, old = self.pages[second][0]
            caption, _ = self._pictures.draw()
            self.pages[second][0] = (path, caption)
            self.withdrawn[old] = "caption corrected"
            path, caption = self.pages[second][1]
            self.files[path] = self._pictures.draw()[1]
            self.replaced[caption] = hashlib.sha256(self.files[path]).hexdigest()
            self.withdrawn[self.pages[third].pop()[1]] = "no longer shown"
            ways = {
                "meta noai": (200, '<meta name="robots" content="noai">', {}),
                "X-Robots-Tag": (200, "", {"X-Robots-Tag": "noai, noimageai"}),
                "robots.txt": (200, "", {}),
                "404": (404, "", {}),
                "TDM reservation": (200, "", {"TDM-Reservation": "1"}),
            }
            how = list(ways)[(self.night - 1) % len(ways)]
            for page in [page for page, (status, _, _) in self.against.items() if status == 500]:  # opted out on the day it failed
                self._close(page, "meta noai after a day of 500", ways["meta noai"])
            self._close(first, how, ways[how])
            if how == "robots.txt":
                self.robots.append(first)
            self.against[open_pages[3]] = (500, "", {})

    def _close(self, page: str, how: str, answer: tuple[int, str, dict[str, str]]) -> None:
        self.against[page] = answer
        self.withdrawn |= dict.fromkeys((caption for _, caption in self.pages[page]), how)

    def settle(self) -> None:
        """No page fails any more."""
        with self._lock:
            self.against = {page: answer for page, answer in self.against.items() if answer[0] != 500}

    def answer(self, path: str) -> tuple[int, str, bytes, dict[str, str]]:
        """Status, type, body, headers."""
        with self._lock:
            if path == "/robots.txt":
                rules = "".join(f"Disallow: {page}\n" for page in self.robots)
                return 200, "text/plain", f"User-agent: *\n{rules or 'Disallow:'}\n".encode(), {}
            if path == "/":
                return 200, "text/html", "".join(f'<a href="{page}">page</a>\n' for page in self.pages).encode(), {}
            if path in self.files:
                return 200, "image/png", self.files[path], {}
            if path not in self.pages:
                return 404, "text/plain", b"", {}
            status, before, headers = self.against.get(path, (200, "", {}))
            figures = "".join(f'<img src="{picture}" alt="{caption}">\n' for picture, caption in self.pages[path])
            return status, "text/html", f"{before}{figures}".encode() if status == 200 else b"", headers

    @contextmanager
    def published(self) -> Iterator[str]:
        """Serve it; yields its address."""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, kind, body, headers = site.answer(self.path)
                etag = f'"{hash(body)}"'
                if status == 200 and self.headers.get("If-None-Match") == etag:
                    status, body = 304, b""
                self.send_response(status)
                for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), "ETag": etag, **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()


class Folder:
    """A folder of pictures with captions beside them."""

    name = "folder"

    def __init__(self, pictures: Pictures, path: Path) -> None:
        self.path = path
        self._pictures = pictures
        self.withdrawn: dict[str, str] = {}
        self.replaced: dict[str, str] = {}
        self._num = self.night = 0
        path.mkdir()
        for _ in range(48):
            self._add()

    def _add(self) -> None:
        caption, data = self._pictures.draw()
        self._write(self.path / f"{self._num:04}.txt", caption.encode())
        self._write(self.path / f"{self._num:04}.png", data)
        self._num += 1

    def _write(self, path: Path, data: bytes) -> None:
        partial = path.with_suffix(".partial")
        partial.write_bytes(data)
        partial.rename(path)

    def captions(self) -> set[str]:
        """What an honest collection of today brings."""
        return {path.with_suffix(".txt").read_text() for path in self.path.glob("*.png")}

    def change(self) -> None:
        """One day of the folder: eight new pictures, a caption corrected, a picture replaced, two deleted."""
        self.night += 1
        for _ in range(8):
            self._add()
        first, second, third, fourth = sorted(self.path.glob("*.png"))[:4]
        for path in (first, second):
            self.withdrawn[path.with_suffix(".txt").read_text()] = "deleted"
            path.unlink()
            path.with_suffix(".txt").unlink()
        caption = third.with_suffix(".txt")
        self.withdrawn[caption.read_text()] = "caption corrected"
        self._write(caption, self._pictures.draw()[0].encode())
        data = self._pictures.draw()[1]
        self._write(fourth, data)
        self.replaced[fourth.with_suffix(".txt").read_text()] = hashlib.sha256(data).hexdigest()


class Installation:
    """A Prefect server, everything deployed on it, and a worker for each pool; logs and the database lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.api = f"http://127.0.0.1:{port}/api"
        self.work_log = folder / "work.log"
        self.work_log.touch()
        counter = folder / "counter"
        counter.mkdir()
        (counter / "sitecustomize.py").write_text(COUNTER.format(watched=WATCHED, log=str(self.work_log)))
        self.environment = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_WORKER_QUERY_SECONDS": "3",
            "DALLE_HOME": str(ROOT),
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(counter), str(ROOT), str(ROOT / "datasets")]),
        }
        os.environ.update({name: self.environment[name] for name in ("PREFECT_HOME", "PREFECT_API_URL", "DO_NOT_TRACK")})
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str) -> str:
        """What a program of the checkout says. Raises `SystemExit` when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *arguments: str) -> None:
        """Leave a program of the checkout running."""
        with (self.folder / f"{arguments[1]}-{len(self._started)}.log").open("wb") as log:
            self._started.append(
                subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=self.environment, stdout=log, stderr=log)
            )

    def begin(self, schedules: dict[str, dict[str, Any]], period: timedelta) -> None:
        """Everything that README tells an operator to do, and a schedule of the collection for each source."""
        self.start("prefect", "server", "start", "--port", self.environment["PREFECT_SERVER_API_PORT"])
        if not poll(lambda: urllib.request.urlopen(f"{self.api}/health", timeout=5).status == 200, 900):
            raise SystemExit(f"no server within 15 minutes; {self.folder} has its log")
        self.run("flows.bootstrap", "cpu=2", "gpu=2")
        self.run("prefect", "--no-prompt", "deploy", "--all")
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import DeploymentScheduleCreate
        from prefect.client.schemas.schedules import IntervalSchedule

        with get_client(sync_client=True) as client:
            for link in LINKS:
                (automation,) = client.read_automations_by_name(link)
                client.resume_automation(automation.id)
            collect = client.read_deployment_by_name("collect-pairs/nightly").id
            for i, (source, parameters) in enumerate(schedules.items()):
                every = IntervalSchedule(interval=period, anchor_date=datetime.now(UTC) - period + timedelta(seconds=20 + 30 * i))
                new = DeploymentScheduleCreate(schedule=every, active=True, parameters=parameters, slug=source)
                body = [new.model_dump(mode="json", exclude_unset=True)]
                client.request("POST", "/deployments/{id}/schedules", path_params={"id": collect}, json=body)
        for pool in ("cpu", "gpu"):
            self.start("prefect", "worker", "start", "--pool", pool, "--type", "process")

    def stop_schedules(self) -> None:
        """Nothing is due any more; what runs goes on."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            client.pause_deployment(client.read_deployment_by_name("collect-pairs/nightly").id)

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs: flow, state, message, parameters, times; oldest first."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            names = {flow.id: flow.name for flow in client.read_flows()}
            found = []
            while batch := client.read_flow_runs(limit=200, offset=len(found)):
                found += batch
        return sorted(
            (
                {
                    "id": str(run.id), "flow": names[run.flow_id], "name": run.name, "state": run.state.name, "type": run.state.type.value,
                    "message": run.state.message or "", "parameters": run.parameters, "started": run.start_time,
                    "run_count": run.run_count, "seconds": run.total_run_time.total_seconds(), "is_sub": run.parent_task_run_id is not None,
                }
                for run in found
                if run.start_time is not None or run.state.type.value != "SCHEDULED"
            ),
            key=lambda run: str(run["started"] or ""),
        )  # fmt: skip

    def build_training_sets(self, overrides: dict[str, dict[str, Any]]) -> None:
        """What the next training would learn from, of each source."""
        from prefect.client.orchestration import get_client

        from dalle_model.config.settings_file import values_of

        with get_client(sync_client=True) as client:
            build = client.read_deployment_by_name("build-training-set/manual").id
            for changed in overrides.values():
                parameters = {"preset": "demo", "overrides": values_of(config_of(changed), changed)}
                client.create_flow_run_from_deployment(build, parameters=parameters)

    def is_idle(self, pause_s: float) -> bool:
        """Whether nothing runs or is about to, now and after a pause, in which an event may start something."""
        if self._is_busy():
            return False
        time.sleep(pause_s)
        return not self._is_busy()

    def _is_busy(self) -> bool:
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
        from prefect.client.schemas.objects import StateType

        alive = [StateType.PENDING, StateType.RUNNING, StateType.SCHEDULED, StateType.CANCELLING]
        with get_client(sync_client=True) as client:
            state = FlowRunFilterState(type=FlowRunFilterStateType(any_=alive))
            runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state))
        return any(not run.auto_scheduled or not run.state.is_scheduled() for run in runs)

    def end(self) -> None:
        """Workers first, so that they can say so."""
        for process in reversed(self._started):
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def poll(is_so: Any, timeout_s: float) -> bool:
    """Wait until something is so; False if it takes too long. What cannot be asked yet is not so."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if is_so():
                return True
        except OSError:
            pass
        time.sleep(2)
    return False


def settings(source: str, data_root: Path, **more: Any) -> dict[str, Any]:
    """Overrides of a source."""
    return {
        **TINY,
        "paths.data_root": str(data_root),
        "source.name": source,
        "flow.prompt_folder": f"prompts_{source}",
        "networks.retrain_growth": 0.15,
        **more,
    }


class Tables:
    """What the published catalog says as time goes by."""

    COUNTS: ClassVar = {
        "pairs of the site": "select count(*) from pairs where source = 'site'",
        "pairs of the folder": "select count(*) from pairs where source = 'folder'",
        "captions as tokens": "select count(*) from text_tokens",
        "pictures as tokens": "select sum(num_images) from image_token_shards",
        "CLIP scores": "select count(*) from clip_scores",
        "training sets": "select count(*) from training_sets",
        "runs of jobs": "select count(*) from runs",
        "networks registered": "select count(*) from network_history",
        "switches of networks": "select count(*) from network_history where became_current",
        "generated pictures": "select count(*) from generations",
        "runs of `evaluate`": "select count(*) from runs where job = 'evaluate'",
        "collections": "select count(*) from (select distinct source, collection_id from collections)",
        "candidates left out": "select count(*) from dropped_pairs",
    }

    def __init__(self, data: Path) -> None:
        from dalle_datasets.store.layout import Layout

        self.layout = Layout(data)
        self.columns: dict[str, dict[str, int]] = {}
        self.changes: dict[tuple[str, str], dict[str, int]] = {}
        """(source, collection) -> "change: outcome" -> candidates."""

    def look(self, label: str = "") -> None:
        """Note what the newest collections changed; with a label all counts, too."""
        from dalle_datasets.catalog.connection import open_published
        from dalle_datasets.catalog.queries import ask

        if not self.layout.published_catalog.exists():
            return
        with open_published(self.layout) as con:
            if label:
                self.columns[label] = {name: int(con.execute(sql).fetchone()[0] or 0) for name, sql in self.COUNTS.items()}
            newest: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
            for row in ask(con, "collection_changes", root=str(self.layout.root)):
                newest[row["source"], str(row["collection_id"])][f"{row['change']}: {row['outcome']}"] = row["num_candidates"]
        self.changes |= newest

    def select(self, table: str, source: str) -> list[str]:
        """Captions of a source in a table of the published copy."""
        from dalle_datasets.catalog.connection import open_published

        with open_published(self.layout) as con:
            return [row[0] for row in con.execute(f"select caption from {table} where source = ?", [source]).fetchall()]


def find_faults(runs: list[dict[str, Any]], sources: list[Any], tables: Tables, overrides: dict[str, dict[str, Any]]) -> list[str]:
    """What should not be, each a sentence."""
    layout, faults = tables.layout, []
    for run in runs:
        is_late = run["type"] == "CANCELLED" and "is not caught up" in run["message"]
        if run["type"] != "COMPLETED" and not is_late:
            faults.append(f"{run['flow']} {run['name']} ended as {run['state']}: {run['message'][:300]}")
    for source in sources:
        faults += [f"{source.name}: {fault}" for fault in faults_of(source, runs, tables, overrides[source.name])]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(layout.root) in command and "dalle_model.jobs" in command:
            faults.append(f"process {process.parent.name} was left behind: {command}")
    unfinished = [path.name for path in layout.runs.iterdir() if not (path / "result.json").exists()]
    return faults + [f"the run {name} has no result" for name in unfinished]


def faults_of(source: Any, runs: list[dict[str, Any]], tables: Tables, overrides: dict[str, Any]) -> list[str]:
    """What the data root holds of a source, against what the source shows."""
    from dalle_datasets.store.parquet import list_parts, read_parquet
    from dalle_datasets.store.schemas import CLIP_SCORES, IMAGE_TOKENS, IMAGES, PAIRS, TEXT_TOKENS, TRAINING_SET
    from flows.runtime.upstream import find

    layout, config, faults = tables.layout, config_of(overrides), []
    done = {run["flow"] for run in runs if source_of(run) == source.name and run["type"] == "COMPLETED"}
    faults += [f"no {flow} completed" for flow in CHAIN if flow not in done]

    def rows(folder: Path, schema: Any, names: list[str] | None = None) -> list[dict[str, Any]]:
        return [row for part in list_parts(folder) for row in read_parquet(part, schema, names).to_pylist()]

    pairs = {row["caption"]: row for row in rows(layout.pairs(source.name), PAIRS)}
    ids = {row["pair_id"] for row in pairs.values()}

    def complain(what: str, captions: set[str]) -> None:
        if captions:
            first = min(captions)
            faults.append(f"{len(captions)} {what}, e.g. {first!r} ({source.withdrawn.get(first, 'shown today')})")

    complain("pairs are in the files or in the catalog, not in both", set(pairs) ^ set(tables.select("pairs", source.name)))
    complain("captions that are shown are no pairs", source.captions() - set(pairs) - set(tables.select("dropped_pairs", source.name)))
    complain("pairs are not shown any more", set(pairs) - source.captions())
    here = {row["caption"] for row in rows(layout.images(source.name), IMAGES) if row["image"] is not None}
    complain("withdrawn pictures have bytes here", here & set(source.withdrawn))
    complain("replaced pictures are still the old ones", {
        caption for caption, digest in source.replaced.items() if caption in pairs and pairs[caption]["sha256"] != digest
    })  # fmt: skip
    made = {"text_tokens": TEXT_TOKENS, "image_tokens": IMAGE_TOKENS, "clip_scores": CLIP_SCORES}
    try:
        for kind, schema in made.items():
            parts = sorted((layout.root / find(kind, config)[kind]).glob(f"{source.name}-part-*.parquet"))
            found = {id for part in parts for id in read_parquet(part, schema, ["pair_id"])["pair_id"].to_pylist()}
            if found != ids:
                faults.append(f"{kind} of {len(found - ids)} withdrawn pairs are here, those of {len(ids - found)} pairs are not")
        training_set = find("training_set", config)["training_set"]
        chosen = {row["caption"] for row in rows(layout.root / training_set, TRAINING_SET, ["caption"])}
        complain("captions of the newest training set are no pairs", chosen - set(pairs))
    except ValueError as error:  # the chain did not come so far
        faults.append(str(error))
    if not (layout.root / overrides["flow.prompt_folder"] / "prompts.csv.pictures" / "batch.json").exists():
        faults.append("the prompt folder has no pictures")
    return faults


def config_of(overrides: dict[str, Any]) -> Any:
    """The configuration of a source."""
    from dalle_model.config.presets import preset

    return preset("demo", overrides)


def source_of(run: dict[str, Any]) -> str:
    """Name of the source that a flow run works for."""
    parameters = run["parameters"]
    if "run_dir" not in parameters:
        return str((parameters.get("overrides") or {}).get("source.name", ""))
    return str(json.loads((Path(parameters["run_dir"]) / "config.json").read_text())["config"]["source"]["name"])


def nights(runs: list[dict[str, Any]], source: Any, tables: Tables, here: Installation, overrides: dict[str, Any]) -> list[list[str]]:
    """A row for each collection of a source: what it found, and what was decoded, tokenised and scored until the next one."""
    from dalle_model.config.networks import ROLES
    from dalle_model.running.networks import history, settings_id

    mine = [run for run in runs if source_of(run) == source.name]
    starts = [run["started"] for run in mine if run["flow"] == "collect-pairs" and run["type"] == "COMPLETED"]
    night_of = {run["id"]: sum(start <= run["started"] for start in starts) - 1 for run in mine if run["started"]}
    work: dict[int, Counter[str]] = defaultdict(Counter)
    for line in here.work_log.read_text().splitlines():
        run_id, module, size = line.split()
        if run_id in night_of:
            work[night_of[run_id]][module.rpartition(".")[2]] += int(size)
    config = config_of(overrides)
    switches: dict[int, list[str]] = defaultdict(list)
    for role in ROLES:
        for known in history(tables.layout, role):
            if known.settings_id == settings_id(role, config):
                night = sum(start <= datetime.fromisoformat(known.at) for start in starts) - 1
                switches[night].append(role + ("" if known.is_current else " (not better)"))
    rows = []
    for night, start in enumerate(starts):
        done = work[night]
        rows.append([
            f"{source.name} {night + 1}", f"{start:%H:%M}",
            *(str(done[name]) for name in ("measure", "tokenize_images", "tokenize_captions", "score_pairs")),
            ", ".join(switches[night]) or "none",
        ])  # fmt: skip
    return rows


def tell(
    runs: list[dict[str, Any]],
    sources: list[Any],
    tables: Tables,
    here: Installation,
    overrides: dict[str, dict[str, Any]],
    faults: list[str],
) -> str:
    """The report, Markdown."""
    names = [*tables.columns]
    lines = [table(["", *names], [[name, *(str(tables.columns[label][name]) for label in names)] for name in Tables.COUNTS])]
    header = ["collection", "at", "decoded", "pictures tokenised", "captions tokenised", "scored", "networks trained"]
    lines.append(table(header, [row for source in sources for row in nights(runs, source, tables, here, overrides[source.name])]))
    changed = [
        [name, when, ", ".join(f"{what} {n}" for what, n in found.items()) or "nothing"]
        for (name, when), found in sorted(tables.changes.items())
    ]
    lines.append(table(["source", "collection", "changes, against the one before"], changed))
    for source in sources:
        lines.append(
            f"Withdrawn by the {source.name}: " + ", ".join(f"{why} {n}" for why, n in Counter(source.withdrawn.values()).items()) + "."
        )
    seconds: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        seconds[f"{run['flow']} {run['state']}{' (part of another)' if run['is_sub'] else ''}"].append(run["seconds"])
    lines.append(
        table(["flow", "runs", "seconds, each"], [[name, str(len(s)), f"{sum(s) / len(s):.0f}"] for name, s in sorted(seconds.items())])
    )
    lines.append("\n".join(["Faults:", *(f"- {fault}" for fault in faults)]) if faults else "No run failed, crashed or was left behind.")
    return "\n\n".join(lines) + "\n"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("soak-results"), help="folder of the report, the logs and the data root; emptied")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored, in workers too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = arguments.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    period = timedelta(minutes=max(2.0, arguments.minutes / 6))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        pictures, data = Pictures(), out / "data"
        site, folder = Site(pictures), Folder(pictures, scratch / "photos")
        address = stack.enter_context(site.published())
        overrides = {
            "site": settings("site", data, **{
                "source.kind": "web_pages", "source.start_urls": address, "download.allow_addresses": "127.0.0.1",
                "download.requests_per_s_per_host": 0, "networks.policy": "if_better", "flow.pool": "gpu",
            }),
            "folder": settings("folder", data, **{"source.kind": "image_folders", "source.inputs": str(folder.path)}),
        }  # fmt: skip
        for source in overrides:
            (data / f"prompts_{source}").mkdir(parents=True)
            (data / f"prompts_{source}" / "prompts.csv").write_text("prompt\na red apple on a blue background\ntwo cats on white\n")
        here = Installation(scratch)
        stack.callback(lambda: [shutil.copy(log, out) for log in scratch.glob("*.log")])
        stack.callback(here.end)
        schedules = {
            source: {"preset": "demo", "refresh": True, "overrides": changed} for source, changed in overrides.items()
        }  # fmt: skip
        began = time.monotonic()
        here.begin(schedules, period)
        print(
            f"the installation runs in {scratch} after {time.monotonic() - began:.0f} s; now {arguments.minutes:g} minutes alone",
            flush=True,
        )
        began, tables = time.monotonic(), Tables(data)
        for day in range(1, 10_000):
            while time.monotonic() - began < min(day * period.total_seconds(), arguments.minutes * 60):
                time.sleep(10)
                tables.look()
            if time.monotonic() - began >= arguments.minutes * 60:
                break
            if time.monotonic() - began < arguments.minutes * 60 - 2 * period.total_seconds():
                site.change()
                folder.change()
            else:
                site.settle()
            tables.look(f"{(time.monotonic() - began) / 60:.0f} min")
            runs = here.runs()
            print(
                f"{(time.monotonic() - began) / 60:4.1f} min:", dict(Counter(f"{run['flow']} {run['state']}" for run in runs)), flush=True
            )
        here.stop_schedules()
        poll(lambda: here.is_idle(30), 1_800)
        here.build_training_sets(overrides)
        poll(lambda: here.is_idle(30), 600)
        print(f"{(time.monotonic() - began) / 60:4.1f} min: idle", flush=True)
        tables.look("end")
        runs = here.runs()
        here.end()
        (out / "runs.json").write_text(json.dumps(runs, indent=1, default=str))
        shutil.copy(here.work_log, out)
        world = {
            each.name: {"captions": sorted(each.captions()), "withdrawn": each.withdrawn, "replaced": each.replaced}
            for each in (site, folder)
        }
        (out / "world.json").write_text(json.dumps(world, indent=1))
        faults = find_faults(runs, [site, folder], tables, overrides)
        report = tell(runs, [site, folder], tables, here, overrides, faults)
        (out / "report.md").write_text(report)
        print(report)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
