"""Build steps of `prefect.yaml`: what `prefect deploy` has to know about the server before it writes to it."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

from flows.cli.run import FLOWS


def read_schedule_states(deployment: str, slug: str) -> dict[str, bool]:
    """`{flow: is its schedule active?}` of the deployments of that name, False where there is no such schedule yet.

    Prefect has no schedule that starts inactive and is left alone by the next deploy: `active: false` in the file switches off
    what an operator switched on. So the file takes the state from here.
    """
    states = dict.fromkeys(FLOWS, False)
    with get_client(sync_client=True) as client:
        named = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
        for found in client.read_deployments(deployment_filter=named):
            flow = found.entrypoint.rpartition(".")[2] if found.entrypoint else ""
            if flow in states:
                states[flow] = any(schedule.active for schedule in found.schedules if schedule.slug == slug)
    return states
