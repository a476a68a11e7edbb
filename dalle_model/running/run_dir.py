"""Run directories: a job reads `config.json` there and leaves artefacts and `result.json`.

A run directory's name is a fingerprint of everything that decides its result (job, the config sections
it reads, the contents of its inputs, the seed), so a job whose directory holds a `result.json` never runs twice.

    runs/<job>-<fingerprint>/
      config.json     job name, resolved config, inputs: enough to run it again
      job.json        provenance: versions, git commit, host, start time
      status          running | done | failed | crashed
      metrics.jsonl   one JSON object per logged step
      checkpoints/    step-000500/…
      result.json     written last: what was made, where, final numbers
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from dalle_datasets.config import PathsConfig
from dalle_datasets.store.identity import fingerprint, identity
from dalle_datasets.store.layout import RUN_CONFIG, RUN_RESULT, RUN_STATUS, Layout, open_data_root
from dalle_datasets.store.locks import held, is_held
from dalle_datasets.store.parquet import atomic_path
from dalle_model.config.parsing import from_dict, to_dict
from dalle_model.config.tree import Config
from dalle_model.running.networks import register
from dalle_model.running.registry import SPREAD_JOBS, find_job


class JobFailed(RuntimeError):
    """A job ended without a result; the message holds its run directory and last words."""


class JobKilled(JobFailed):
    """Signals ended all processes of the job, perhaps before its first word."""


class JobCancelled(JobFailed):
    """Somebody ended the job on purpose."""


@dataclass(frozen=True, slots=True)
class JobRun:
    """One execution of a job, as the job's `run` function sees it."""

    job: str
    config: Config
    inputs: Mapping[str, str]
    """Names to ids and to paths relative to the data root, e.g. {"pairs": "pairs/web", "pairs_id": "ab…"}."""
    run_dir: Path
    layout: Layout

    @property
    def run_id(self) -> str:
        """Name of the run directory."""
        return self.run_dir.name

    def input_path(self, name: str) -> Path:
        """Absolute path of an input. Raises `ValueError` when it is missing."""
        if name not in self.inputs:
            raise ValueError(f"{self.job}: input {name!r} is missing from {self.run_dir / 'config.json'}")
        path = self.layout.root / self.inputs[name]
        if not path.exists():
            raise ValueError(f"{self.job}: input {name} = {path} does not exist; run the stage that makes it, or correct config.json")
        return path


def run_directory(job: str, config: Config, inputs: Mapping[str, str]) -> Path:
    """Where a job with these settings and inputs runs, or ran. Nothing is created.

    The job's entry in the registry says which sections of the configuration decide its result. Raises
    `ValueError` for an unknown job.
    """
    entry = find_job(job)
    sections = {name: identity(getattr(config, name)) for name in entry.sections}
    decides = {name: value for name, value in inputs.items() if name not in entry.places}
    run_id = f"{job.replace('_', '-')}-{fingerprint(job, entry.version, config.seed, sections, decides)}"
    return Layout(Path(config.paths.data_root).expanduser()).run(run_id)


def prepare(job: str, config: Config, inputs: Mapping[str, str]) -> Path:
    """Create (or find) the run directory of a job and write its `config.json`. Returns the run directory."""
    run_dir = run_directory(job, config, inputs)
    open_data_root(config.paths.data_root)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not (run_dir / RUN_RESULT).exists():
        write_json(run_dir / RUN_CONFIG, {"job": job, "config": to_dict(config), "inputs": dict(inputs)})
    return run_dir


