"""Build steps of `prefect.yaml`: what `prefect deploy` has to know about the server before it writes to it."""

from prefect.client.orchestration import get_client

from flows.cli.run import FLOWS


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
