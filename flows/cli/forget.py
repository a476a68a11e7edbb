"""`dalle forget`: take pictures out of everything, and keep them out."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve

if TYPE_CHECKING:
    from dalle_datasets.catalog.forget import Plan, Request
    from dalle_datasets.store.layout import Layout
    from dalle_model.config.tree import Config

Texts = list[str] | None


def forget(
    url: Annotated[Texts, typer.Option(help="The picture at this address; as every option here, may be repeated.")] = None,
    page: Annotated[Texts, typer.Option(help="All pictures of a page.")] = None,
    host: Annotated[Texts, typer.Option(help="All pictures and pages of a host, and of the hosts below it.")] = None,
    pair: Annotated[Texts, typer.Option(help="The picture of a pair, by the pair's id.")] = None,
    sha256: Annotated[Texts, typer.Option(help="The picture with this SHA-256, of its bytes or its pixels.")] = None,
    like: Annotated[Texts, typer.Option(metavar="FILE", help="Pictures that look like this file, in whatever size or format.")] = None,
    requests: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="Requests with columns kind, value and perhaps reason.")] = None,
    reason: Annotated[str, typer.Option(help="Kept with the record, e.g. the number of a letter.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what would go.")] = False,
    in_advance: Annotated[bool, typer.Option("--in-advance", help="Also keep out what was never collected.")] = False,
    more_than_half: Annotated[bool, typer.Option("--more-than-half", help="Even if most of the pairs would go.")] = False,
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Take pictures out of every file and table, keep them out of every later collection, and name the networks that saw them.

    Exact copies go, too, wherever they were found. Pictures that models drew, weights and backups stay; the record names them. Without a
    request: whatever the block list keeps out. What was interrupted is finished first.
    """
    from dalle_datasets.catalog import forget as forgetting
    from dalle_datasets.sources.blocked import pending_records
    from dalle_datasets.store.layout import find_data_root

    config = resolve(preset, settings, config_file)
    layout = find_data_root(config.paths.data_root)
    given = {"url": url, "page": page, "host": host, "pair": pair, "sha256": sha256, "like": like}
    asked: list[Request] = [forgetting.Request(kind, value, reason) for kind, values in given.items() for value in values or []]
    asked += forgetting.read_requests(requests) if requests else []
    if yes:
        for path in forgetting.finish_interrupted(layout, config.catalog.lock_timeout_s, _say):
            typer.echo(f"finished what was interrupted: {path}")
            _write_reports(layout, config)
    elif unfinished := pending_records(layout):
        typer.echo(f"the request {unfinished[0].stem} was interrupted ({unfinished[0]}); `dalle forget --yes` finishes it")
    plan = forgetting.plan_forgetting(layout, asked, in_advance)
    _print(plan)
    if plan.is_most and not more_than_half:
        raise ValueError(
            f"{len(plan.found.pair_ids):,} of {plan.num_pairs:,} pairs would go, more than half; add --more-than-half if that is meant"
        )
    if not plan.found.candidate_ids and not asked:
        typer.echo("there is nothing to forget")
    elif not plan.found.candidate_ids and not in_advance:
        typer.echo("all of that has been forgotten before, and the block list keeps it out")
    elif not yes:
        typer.echo("nothing has been changed; add --yes to forget all of this")
    else:
        path = forgetting.forget(layout, plan, config.catalog.lock_timeout_s, _say)
        _write_reports(layout, config)
        typer.echo(f"forgotten; {path} has the record, {layout.blocked} keeps it out")


def _print(plan: "Plan") -> None:
    found = plan.found
    typer.echo(f"{len(found.pair_ids):,} of {plan.num_pairs:,} pairs, {len(found.candidate_ids):,} finds, {len(found.urls):,} addresses")
    for training_set_id in plan.training_sets:
        typer.echo(f"training set {training_set_id} has some of them: they leave its files, and it keeps its id")
    for network in plan.networks:
        how = "was trained on them" if network.certainly else "was trained on pairs of their source"
        if network.began_from:
            is_copy = network.began_from == network.network_id
            how = f"is a copy of {network.kind} {network.began_from}" if is_copy else f"began from {network.began_from}, which {how}"
        name = f"{network.kind} {network.network_id}" if network.network_id else f"unfinished {network.kind}"
        typer.echo(f"{name} ({network.path}, run {network.run_id}) {how}: it stays as it is")
    for run_id in plan.drawn_for:
        typer.echo(
            f"run {run_id} drew pictures for one of their captions: its prompts and pictures stay; delete runs/{run_id} if they should not"
        )
    if any(request.kind == "host" for request in plan.requests):
        typer.echo("Prefect's artifacts of earlier collections count by host: delete those of collect-pairs in Prefect's pages")
    for backup in plan.backups:
        typer.echo(f"backup {backup['name']} in {backup['place']} was made before and is not touched: delete it there")


def _write_reports(layout: "Layout", config: "Config") -> None:
    """Make the pages again, which were deleted with the pictures in them; they may never have been there."""
    from flows.report import write_collection_report, write_report

    for write in (partial(write_report, layout, config), partial(write_collection_report, layout)):
        try:
            typer.echo(f"written again: {write()}")
        except ValueError as error:
            _say(f"not written again: {error}")


def _say(text: str) -> None:
    typer.echo(text, err=True)
