"""Orchestration. Whatever of it is imported first keeps loopback addresses away from the proxies of the environment."""

import os
from collections.abc import MutableMapping

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Add the loopback addresses to `no_proxy` where a proxy is set, for this process and its children.

    Prefect sends requests by one library and heartbeats by another, over WebSockets, that takes `https_proxy` for plain
    `ws://` too: a run would go on while its server hears nothing of it.
    """
    if not any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" and value for name, value in environment.items()):
        return
    named = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    exempt = [host.strip() for host in named.split(",") if host.strip()]
    if "*" not in exempt:
        exempt += [host for host in LOOPBACK if host not in exempt]
    for name in ("no_proxy", "NO_PROXY"):  # programs differ in which they read
        environment[name] = ",".join(exempt)


spare_loopback(os.environ)
