"""The end of `dalle demo`: what came of it, on one screen, and what to try next."""

import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Group
from rich.panel import Panel
from rich.table import Table

from dalle_datasets.store.layout import Layout
from flows.cli.output import results_console
from flows.report.agreement import agreement_table
from flows.report.by_heart import describe_memory
from flows.report.measured import describe_figures, figure_rows


def print_summary(layout: Layout, account: Mapping[str, Any], already_done: bool) -> None:
    """Print the account of a finished pipeline on stdout."""
    console = results_console()
    results = account["results"]
    console.print()
    if already_done:
        made = f"{account['finished_at']} in {account['duration_s']:.0f} s"
        console.print(f"Everything is there already, made on {made}. Change a setting to make something new.")
    for said in describe_figures(results.get("evaluate", {}).get("headline", [])):
        console.print(said, style="bold", soft_wrap=True)
    console.print(describe_memory(results["train_transformer"]), style="bold", soft_wrap=True)
    console.print(Columns([_pairs(results), _networks(results), _stage_times(account)], padding=(0, 4)))
    if "agreement" in results.get("evaluate", {}):
        console.print("\nobject, colour, background and layout all right, the best by CLIP:")
        console.print(_agreement(results["evaluate"]))
    console.print(Panel(_next_steps(layout, account), title="what to look at", expand=False))


def print_figures(layout: Layout, evaluated: Mapping[str, Any]) -> None:
    """What an evaluation found: sentences, then its figures but for the curves, then the checker's where
    there is one."""
    from dalle_datasets.store.parquet import read_parquet
    from dalle_datasets.store.schemas import FIGURES

    console = results_console()
    if "figures" in evaluated:
        rows = read_parquet(layout.root / evaluated["figures"], FIGURES).to_pylist()
        for said in describe_figures(rows):
            console.print(said, style="bold", soft_wrap=True)
        most = max(row["best_of"] or 1 for row in rows)
        shown = figure_rows(row for row in rows if row["best_of"] in (None, 1, most) and not row["blur_radius"])
        notes = list(dict.fromkeys(row.pop("note") for row in shown))
        table = _table(*shown[0])
        for row in shown:
            table.add_row(*row.values())
        console.print(table)
        for said in filter(None, notes):
            console.print(f"- {said}", soft_wrap=True)
        console.print("all of them: dalle query evaluation")
    if "agreement" in evaluated:
        console.print("object, colour, background and layout all right, the best by CLIP:")
        console.print(_agreement(evaluated))


def print_drops(results: Mapping[str, Any]) -> None:
    """What a collection kept and dropped, why, and which setting changes it, on standard error."""
    from dalle_datasets.filters.base import REASONS

    found, kept = results["discover"]["num_candidates"], results["filter"]["num_pairs"]
    lines = [f"kept {kept:,} of {found:,} candidates" + (f" ({kept / found:.0%})" if found else "")]
    for stage in ("discover", "download", "filter"):
        for reason, count in sorted(results[stage]["dropped"].items(), key=lambda item: -item[1]):
            meaning, remedy = REASONS.get(reason, (reason.replace("_", " "), "look at report/collection.html"))
            lines.append(f"  dropped {count:,}: {meaning}; {remedy}")
    print("\n".join(lines), file=sys.stderr)


def _pairs(results: Mapping[str, Any]) -> Table:
    table = _table("pairs", "number")
    table.add_row("found", f"{results['discover']['num_candidates']:,}")
    table.add_row("downloaded", f"{results['download']['num_images']:,}")
    table.add_row("kept", f"{results['filter']['num_pairs']:,}", style="bold green")
    for stage in ("discover", "download", "filter"):
        for reason, count in sorted(results[stage]["dropped"].items(), key=lambda item: -item[1]):
            table.add_row(f"{stage} dropped: {reason.replace('_', ' ')}", f"{count:,}", style="dim")
    return table


def _networks(results: Mapping[str, Any]) -> Table:
    dvae, clip, transformer = results["train_dvae"], results["train_clip"], results["train_transformer"]
    rows = {
        "dVAE: PSNR, dB": f"{dvae['psnr']:.1f}",
        "codes in use": f"{results['tokenize_images']['codes_used']:,}",
        "codebook perplexity": f"{results['tokenize_images']['perplexity']:.0f}",
        **{f"CLIP: {name.replace('_', ' ')}": f"{value:.3f}" for name in ("loss", "batch_accuracy") if (value := clip[name]) is not None},
        "transformer: text loss": f"{transformer['text_loss']:.3f}",
        "transformer: image loss": f"{transformer['image_loss']:.3f}",
        "parameters": f"{transformer['num_parameters']:,}",
    }
    if transformer["validation_image_loss"] is not None:
        rows["… on pairs kept apart"] = f"{transformer['validation_text_loss']:.3f}, {transformer['validation_image_loss']:.3f}"
    if images_per_s := results["generate_images"].get("images_per_s"):
        rows["pictures per second"] = f"{images_per_s:.1f}"
    table = _table("networks", "figure")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _stage_times(account: Mapping[str, Any]) -> Table:
    table = _table("stage", "seconds")
    for stage, records in itertools.groupby(sorted(account["stage_times"], key=_order(account)), key=lambda record: record["stage"]):
        times = [record["duration_s"] for record in records if not record["was_skipped"]]
        table.add_row(stage, f"{sum(times):.1f}" if times else "was there")
    table.add_row("everything", f"{account['duration_s']:.0f}", style="bold")
    return table


def _order(account: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], int]:
    """Stages that come more than once (cataloguing) belong together, in the place of the first."""
    names = list(dict.fromkeys(record["stage"] for record in account["stage_times"]))
    return lambda record: names.index(record["stage"])


def _agreement(evaluated: Mapping[str, Any]) -> Table:
    rows = agreement_table(evaluated)
    table = _table(*(rows[0] if rows else ["prompts"]))
    for row in rows:
        table.add_row(*row.values())
    return table


def _next_steps(layout: Layout, account: Mapping[str, Any]) -> Group:
    root = layout.root
    return Group(
        f"gallery    {_uri(root / account['report'])}",
        f"collected  {_uri(layout.collection_report)}",
        f"tables     {root / account['catalog']}",
        "",
        'dalle generate "a blue apple on a pink background" --show',
        "dalle query --list",
        "dalle query evaluation" if "figures" in account["results"].get("evaluate", {}) else "dalle query agreement",
        f"PREFECT_HOME={root / 'prefect'} prefect server start   # every run, log and artifact in a browser",
    )


def _uri(path: Path) -> str:
    return path.resolve().as_uri()


def _table(name: str, *columns: str) -> Table:
    table = Table(name, box=None, padding=(0, 1))
    for column in columns:
        table.add_column(column, justify="right")
    return table