def open_run(job: str, run_dir: Path) -> JobRun:
    """Read a run directory.

    Raises `ValueError` when its `config.json` is missing, broken or for another job, or when torchrun started several processes and
    the job is for one.
    """
    if (size := os.environ.get("WORLD_SIZE", "1")) != "1" and find_job(job).spread == "one":
        several = ", ".join(SPREAD_JOBS)
        raise ValueError(f"{job} runs in one process, not in {size}; only {several} run in several")
    path = run_dir / RUN_CONFIG
    try:
        saved = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(
            f"{run_dir} holds no config.json; `dalle run`, `dalle prepare` and `python -m dalle_model.jobs prepare` make run directories"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if saved.get("job") != job:
        raise ValueError(f"{path} is for job {saved.get('job')!r}, not {job!r}")
    # Where the run directory lies now, not where it was prepared: the job may run in another folder or on another machine.
    layout = open_data_root(str(run_dir.absolute().parent.parent))
    config = replace(from_dict(Config, saved["config"]), paths=PathsConfig(data_root=str(layout.root)))
    return JobRun(job=job, config=config, inputs=saved["inputs"], run_dir=run_dir, layout=layout)


def execute(job: str, run_dir: Path) -> dict[str, Any]:
    """Run a job in its directory, or return the result it already has. Failures and crashes are recorded and raised again.

    Under torchrun the first process of a training writes the directory's files; the others compute, and return what they were
    told. The processes of a shared job all work, and one of them writes the result, which all return.
    """
    if (result := read_result(run_dir)) is not None:
        return result
    run = open_run(job, run_dir)
    is_shared = find_job(job).spread == "units"
    if os.environ.get("RANK", "0") != "0" and not is_shared:
        with _faults_recorded(run_dir, only_faults=True):
            made_by_others: dict[str, Any] = import_module(f"dalle_model.jobs.{job}").run(run)
            return made_by_others
    started = time.time()
    write_json(run_dir / "job.json", {"job": job, **provenance(), "started_at": started})
    _write_text(run_dir / RUN_STATUS, "running")
    with _faults_recorded(run_dir):
        module = import_module(f"dalle_model.jobs.{job}")
        if not is_shared:
            return _write_result(run, module.run(run), started)
        worked = module.work(run)
        with held(run_dir / "lock", wait=True):
            return read_result(run_dir) or _write_result(run, module.finish(run, worked), started)


@contextmanager
def _faults_recorded(run_dir: Path, only_faults: bool = False) -> Iterator[None]:
    """Write how the block ended badly: `failed` if the same again would end the same, else `crashed`, which nothing overwrites."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):  # on a full disk the error itself is worth more
            if _is_fault(error):
                _write_text(run_dir / RUN_STATUS, "failed")
            elif not only_faults and read_status(run_dir) != "failed":  # by another process, which this one lost thereby
                _write_text(run_dir / RUN_STATUS, "crashed")
        raise


def _is_fault(error: BaseException) -> bool:
    """Whether it lies in the job or its settings, not in a machine, a connection or somebody's signal."""
    is_of_the_machine = isinstance(error, ConnectionError) or type(error).__name__ == "AcceleratorError"  # torch's
    return isinstance(error, Exception) and not is_of_the_machine


def has_crashed(run_dir: Path) -> bool:
    """Whether the job was begun and ended without result or fault: killed, told to end, cut off from the others, or the GPU failed."""
    return read_status(run_dir) in ("running", "crashed") and read_result(run_dir) is None and not is_under_way(run_dir)


def read_status(run_dir: Path) -> str:
    """How a run last said it was: running, crashed, failed or done; empty before its beginning."""
    try:
        return (run_dir / RUN_STATUS).read_text()
    except OSError:
        return ""


def _write_result(run: JobRun, made: Mapping[str, Any], started: float) -> dict[str, Any]:
    result = {"job": run.job, "run_id": run.run_id, **made, "duration_s": round(time.time() - started, 3), "started_at": started}
    register(run.layout, run.job, run.config, run.inputs, run.run_id, made)
    write_json(run.run_dir / RUN_RESULT, result)
    _write_text(run.run_dir / RUN_STATUS, "done")
    return result


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """The result of a finished run, None while there is none."""
    path = run_dir / RUN_RESULT
    return json.loads(path.read_text()) if path.exists() else None


def is_under_way(run_dir: Path) -> bool:
    """Whether a process, on any machine that shares locks, runs the job or one of its units right now."""
    return is_held(run_dir / "lock") or any(map(is_held, (run_dir / "claims").glob("*")))


def provenance() -> dict[str, Any]:
    """Who made this: code version, commit, package versions, host."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    versions = {}
    for name in ("open-dalle", "torch", "tokenizers", "pyarrow", "open_clip_torch"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "git_commit": commit or None,
        "versions": versions,
        "python": platform.python_version(),
        "host": platform.node(),
        "pid": os.getpid(),
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that `path` is either complete or absent."""
    _write_text(path, json.dumps(value, indent=1, sort_keys=True))


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as partial:
        partial.write_text(text)
