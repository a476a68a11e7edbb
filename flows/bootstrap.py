"""What a Prefect server needs beside `prefect.yaml`, which cannot declare it: pools, queues, limits, one automation.

Run `python -m flows.bootstrap` against a running server, as often as you like, before `prefect deploy --all`.
"""

from datetime import timedelta

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.runtime.tasks import WRITER_SLOT

POOLS = {"cpu": 2, "gpu": 1}
"""Work pool -> runs at a time. One GPU run at a time: raise it to the number of GPUs."""

QUEUES: dict[str, dict[str, tuple[int, int]]] = {"cpu": {"train": (1, 1), "collect": (1, 10)}, "gpu": {}}
"""Work pool -> queue -> (runs at a time, priority; 1 goes first)."""

LIMITS = {WRITER_SLOT: 1}
"""Global concurrency limits."""

SILENCE_S = 90
"""A run whose process sends no heartbeat for three times `flows.heartbeat_frequency` is dead."""


def main() -> None:
    """Create or update everything."""
    with get_client(sync_client=True) as client:
        for pool, limit in POOLS.items():
            _make_pool(client, pool, limit)
            for queue, (queue_limit, priority) in QUEUES[pool].items():
                _make_queue(client, pool, queue, queue_limit, priority)
        for name, limit in LIMITS.items():
            client.upsert_global_concurrency_limit_by_name(name=name, limit=limit)
    _make_zombie_automation()
    print(f"pools {', '.join(POOLS)}, their queues and limits are ready; next: prefect --no-prompt deploy --all")


def _make_pool(client: SyncPrefectClient, name: str, limit: int) -> None:
    template = ProcessWorker.get_default_base_job_template()
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, concurrency_limit=limit, base_job_template=template))
    except ObjectAlreadyExists:
        client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))


def _make_queue(client: SyncPrefectClient, pool: str, name: str, limit: int, priority: int) -> None:
    try:
        client.create_work_queue(name, concurrency_limit=limit, priority=priority, work_pool_name=pool)
    except ObjectAlreadyExists:
        queue = client.read_work_queue_by_name(name, work_pool_name=pool)
        client.update_work_queue(queue.id, concurrency_limit=limit, priority=priority)


def _make_zombie_automation() -> None:
    """Without it a run whose worker was killed would stay "Running" for ever and keep its deployment's slot."""
    runs = ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]})
    automation = Automation(
        name="crash-zombies",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match=runs,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_S),
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, force=False, name="Crashed", message=f"no heartbeat for {SILENCE_S} s")],
    )
    try:
        Automation.read(name=automation.name)  # type: ignore[unused-coroutine]  # a coroutine only inside an event loop
    except (ValueError, ObjectNotFound):
        automation.create()


if __name__ == "__main__":
    main()
