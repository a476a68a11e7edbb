"""The deployments of a site: `prefect.yaml`, with the site's settings, schedules and links in the places of its defaults."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

import flows
from flows.operation.site import Site

_PACKAGED = Path(flows.__file__).with_name("prefect.yaml")  # where the wheel has it
PREFECT_FILE = _PACKAGED if _PACKAGED.exists() else Path(flows.__file__).parents[1] / "prefect.yaml"


def deployments_of(site: Site) -> dict[str, Any]:
    """The content of a site's prefect.yaml. Every deployment of a flow exists once for each source; further ones are named after it.

    Raises `ValueError` when the file is missing from this installation.
    """
    try:
        file: dict[str, Any] = yaml.safe_load(PREFECT_FILE.read_text())
    except OSError as error:
        raise ValueError(
            f"{PREFECT_FILE}: cannot be read ({error.strerror}); install open-dalle again, from its wheel or a checkout"
        ) from None
    del file["definitions"]
    file["name"] = site.name
    defaults, file["deployments"] = file["deployments"], []
    for entry in defaults:
        if "preset" not in entry.get("parameters", {}):  # single jobs, which know their settings
            file["deployments"].append(entry)
            continue
        for number in range(len(site.configs)):
            file["deployments"].append(_of_source(deepcopy(entry), site, number))
    return file


def _of_source(entry: dict[str, Any], site: Site, number: int) -> dict[str, Any]:
    preset, overrides = site.parameters[number]
    own = entry["parameters"].get("overrides", {})
    entry["parameters"] |= {"preset": preset, "overrides": {**own, **overrides}}
    flow = entry["entrypoint"].rpartition(".")[2]
    when = site.operation.schedules.named().get(flow)
    for schedule in entry.get("schedules", []):
        schedule["timezone"] = site.operation.schedules.timezone
        if when:
            schedule["active"] = when != "off"
        if when not in (None, "on", "off"):
            schedule["cron"] = when
    if number:  # a link starts the first source's deployment, with the settings of whatever announced itself
        entry["name"] += f"-{site.configs[number].source.name}"
        entry.pop("triggers", None)
    links = site.operation.links.named()
    for trigger in entry.get("triggers", []):
        trigger["enabled"] = links.get(trigger["name"].replace("-", "_"), trigger["enabled"])
    return entry
