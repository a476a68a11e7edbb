"""`dalle diagnose`: whether a training is normal, and what to change if not."""

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve

if TYPE_CHECKING:
    from dalle_model.diagnosis.rules import Check

STYLES = {"healthy": "green", "look": "yellow", "wrong": "bold red", "unknown": "dim"}


def diagnose(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A training, going on or done, or the beginning of its id; else all that is current."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="Compare RUN with this training of yours instead of the stored one of its size.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Judge the pairs and the current dVAE, CLIP and transformer, or one training: is this normal? Changes nothing.

    Each line says what was measured, what it was compared with (a stored healthy training of the same size, or theory), and where it is
    not healthy the likely cause and the setting that changes it. Works while a training runs, on files alone.

    Exit status 1 if something is wrong; "look" and "unknown" alone give 0.
    """
    import json
    from dataclasses import asdict

    from dalle_datasets.store.layout import find_data_root
    from dalle_model.diagnosis.examine import examine_root, examine_run

    if against is not None and run is None:
        raise ValueError("--against compares one run; name it: dalle diagnose RUN --against OTHER_RUN")
    config = resolve(preset, settings, config_file)
    layout = find_data_root(config.paths.data_root)
    checks = list(examine_root(layout, config) if run is None else examine_run(layout, run, against))
    verdict = _overall(checks)
    if as_json:
        typer.echo(json.dumps({"verdict": verdict, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        _print_checks(checks, verdict)
    if verdict == "wrong":
        raise typer.Exit(1)


def _overall(checks: "list[Check]") -> str:
    """The gravest verdict; what is unknown does not count beside what is known."""
    found = {check.verdict for check in checks}
    return next((verdict for verdict in ("wrong", "look", "healthy") if verdict in found), "unknown")


def _print_checks(checks: "list[Check]", verdict: str) -> None:
    from itertools import groupby

    from rich.text import Text

    from flows.cli.output import printable, results_console

    console = results_console()
    for subject, some in groupby(checks, key=lambda check: check.subject):
        console.print(Text(printable(subject), "bold"))
        for check in some:
            against = f"; {check.reference}" if check.reference else ""
            line = Text.assemble("  ", (f"{check.verdict:<8}", STYLES[check.verdict]), f" {check.what}: {check.measured}{against}")
            console.print(line, soft_wrap=True)
            if check.cause:
                remedy = f" -> {check.remedy}" if check.remedy else ""
                console.print(Text(f"           {check.cause}{remedy}"), soft_wrap=True)
    grave = [check.what for check in checks if check.verdict == verdict]
    said = f"{verdict}: {', '.join(dict.fromkeys(grave))}" if verdict in ("wrong", "look") else verdict
    console.print(Text(said, STYLES[verdict]), soft_wrap=True)
