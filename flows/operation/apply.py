"""Bring a server up to date with a site: `python -m flows.operation.apply DEPLOYMENTS.yaml ARGUMENTS-OF-BOOTSTRAP…`.

A process of its own, because Prefect takes seconds to import, which it does while its server still starts.
"""

import sys
import time

from prefect.cli import app
from prefect.settings import PREFECT_API_URL

from flows import bootstrap
from flows.operation.server_api import ServerApi
from flows.runtime.prefect_server import START_TIMEOUT_S


def main(deployments: str, *arguments: str) -> int:
    """Wait for the server of PREFECT_API_URL, then make pools, automations and deployments. Returns the exit status."""
    server, deadline = ServerApi(str(PREFECT_API_URL.value())), time.monotonic() + START_TIMEOUT_S
    while not server.answers():
        if time.monotonic() > deadline:
            print(f"no Prefect server answers at {server.url}", file=sys.stderr)
            return 1
        time.sleep(0.2)
    try:
        bootstrap.main(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    sys.argv = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", deployments]
    try:
        app()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
