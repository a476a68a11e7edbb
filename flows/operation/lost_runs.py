"""Runs whose process is gone: what Prefect itself notices after eight minutes, or never, where only this machine's workers serve a pool.

A worker that is killed between taking a run and the run's first word leaves it "Pending" for ever, in its deployment's only place.
"""

import socket
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.operation.processes import variable_of
from flows.operation.server_api import ServerApi
from flows.runtime.prefect_server import PrefectServerFailed

LOOK_EVERY_S = 15.0
SETTLED = timedelta(seconds=45)
"""A state that is younger may be ahead of its process, or behind it."""
MAX_RESTARTS = 2
"""How often a run that ended before it began goes back into its queue; `flows.bootstrap` has an automation for those that began."""
RUN_ID = "PREFECT__FLOW_RUN_ID"
"""Environment variable by which a process of Prefect's knows its run."""
_RECENT = timedelta(hours=1)
_SCHEDULED = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "its process was gone before it began; started again"}
_LOST = {
    "PENDING": _SCHEDULED,
    "RUNNING": {"type": "CRASHED", "name": "Crashed", "message": "its process is gone"},
    "CANCELLING": {"type": "CANCELLED", "name": "Cancelled", "message": "its process is gone"},
}
"""State of a run without a process -> what it becomes."""


class LostRuns:
    """Looks for lost runs; one that is seen twice in a row is settled."""

    def __init__(self, server: ServerApi) -> None:
        self._server = server
        self._seen: set[str] = set()
        self._restarts: Counter[str] = Counter()

    def look(self) -> list[str]:
        """Settle what was lost already at the last look. Returns a line for each; nothing while the server is away."""
        try:
            lost = {run["id"]: run for run in self._lost()}
            said = [self._settle(run, _LOST[run["state_type"]]) for run in lost.values() if run["id"] in self._seen]
            self._seen = set(lost)
            for run in self._never_began():
                self._restarts[run["id"]] += 1
                said.append(self._settle(run, _SCHEDULED))
            return said
        except PrefectServerFailed:
            return []

    def _lost(self) -> list[dict[str, Any]]:
        """Deployed runs that have a process, as the server believes, in a pool that only we serve, and have none."""
        ours = [pool for pool in ("cpu", "gpu") if self._serve_alone(pool)]
        living = {variable_of(int(folder.name), RUN_ID) for folder in Path("/proc").glob("[0-9]*")}
        found = self._runs({"state": {"type": {"any_": list(_LOST)}}})
        return [run for run in found if run["work_pool_name"] in ours and run["id"] not in living and _age(run) > SETTLED]

    def _never_began(self) -> list[dict[str, Any]]:
        since = (datetime.now(UTC) - _RECENT).isoformat()
        found = self._runs({"state": {"type": {"any_": ["CRASHED"]}}, "end_time": {"after_": since}})
        few = [run for run in found if run["run_count"] == 0 and self._restarts[run["id"]] < MAX_RESTARTS]
        return [run for run in few if "job" not in run["tags"]]  # the flow that sent a job sends it again

    def _runs(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        body = {"flow_runs": wanted, "limit": 200}
        return [run for run in self._server.post("/flow_runs/filter", body) if run["deployment_id"]]

    def _serve_alone(self, pool: str) -> bool:
        with suppress(PrefectServerFailed):
            workers = self._server.post(f"/work_pools/{pool}/workers/filter", {})
            names = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
            return bool(names) and all(name.startswith(f"{socket.gethostname()}-{pool}-") for name in names)
        return False

    def _settle(self, run: dict[str, Any], state: dict[str, str]) -> str:
        self._server.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})
        return f"{run['name']}: {state['message']}"


def _age(run: dict[str, Any]) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(run["state"]["timestamp"])
