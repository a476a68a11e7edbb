"""Send a prepared job to the machines of a Prefect work pool and wait for it, as if it ran here.

Those machines run the deployment `run-job/<pool>` and nothing else. They share the data root with the flow, so the run
directory carries config and progress, result and log; and its locks say whether the job lives, even when Prefect has not heard
of it for a while. Prefect carries the start, the failure's text and the cancellation. A job of units can be sent to several
workers: it is done when one of them says so, because each returns only when all units are made.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkPoolStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling, Crashed, Running

from dalle_model.running.run_dir import JobCancelled, JobFailed, is_under_way, read_result
from flows.runtime.jobs import PROGRESS_FILE, read_progress, title_of
from flows.runtime.names import job_name
from flows.runtime.prefect_server import PrefectServerFailed, is_private
from flows.runtime.progress import Progress, Stage, note, watched

POLL_S = 2.0
LONELY_S = 15.0
"""After so long without anybody taking the job we say whom it is waiting for."""
SERVER_PATIENCE_S = 300.0
"""How long the server may be away, e.g. for a restart, while a job is under way."""
VISIBLE_WITHIN_S = 90.0
"""How long a network file system may take to show a result that another machine wrote."""

LOST_S = 60.0
"""How long nobody holds the lock of a job that was seen to hold it, and that Prefect takes for running, until it counts as dead. Prefect
itself waits for eight minutes of silence (`flows.bootstrap`)."""

WAITING = (StateType.SCHEDULED, StateType.PENDING)
ALIVE = (*WAITING, StateType.RUNNING)


def send_job(job: str, run_dir: Path, pool: str, num_processes: int = 1, num_workers: int = 1) -> dict[str, Any]:
    """The result of a prepared job, made by `num_workers` workers of the pool with `num_processes` processes each.

    Runs of the same job that are already under way count; only what is missing is started. Raises `ValueError` when the pool has no
    such deployment, `JobFailed` with the workers' own words when none of them succeeds, and `PrefectServerFailed` when the
    server stays away.
    """
    run_dir = run_dir.absolute()
    if not PREFECT_API_URL.value() or is_private(PREFECT_API_URL.value()):
        raise ValueError(
            f"flow.pool={pool} needs a Prefect server and a worker: start them (flows/README.md), set PREFECT_API_URL, "
            "or leave flow.pool empty to run the job here"
        )
    with watched(title_of(job)) as stage, get_client(sync_client=True) as client:
        known = _under_way(client, pool, run_dir)
        if known:
            note(f"{title_of(job)}: {len(known)} runs of it are under way in pool {pool}; waiting for them")
        else:
            (run_dir / PROGRESS_FILE).unlink(missing_ok=True)
        started: list[UUID] = []
        try:
            for _ in range(num_workers - len(known)):
                started.append(_start(job, run_dir, pool, num_processes))
            _wait(client, job, run_dir, pool, [*known, *started], stage)
        finally:
            # Done, failed or interrupted: nobody needs those any more that we started and that have not ended.
            _cancel(client, run_dir, started, only_waiting=read_result(run_dir) is not None)
    return _visible_result(job, run_dir, pool)


def _under_way(client: SyncPrefectClient, pool: str, run_dir: Path) -> list[UUID]:
    """Runs of this job that another flow, or an earlier one that was killed, has sent."""
    runs = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ALIVE)))),
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[pool])),
    )
    return [run.id for run in runs if run.parameters.get("run_dir") == str(run_dir)]


def _start(job: str, run_dir: Path, pool: str, num_processes: int) -> UUID:
    parameters = {"job": job, "run_dir": str(run_dir), "num_processes": num_processes}
    try:
        run = run_deployment(f"run-job/{pool}", parameters=parameters, flow_run_name=job_name(run_dir), timeout=0)
    except ObjectNotFound:
        raise ValueError(
            f"flow.pool={pool}: the Prefect server has no deployment run-job/{pool}; run `python -m flows.bootstrap` and "
            "`prefect --no-prompt deploy --all`, or correct flow.pool"
        ) from None
    assert isinstance(run, FlowRun)
    return run.id


def _wait(client: SyncPrefectClient, job: str, run_dir: Path, pool: str, runs: Sequence[UUID], stage: Stage) -> None:
    """Return when a run has completed. Raises `JobFailed` when all have ended otherwise and nobody holds the job's lock."""
    began = answered = time.monotonic()
    held_at: float | None = None  # seen here: locks of some network file systems are not
    shown: Progress | None = None
    said_lonely = said_unseen = False
    while True:
        try:
            states = [client.read_flow_run(run).state for run in runs]
            answered = time.monotonic()
        except httpx.TransportError as error:
            if time.monotonic() - answered > SERVER_PATIENCE_S:
                raise PrefectServerFailed(
                    f"no Prefect server has answered at {PREFECT_API_URL.value()} for {SERVER_PATIENCE_S:g} s ({error}); "
                    f"{job} may still be running in pool {pool}: start the server and run the same command again to wait for it"
                ) from error
            states = []
        if (progress := read_progress(run_dir)) is not None and progress != shown:
            shown = progress
            stage.advance(progress)
        if is_under_way(run_dir):
            held_at = time.monotonic()
        elif held_at is not None and time.monotonic() - held_at > LOST_S:
            held_at = None
            _declare_dead(
                client, run_dir, [run for run, state in zip(runs, states, strict=False) if state is not None and state.is_running()]
            )
        failed = [_words(job, state) for state in states if state is not None and state.is_final() and not state.is_completed()]
        if any(state is not None and state.is_completed() for state in states):
            for words in failed:
                note(f"{title_of(job)}: one of {len(runs)} workers failed ({words}); the others did its work")
            return
        if states and len(failed) == len(states):
            if any(state is not None and state.is_crashed() for state in states) and is_under_way(run_dir):
                if not said_unseen:
                    said_unseen = True
                    note(f"{title_of(job)}: Prefect takes it for dead, but it holds its lock in {run_dir}; waiting for it")
            elif read_result(run_dir) is not None:  # made while Prefect looked away
                return
            else:
                failure = JobCancelled if any(state is not None and state.is_cancelled() for state in states) else JobFailed
                raise failure(f"{job} failed in pool {pool}: {'; '.join(dict.fromkeys(failed))}")
        is_lonely = bool(states) and all(state is not None and state.type in WAITING for state in states)
        if is_lonely and not said_lonely and time.monotonic() - began > LONELY_S:
            said_lonely = True
            note(f"{title_of(job)}: {_why_waiting(client, pool)}")
        time.sleep(POLL_S)


