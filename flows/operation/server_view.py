"""What a Prefect server says about pools, schedules and runs, in words for a terminal."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from flows.operation.server_api import ServerApi

STALE = timedelta(minutes=3)
"""A running flow says that it lives every half minute; one that was silent for so long is stale."""
RECENT = timedelta(days=2)
"""Runs that failed longer ago are not shown."""
_MOST = 200


def pools(server: ServerApi) -> list[tuple[str, str]]:
    """(name, "2 at a time, 1 worker") of every work pool."""
    found = []
    for pool in sorted(server.post("/work_pools/filter", {}), key=lambda pool: str(pool["name"])):
        workers = server.post(f"/work_pools/{pool['name']}/workers/filter", {})
        online = sum(worker["status"] == "ONLINE" for worker in workers)
        limit = f"{pool['concurrency_limit']} at a time" if pool["concurrency_limit"] else "any number at a time"
        state = ", paused" if pool["is_paused"] else ""
        found.append((pool["name"], f"{limit}, {online or 'no'} worker{'' if online == 1 else 's'}{state}"))
    return found


def schedules(server: ServerApi) -> list[str]:
    """Every deployment whose schedule is on: when, and its next run as soon as the server has planned it."""
    body = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "sort": "EXPECTED_START_TIME_ASC", "limit": _MOST}
    planned: dict[str, str] = {}
    for run in server.post("/flow_runs/filter", body):
        if run["auto_scheduled"]:
            planned.setdefault(run["deployment_id"], f", next {_minute(run['expected_start_time'])}")
    found = []
    for deployment in server.post("/deployments/filter", {"sort": "NAME_ASC", "limit": _MOST}):
        times = [_times(schedule["schedule"]) for schedule in deployment["schedules"] if schedule["active"] and not deployment["paused"]]
        if times:
            flow = (deployment["entrypoint"] or "").rpartition(".")[2].replace("_", "-")
            found.append(f"{flow}/{deployment['name']}: {' and '.join(times)}{planned.get(deployment['id'], '')}")
    return found


def switched_on_links(server: ServerApi) -> list[str]:
    """Links of the chain that are on."""
    automations = server.post("/automations/filter", {"limit": _MOST})
    return sorted(
        found["name"] for found in automations if found["enabled"] and any(a["type"] == "run-deployment" for a in found["actions"])
    )


@dataclass(frozen=True, slots=True)
class RunView:
    """One run of Prefect's."""

    name: str
    state: str
    """running, stale, queued, failed or crashed."""
    detail: str


def runs(server: ServerApi, number: int) -> list[RunView]:
    """What runs, then what waits, then what failed lately, at most `number` of each."""
    alive = _heard_lately(server)
    flows = {flow["id"]: flow["name"] for flow in server.post("/flows/filter", {"limit": _MOST})}
    now = datetime.now(UTC)
    shown = []
    for run in _runs(server, ["RUNNING", "CANCELLING"], number, "START_TIME_DESC"):
        started = datetime.fromisoformat(run["start_time"])
        is_stale = run["deployment_id"] and run["id"] not in alive and now - started > STALE
        silent = f"; no sign of life for {STALE.seconds // 60} minutes: its process may be gone, `dalle doctor` looks" if is_stale else ""
        shown.append(RunView(_name(run, flows), "stale" if is_stale else "running", f"since {_minute(run['start_time'])}{silent}"))
    due = {"expected_start_time": {"before_": now.isoformat()}}
    for run in _runs(server, ["SCHEDULED", "PENDING"], number, "EXPECTED_START_TIME_ASC", **due):
        queue = "/".join(name for name in (run["work_pool_name"], run["work_queue_name"]) if name)
        shown.append(RunView(_name(run, flows), "queued", f"in {queue}, due {_minute(run['expected_start_time'])}"))
    for run in _runs(server, ["FAILED", "CRASHED"], number, "END_TIME_DESC", end_time={"after_": (now - RECENT).isoformat()}):
        words = " ".join((run["state"]["message"] or "").removeprefix("Flow run encountered an exception: ").split())
        shown.append(RunView(_name(run, flows), run["state_type"].lower(), f"{_minute(run['end_time'])}: {words[:300]}"))
    return shown


def _name(run: dict[str, Any], flows: dict[str, str]) -> str:
    """The run's name, which begins with its flow's once it has started; before that it is made up."""
    flow = flows.get(run["flow_id"], "")
    return run["name"] if run["name"].startswith(flow) else f"{flow} {run['name']}"


def _runs(server: ServerApi, states: list[str], number: int, sort: str, **more: Any) -> list[dict[str, Any]]:
    body = {"flow_runs": {"state": {"type": {"any_": states}}, **more}, "sort": sort, "limit": number}
    found: list[dict[str, Any]] = server.post("/flow_runs/filter", body)
    return found


def _heard_lately(server: ServerApi) -> set[str]:
    """Ids of flow runs that said lately that they live."""
    since = (datetime.now(UTC) - STALE).isoformat()
    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "occurred": {"since": since}}
    events = server.post("/events/filter", {"filter": wanted, "limit": 50})["events"]
    return {event["resource"]["prefect.resource.id"].removeprefix("prefect.flow-run.") for event in events}


def _times(schedule: dict[str, Any]) -> str:
    """`17 1 * * * UTC` or `every 60 s`."""
    if "cron" in schedule:
        return f"{schedule['cron']} {schedule.get('timezone') or 'UTC'}"
    return f"every {schedule['interval']:g} s" if "interval" in schedule else str(schedule.get("rrule"))


def _minute(time: str | None) -> str:
    return datetime.fromisoformat(time).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if time else "?"
