"""What Prefect's UI shows of a finished pipeline: a page with a contact sheet, and tables. The truth stays in files and tables."""

import base64
import io
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from httpx import HTTPError
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.queries import ask
from dalle_datasets.store.layout import Layout, open_data_root
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import GENERATIONS
from dalle_model.config.tree import Config
from flows.report.agreement import agreement_table
from flows.report.by_heart import describe_memory
from flows.report.collection import CHANGES, remarks
from flows.report.collection_candidates import STAGES
from flows.report.collection_data import CollectionData
from flows.report.curves import Logged, logged_by
from flows.report.figures import as_data_url, line_svg
from flows.report.measured import figure_rows
from flows.report.training import plots_of, took
from flows.runtime.progress import note

SHEET_COLUMNS, SHEET_ROWS, SHEET_CELL = 8, 3, 64


def show_in_prefect(layout: Layout, account: Mapping[str, Any]) -> None:
    """Make the artifacts of the current flow run. An artifact is a row of Prefect's database, so the sheet is small."""
    results = account["results"]
    show_page(_page(layout, account), key="pipeline-report", description="What the pipeline made")
    show_table(drop_table(results), key="dropped-pairs", description="Candidates that were left out, by stage and reason")
    show_table(account["stage_times"], key="stage-times", description="Seconds per stage")
    if "agreement" in (evaluated := results.get("evaluate", {})):
        show_table(agreement_table(evaluated), key="agreement", description="Share of pictures with all four attributes right")
    if "headline" in evaluated:
        show_table(figure_rows(evaluated["headline"]), key="figures", description="How good the pictures are, with 95% intervals")


def show_page(markdown: str, key: str, description: str) -> None:
    """Make a page of the current run. What a flow made does not depend on it, so a server that is away costs the page only."""
    with suppress(HTTPError):
        create_markdown_artifact(markdown, key=key, description=description)


def show_table(rows: list[dict[str, Any]], key: str, description: str) -> None:
    """Make a table of the current run, as `show_page` makes a page."""
    with suppress(HTTPError):
        create_table_artifact(rows, key=key, description=description)


def raise_codebook_alarm(layout: Layout, trained: Mapping[str, Any]) -> None:
    """Say on the terminal, and as an artifact of the current run, that a dVAE's codebook has collapsed; nothing if it has not."""
    if not trained["alarm"]:
        return
    note(f"train dvae: {trained['alarm']}")
    chart = max((layout.root / trained["looks"]).glob("*-usage.png"))
    page = [f"# {trained['run_id']}", "", f"**{trained['alarm']}**", "", f"![how often each token is used]({_as_data(chart.read_bytes())})"]
    show_page("\n".join(page), key="codebook-alarm", description="The dVAE uses few of its tokens")


def show_collection(data: CollectionData, report: Path) -> None:
    """Make the artifacts of a finished collection: a page of what it brought, and two tables."""
    show_page(collection_page(data, report), key="collection-report", description="What was collected")
    show_table(_shown(data.hosts[:50]), key="collection-hosts", description="How far candidates came, by host")
    drops = [{name: value for name, value in row.items() if name != "example"} for row in data.drops]  # captions and addresses stay here
    show_table(_shown(drops), key="drop-reasons", description="Why candidates were left out, by stage")


def collection_page(data: CollectionData, report: Path) -> str:
    """Markdown: what stands out, the funnel, and what changed since the last collection."""
    notes = [f"- {_plain(note)}" for note in remarks(data)] or ["Nothing stands out."]
    funnel = ["| | left | lost |", "| --- | ---: | ---: |"]
    funnel += [f"| {STAGES[row['stage']]} | {row['num_left']:,} | {row['num_dropped']:,} |" for row in data.funnel]
    changed = ["| | source | then | now | how many |", "| --- | --- | --- | --- | ---: |"]
    changed += [
        f"| {CHANGES[row['change']]} | {_plain(row['source'])} | {_plain(row['was'] or '')} | {_plain(row['outcome'] or '')} "
        f"| {row['num_candidates']:,} |"
        for row in data.changes
    ]
    since = ["## Since the last collection", "", *changed] if data.changes else []
    return "\n".join(["# What was collected", "", *notes, "", *funnel, "", *since, "", f"Report: `{report}`."])


