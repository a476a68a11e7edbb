"""Steps of `prefect.yaml`: what `prefect deploy` has to know before it writes to the server, and what a worker does before a run."""

import os
import platform
from pathlib import Path

from prefect.client.orchestration import get_client

import flows
from flows.cli.run import FLOWS
from flows.runtime.code_version import code_version


def read_schedule_states(slug: str) -> dict[str, bool]:
    """`{flow: is its schedule of that slug active?}`, False where there is no such schedule yet.

    Prefect has no schedule that starts inactive and is left alone by the next deploy: `active: false` in the file switches off
    what an operator switched on. So the file takes the state from here.
    """
    states = dict.fromkeys(FLOWS, False)
    with get_client(sync_client=True) as client:
        for found in client.read_deployments():
            flow = found.entrypoint.rpartition(".")[2] if found.entrypoint else ""
            if flow in states:
                states[flow] |= any(schedule.active for schedule in found.schedules if schedule.slug == slug)
    return states


def read_link_states(links: list[str]) -> dict[str, bool]:
    """`{link: is its automation enabled?}` of the chain's links, False where there is no such automation yet; '_' for '-' in the keys.

    A deploy writes the automations of its triggers anew, so what an operator switched on is taken from here too.
    """
    with get_client(sync_client=True) as client:
        enabled = {found.name for found in client.read_automations() if found.enabled}
    return {link.replace("-", "_"): link in enabled for link in links}


def read_code_version() -> dict[str, str]:
    """`{"version": …}` of the code that deploys."""
    return {"version": code_version()}


def enter_checkout(version: str) -> dict[str, str]:
    """On the worker: change to `DALLE_HOME`, or to where its code lies.

    Raises `ValueError` when the worker's code is not the one that was deployed: what both make would lie side by side.
    """
    if version != (own := code_version()):
        raise ValueError(
            f"the worker on {platform.node()} has other code ({own}) than what was deployed ({version}); bring its checkout up to date, "
            "or deploy the new code: `dalle up`, or `prefect --no-prompt deploy --all`"
        )
    folder = Path(os.environ.get("DALLE_HOME") or Path(flows.__file__).parents[1])
    os.chdir(folder)
    return {"directory": str(folder)}