def _declare_dead(client: SyncPrefectClient, run_dir: Path, runs: Sequence[UUID]) -> None:
    """Tell the server that runs crashed, which it does not know of a worker that was stopped; a process that lives contradicts it."""
    if read_result(run_dir) is None:
        for run in runs:
            client.set_flow_run_state(
                run, Crashed(message=f"nobody holds its lock in {run_dir}; its worker was stopped, most likely"), force=True
            )


def _words(job: str, state: State) -> str:
    """What a run said at its end, without Prefect's frame and ours."""
    message = (state.message or "").removeprefix("Flow run encountered an exception: ")
    kind, colon, rest = message.partition(": ")
    if colon and kind.isidentifier():  # the exception's class
        message = rest
    if state.is_cancelled():
        return "it was cancelled"
    return message.removeprefix(f"{job} failed: ").strip() or f"its run ended as {state.name}"


def _why_waiting(client: SyncPrefectClient, pool: str) -> str:
    try:
        status = client.read_work_pool(pool).status
    except ObjectNotFound:
        return f"there is no work pool {pool}; run `python -m flows.bootstrap`"
    if status == WorkPoolStatus.PAUSED:
        return f"work pool {pool} is paused; `prefect work-pool resume {pool}`"
    if status == WorkPoolStatus.READY:
        return f"waiting for a free worker of pool {pool}"
    return f"no worker serves pool {pool}; start one on the machine with the GPU: `prefect worker start --pool {pool}`"


def _cancel(client: SyncPrefectClient, run_dir: Path, runs: Sequence[UUID], only_waiting: bool) -> None:
    """End those of our runs that are still alive; `only_waiting` spares those that run, which see the result by themselves."""
    for run in runs:
        try:
            state = client.read_flow_run(run).state
            if state is not None and state.is_crashed() and is_under_way(run_dir):  # its worker cancels only what runs
                state = Running(message=f"it holds its lock in {run_dir}")
                client.set_flow_run_state(run, state, force=True)
            if state is not None and state.type in (WAITING if only_waiting else ALIVE):
                client.set_flow_run_state(run, Cancelling(message=f"nobody waits for it any more (process {os.getpid()})"))
        except httpx.HTTPError:  # the server is away; what runs ends by itself, and its result is kept
            return


def _visible_result(job: str, run_dir: Path, pool: str) -> dict[str, Any]:
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while (result := read_result(run_dir)) is None:
        if time.monotonic() > deadline:
            raise JobFailed(
                f"{job} ended well in pool {pool}, but {run_dir} has no result.json here; do all machines see the same data root?"
            )
        time.sleep(POLL_S)
    return result
