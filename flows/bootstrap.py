"""What a Prefect server needs beside `prefect.yaml`, which cannot declare it: pools, queues, limits, automations.

Run `python -m flows.bootstrap` against a running server, as often as you like, before `prefect deploy --all`;
`python -m flows.bootstrap gpu=4` lets the pool `gpu` run four jobs at a time, and `notify=slack-webhook/night` sends failures to the
notification block `night` of that type (`prefect block ls`).
"""

import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID

import httpx
from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import PREFECT_API_URL
from prefect.workers.process import ProcessWorker

from flows.runtime.tasks import WRITER_SLOT

POOLS = {"cpu": 2, "gpu": 1}
"""Work pool -> runs at a time when it is new. For several machines with a GPU, say how many: `python -m flows.bootstrap gpu=4`."""

QUEUES: dict[str, dict[str, tuple[int, int]]] = {"cpu": {"train": (1, 1), "collect": (1, 10)}, "gpu": {}}
"""Work pool -> queue -> (runs at a time, priority; 1 goes first)."""

LIMITS = {WRITER_SLOT: 1}
"""Global concurrency limits."""

SILENCE_S = 480
"""A run whose process sends no heartbeat for so long is taken for dead: a server may be away for five minutes, and start for one.
A worker that lives reports the death of its runs at once; this is for machines that die."""

MAX_RESTARTS = 2
"""How often a run that crashed is started again by itself."""

FLOW_TAGS = [f"prefect.tag.{tag}" for tag in ("data", "train", "generate")]
"""Tags of all deployments but those of single jobs, for which the flow speaks that sent them."""

NOTIFY = "notify="
"""Argument that says where failures are sent."""


def main(arguments: Sequence[str] = ()) -> None:
    """Create or update everything; `arguments` are new limits, e.g. `gpu=4`, and the block for notifications, e.g.
    `notify=slack-webhook/night`. Raises `ValueError` for one that makes no sense.
    """
    blocks = [text.removeprefix(NOTIFY) for text in arguments if text.startswith(NOTIFY)]
    limits = parse_limits([text for text in arguments if not text.startswith(NOTIFY)])
    with get_client(sync_client=True) as client:
        block_ids = [find_notification_block(client, block) for block in blocks]
        for pool in POOLS:
            _make_pool(client, pool, limits.get(pool))
            for queue, (queue_limit, priority) in QUEUES[pool].items():
                _make_queue(client, pool, queue, queue_limit, priority)
        for name, limit in LIMITS.items():
            client.upsert_global_concurrency_limit_by_name(name=name, limit=limit)
    _make_zombie_automation()
    _make_restart_automation()
    for block_id in block_ids:
        _make_notification_automation(block_id)
    print(f"pools {', '.join(POOLS)}, their queues and limits are ready; next: prefect --no-prompt deploy --all")


def parse_limits(arguments: Sequence[str]) -> dict[str, int]:
    """`["gpu=4"]` as `{"gpu": 4}`."""
    limits = {}
    for text in arguments:
        pool, _, number = text.partition("=")
        if pool not in POOLS or not number.isdigit() or int(number) < 1:
            raise ValueError(f"{text}: say POOL=NUMBER, e.g. gpu=4; the pools are {', '.join(POOLS)}")
        limits[pool] = int(number)
    return limits


def _make_pool(client: SyncPrefectClient, name: str, limit: int | None) -> None:
    """A pool that exists keeps its limit unless there is a new one."""
    template = ProcessWorker.get_default_base_job_template()
    new = WorkPoolCreate(name=name, type=ProcessWorker.type, concurrency_limit=limit or POOLS[name], base_job_template=template)
    try:
        client.create_work_pool(new)
    except ObjectAlreadyExists:
        if limit is not None:
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
    zombies = Automation(
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
    _save(zombies)


def _make_restart_automation() -> None:
    """A run whose process was killed, or whose worker was stopped, goes back into its queue; every flow continues where it was.

    Not those that somebody started without a deployment, which no worker would take, nor single jobs, which the flow that sent them
    sends again (`flows.runtime.run`).
    """
    restarts = Automation(
        name="restart-crashed",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match=ResourceSpecification(
                {"prefect.resource.id": "prefect.flow-run.*", "prefect.run-count": [str(i + 1) for i in range(MAX_RESTARTS)]}
            ),
            match_related=ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": FLOW_TAGS}),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[ChangeFlowRunState(state=StateType.SCHEDULED, force=False, name="AwaitingRetry", message="started again after a crash")],
    )
    _save(restarts)


def find_notification_block(client: SyncPrefectClient, name: str) -> UUID:
    """The id of `TYPE/NAME`. Raises `ValueError` when the server has no such block."""
    kind, _, block = name.partition("/")
    try:
        return client.read_block_document_by_name(block, kind).id
    except (ObjectNotFound, httpx.HTTPStatusError):
        raise ValueError(
            f"{NOTIFY}{name}: the Prefect server has no such notification block; say TYPE/NAME as `prefect block ls` does, e.g. "
            f"{NOTIFY}slack-webhook/night, or make one in its user interface (Blocks)"
        ) from None


def _make_notification_automation(block_id: UUID) -> None:
    """Every deployed run that fails or crashes is told to somebody."""
    notification = SendNotification(
        block_document_id=block_id,
        subject="{{ flow.name }} {{ flow_run.state.name }}",
        body="{{ flow.name }}, run {{ flow_run.name }}: {{ flow_run.state.name }}. {{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
    )
    trigger = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": FLOW_TAGS}),
        posture=Posture.Reactive,
        threshold=1,
    )
    _save(Automation(name="notify-failures", trigger=trigger, actions=[notification]))


def _save(automation: Automation) -> None:
    """Create it, or bring the one of that name up to date; on or off stays as its operator left it."""
    try:
        found = cast(Automation, Automation.read(name=automation.name))  # a coroutine only inside an event loop
    except (ValueError, ObjectNotFound):
        automation.create()
        return
    automation.id, automation.enabled = found.id, found.enabled
    automation.update()


def _run() -> int:
    """`main` for a terminal: errors are a sentence."""
    if not PREFECT_API_URL.value():
        print("bootstrap: say which Prefect server: export PREFECT_API_URL=http://127.0.0.1:4200/api", file=sys.stderr)
        return 2
    try:
        main(sys.argv[1:])
    except ValueError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, httpx.TransportError) as error:  # Prefect's own complaint that nobody answers
        where = f"no Prefect server answers at {PREFECT_API_URL.value()} ({error})"
        print(f"bootstrap: {where}; start it with `prefect server start`, or correct PREFECT_API_URL", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_run())
