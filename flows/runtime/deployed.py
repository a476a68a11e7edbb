"""Deployed runs: what they announce to each other, and what becomes of those that are late or overlap.

Announcements are Prefect events `dalle.<what>.ready`; the `triggers` of `prefect.yaml` start the next flow with the same settings.
Flows that are called by another flow, or started from a terminal, announce nothing.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import ParamSpec, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import emit_event
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled

from dalle_model.config.settings_file import values_of
from flows.runtime.parameters import Setting, config_from_parameters
from flows.runtime.prefect_server import PrefectServerFailed
from flows.runtime.progress import note
from flows.runtime.upstream import NoNetworkYet

P = ParamSpec("P")
R = TypeVar("R")

TRAINING_LINK = "retrain-on-new-scores"
"""The link of the chain that trains networks."""

SKIPS_OVERLAP = "skip-overlap"
"""Tag of a deployment whose scheduled runs are skipped, instead of waiting, when another run was under way at their time."""


def announce(what: str, preset: str, overrides: Mapping[str, Setting] | None) -> None:
    """Emit `dalle.<what>.ready`, with the settings it was made with, if this is a deployed run and not part of another.

    Also when nothing had to be made: the next flow then finds that out by itself, or does what failed last night.
    """
    if is_deployed():
        # A schedule's parameters reach its flow as they were written, `"source.inputs": "/photos"` too; those of a run that an event starts
        # are checked against the schema of the deployment, which takes a list of settings only as a list.
        values = values_of(config_from_parameters(preset, overrides), overrides or {})
        payload = {"preset": preset, "overrides": values}
        emit_event(f"dalle.{what}.ready", resource={"prefect.resource.id": f"dalle.{what}.{preset}"}, payload=payload)


def leave_to_training(what: str, missing: NoNetworkYet, preset: str, overrides: Mapping[str, Setting] | None) -> None:
    """Announce `what` in the first night of an installation: `retrain_networks` then trains the first networks and does this flow's work.

    Raises `missing` when nothing would come of that: in a run by hand, or with that link of the chain switched off.
    """
    if not is_deployed():
        raise missing
    with get_client(sync_client=True) as client:
        if not any(found.enabled for found in client.read_automations_by_name(TRAINING_LINK)):
            raise missing
    note(f"{missing}; the link {TRAINING_LINK} is on, so retrain_networks trains the first ones and does this work then")
    announce(what, preset, overrides)


def is_deployed() -> bool:
    """Whether a worker runs this flow, for itself."""
    return deployment.id is not None and flow_run.parent_flow_run_id is None


class ServerLost(BaseException):
    """Prefect's server went away under a flow. Not an `Exception`, so that Prefect calls it a crash of the run."""


def crash_without_server(function: Callable[P, R]) -> Callable[P, R]:
    """Of a flow: a deployed run that ends because Prefect's server stayed away has crashed, and is started again like others that crash.

    Prefect itself would call it failed, which nobody tries again. The flow goes on where it was, since all it made is in files.
    """

    @wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return function(*arguments, **named)
        except Exception as error:
            if is_deployed() and misses_server(error):
                raise ServerLost(f"Prefect's server went away: {error}") from error
            raise

    return run


def misses_server(error: BaseException) -> bool:
    """Whether this error comes of a request that Prefect's server did not answer, and not a site or another server."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PrefectServerFailed) or (isinstance(cause, httpx.TransportError) and _is_to_server(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_to_server(error: httpx.TransportError) -> bool:
    try:
        return str(error.request.url).startswith(PREFECT_API_URL.value() or "-")
    except RuntimeError:  # it knows no request
        return False


def no_catching_up(function: Callable[P, R]) -> Callable[P, R]:
    """Of a flow: a run of a schedule does the work of all late ones, which end as Cancelled with the reason.

    Runs that were started by hand or by an event are never cancelled, and do not cancel any.
    """

    @wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        if is_deployed() and (reason := settle(UUID(flow_run.id))):
            return Cancelled(message=reason)  # type: ignore[return-value]  # Prefect takes it for the run's state
        return function(*arguments, **named)

    return run


def settle(run_id: UUID) -> str:
    """Cancel the other runs of the same schedule that are due and wait. Returns why this run itself is to be skipped, else nothing.

    The one that has started runs, not the newest: where starting takes longer than a schedule's period, there is always a newer one.
    """
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        if not run.auto_scheduled or run.expected_start_time is None:
            return ""
        others = [other for other in _due_runs(client, run) if other.id != run.id]
        met = next((other for other in others if _was_under_way(other, run.expected_start_time)), None)
        if met is not None and SKIPS_OVERLAP in run.tags:
            return f"{met.name} was under way when it was due, and this deployment skips what would overlap (tag {SKIPS_OVERLAP})"
        for other in others:
            if other.state is not None and other.state.is_scheduled() and _schedule_of(other) == _schedule_of(run):
                reason = f"{run.name}, which was late, does its work; what is late is not caught up"
                client.set_flow_run_state(other.id, Cancelled(message=reason), force=True)
    return ""


def _due_runs(client: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    """Runs of the same deployment that are due and not cancelled or failed, newest first."""
    alive = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.COMPLETED]
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id] if run.deployment_id else [])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=alive)),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),  # type: ignore[arg-type]  # Prefect's own
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=200,
    )


def _schedule_of(run: FlowRun) -> tuple[bool, object]:
    return run.auto_scheduled, run.created_by and run.created_by.id


def _was_under_way(run: FlowRun, at: datetime) -> bool:
    return run.start_time is not None and run.start_time <= at and (run.end_time is None or at <= run.end_time)
