"""The deployed Prefect run that this process executes: not dead while it works, and not deaf to cancelling.

After an outage of its server, Prefect may take a run for dead that lives, and workers no longer pass on cancellations.
"""

import contextvars
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled, Running

POLL_S = 30.0


@contextmanager
def kept_in_touch() -> Iterator[None]:
    """Compare, during the block, what the server believes of this process's run with what is so. Without a deployment: nothing."""
    if deployment.id is None:
        yield
        return
    over = threading.Event()
    arguments = (watch, UUID(flow_run.root_flow_run_id), over)
    thread = threading.Thread(target=contextvars.copy_context().run, args=arguments, daemon=True, name="own-run")
    thread.start()
    try:
        yield
    finally:
        over.set()


def watch(run: UUID, over: threading.Event) -> None:
    """Until `over`: set the run to Running if it counts as dead or waiting; end this process (SIGTERM) if its worker did not cancel it."""
    is_second_look = False
    while not over.wait(POLL_S):
        try:
            with get_client(sync_client=True) as client:
                is_second_look = _look(client, run, is_second_look)
        except httpx.HTTPError:
            continue  # the server is away, or busy


def _look(client: SyncPrefectClient, run: UUID, is_second_look: bool) -> bool:
    """Whether the run is being cancelled, which its worker gets the time of one look to do."""
    state = client.read_flow_run(run).state
    if state is None:
        return False
    if state.is_crashed() or state.is_scheduled():
        client.set_flow_run_state(run, Running(message=f"process {os.getpid()} lives and works"), force=True)
    if state.is_cancelling() and is_second_look:
        client.set_flow_run_state(run, Cancelled(message="its process ends itself"), force=True)
        os.kill(os.getpid(), signal.SIGTERM)
    return state.is_cancelling()