def _shown(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as a table artifact shows them: shares short, text of the web without markup."""
    return [
        {
            name: round(value, 3) if isinstance(value, float) else _plain(value) if isinstance(value, str) else value
            for name, value in row.items()
        }
        for row in found
    ]


def _plain(text: str) -> str:
    """Text from the web that means nothing in Markdown or HTML."""
    return re.sub(r"[^\w\s.,;:()%/'+-]", " ", text)


def show_training(config: Config, trained: Mapping[str, Any]) -> None:
    """Make the artifact of a finished training: what it took, where its losses ended, and its curves."""
    layout = open_data_root(config.paths.data_root)
    with connect(layout.catalog, config.catalog.lock_timeout_s, note, f"show {trained['run_id']}") as con:
        logged = logged_by(partial(ask, con), trained["job"], trained["run_id"])
    key = f"{trained['job'].replace('_', '-')}-curves"
    show_page(training_page(trained["run_id"], trained["job"], logged), key=key, description="How the training went")


def training_page(run_id: str, job: str, logged: Logged) -> str:
    """Markdown: a line of figures, a table of the last numbers, and a picture of every curve."""
    last: dict[str, dict[str, float]] = {}
    for (name, split), points in sorted(logged.curves.items()):
        if split != "gradients":  # as many as there are layers: they have a chart
            last.setdefault(name, {})[split] = points[-1][1]
    table = ["| at the end | training | validation |", "| --- | ---: | ---: |"]
    table += [f"| {name} | {_ended(name, ends.get('train'))} | {_ended(name, ends.get('validation'))} |" for name, ends in last.items()]
    curves = [
        f"### {plot.title}\n\n![{plot.title}]({as_data_url(line_svg(plot.title, plot.series, plot.look))})\n"
        for plot in plots_of(job, logged)
    ]
    colors = "Blue is training, orange is validation." if curves else ""
    return "\n".join([f"# {run_id}", "", took(logged), "", *table, "", colors, "", *curves])


def _ended(name: str, value: float | None) -> str:
    """A last number; losses of tokens in bits, too."""
    if value is None:
        return ""
    return f"{value:.4g} nats, {value / math.log(2):.4g} bits" if name in ("text_loss", "image_loss") else f"{value:.4g}"


def drop_table(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per stage and reason, most frequent first within a stage."""
    return [
        {"stage": stage, "reason": reason, "dropped": count}
        for stage in ("discover", "download", "filter")
        for reason, count in sorted(results[stage]["dropped"].items(), key=lambda item: (-item[1], item[0]))
    ]


def _page(layout: Layout, account: Mapping[str, Any]) -> str:
    results = account["results"]
    transformer, dvae = results["train_transformer"], results["train_dvae"]
    return "\n".join(
        [
            f"# Pipeline {account['pipeline_id']}",
            "",
            describe_memory(transformer),
            "",
            f"{results['filter']['num_pairs']:,} pairs; dVAE {dvae['psnr']:.1f} dB with {dvae['codes_used']:,.0f} codes in use.",
            "",
            f"![best picture of each prompt]({contact_sheet(layout, results['generate_images']['generations'])})",
            "",
            f"Gallery: `{layout.root / account['report']}`. Tables: `{layout.root / account['catalog']}`.",
        ]
    )


def contact_sheet(layout: Layout, generations: str) -> str:
    """The best picture of some prompts of every set as a data URL: one row of cells per set."""
    from PIL import Image

    table = read_parquet(layout.root / generations, GENERATIONS, ["prompt_set", "rank", "image_path"])
    best: dict[str, list[str]] = {}
    for row in table.to_pylist():
        if row["rank"] == 1 and len(chosen := best.setdefault(row["prompt_set"], [])) < SHEET_COLUMNS:
            chosen.append(row["image_path"])
    sheet = Image.new("RGB", (SHEET_COLUMNS * SHEET_CELL, SHEET_CELL * max(1, min(len(best), SHEET_ROWS))), "white")
    for y, paths in enumerate(list(best.values())[:SHEET_ROWS]):
        for x, path in enumerate(paths):
            with Image.open(layout.root / path) as picture:
                sheet.paste(picture.convert("RGB").resize((SHEET_CELL, SHEET_CELL)), (x * SHEET_CELL, y * SHEET_CELL))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return _as_data(file.getvalue())


def _as_data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
