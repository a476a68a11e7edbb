"""Overview of a data root: the state of each stage with given settings, and the last runs."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dalle_datasets.store.layout import RUN_CONFIG, RUN_RESULT, RUN_STATUS, Layout
from dalle_model.config.networks import ROLES
from dalle_model.config.tree import Config
from dalle_model.running.networks import current
from dalle_model.running.registry import JOBS, Job
from dalle_model.running.run_dir import is_under_way, read_result, run_directory
from flows.runtime.jobs import lost_files, read_progress, title_of
from flows.runtime.upstream import find, inputs_of


@dataclass(frozen=True, slots=True)
class Status:
    """How far a stage or a run is."""

    what: str
    state: str
    """done, running, stopped, missing (can be made now) or waiting (for an earlier stage)."""
    detail: str
    """What it made, how far it is, or what to do."""


def stages(config: Config) -> Iterator[Status]:
    """The stages of the pipeline with these settings, up to the transformer."""
    try:
        pairs = find("pairs", config)
        yield Status("collect pairs", "done", f"{pairs['pairs']}, pairs {pairs['pairs_id']}")
    except ValueError as error:
        yield Status("collect pairs", "missing", str(error))
    for job, entry in ((name, entry) for name, entry in JOBS.items() if entry.is_stage):
        serving = _serving(entry, config)
        try:
            run_dir = run_directory(job, config, inputs_of(job, config))
        except ValueError:
            waits = Status(title_of(job), "waiting", f"for {' and '.join(_missing(entry.reads, config))}")
            yield Status(title_of(job), "done", serving) if serving else waits
            continue
        state, detail = state_of(run_dir)
        if state == "missing" and serving:
            state, detail = "done", serving
        result = read_result(run_dir)
        if state == "done" and result is not None:
            made = [f"{kind} {result[f'{kind}_id']}" for kind in entry.makes if f"{kind}_id" in result]
            detail = ", ".join([*made, f"run {run_dir.name}", detail])
        yield Status(title_of(job), state, detail)


def newest_runs(layout: Layout, number: int) -> list[Status]:
    """The runs that were touched last, newest first."""
    folders = sorted((path.parent for path in (layout.root / "runs").glob("*/config.json")), key=_touched, reverse=True)
    return [Status(folder.name, *state_of(folder)) for folder in folders[:number]]


def state_of(run_dir: Path) -> tuple[str, str]:
    """(state, detail) of a run directory."""
    result = read_result(run_dir)
    if result is not None:
        if lost := lost_files(Layout(run_dir.parent.parent), result):
            return "missing", f"made, but {lost[0]} is gone"
        ended = time.localtime(result["started_at"] + result["duration_s"])
        return "done", f"{time.strftime('%Y-%m-%d %H:%M', ended)}, {result['duration_s']:,.0f} s"
    progress = read_progress(run_dir)
    so_far = progress.describe() if progress else "nothing finished yet"
    if is_under_way(run_dir):
        return "running", so_far
    if not (run_dir / RUN_STATUS).exists():
        return "missing", "not begun"
    return "stopped", f"{so_far}; goes on there when it is run again{_last_words(run_dir)}"


def _serving(entry: Job, config: Config) -> str:
    """The current network of a training's role, which stands for one that was trained on the pairs of today; empty if there is none."""
    layout = Layout(Path(config.paths.data_root).expanduser())
    for role in entry.makes if config.networks.chosen_by == "registry" else ():
        if role in ROLES and (network := current(layout, role, config)) and (layout.root / network.path).exists():
            pairs = f" of {network.num_pairs:,} pairs" if network.num_pairs else ""
            return f"{role} {network.network_id} is current{pairs}, run {network.run_id}; `dalle run retrain_networks` trains anew"
    return ""


def _missing(kinds: tuple[str, ...], config: Config) -> list[str]:
    missing = []
    for kind in kinds:
        try:
            find(kind, config)
        except ValueError:
            missing.append(kind.replace("_", " "))
    return missing


def _last_words(run_dir: Path) -> str:
    """The end of the log, which says why a run stopped if it could say anything."""
    try:
        lines = [line for line in (run_dir / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f" ({lines[-1][:200]})" if lines else ""


def _touched(run_dir: Path) -> float:
    times = [path.stat().st_mtime for name in (RUN_RESULT, RUN_STATUS, RUN_CONFIG) if (path := run_dir / name).exists()]
    return max(times, default=0.0)
