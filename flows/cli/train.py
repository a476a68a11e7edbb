"""`dalle train`: pictures of one's own, and a time: everything else follows from them."""

import glob
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from flows.cli.options import From, Settings, parse_settings

if TYPE_CHECKING:
    from dalle_datasets.config import SourceConfig
    from dalle_datasets.store.layout import Layout
    from dalle_model.config.tree import Config
    from dalle_model.planning import Look, Machine, Plan, Times

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Ends of an address that is a table, not a page."""
OWN_PICTURES: dict[str, Any] = {
    "filter.min_caption_words": 1,
    "filter.min_caption_letters": 1,
    "filter.languages": "",
    "filter.max_aspect_ratio": 3.0,
    "filter.fit": "pad",
    "filter.min_side": 24,
    "filter.drop_markup": False,
    "filter.near_duplicates": False,
    "filter.validation_share": 0.08,
}
"""What a collection by hand needs instead of the rules for a crawl: a person chose these pictures and wrote these captions."""
CRAWLED: dict[str, Any] = {"filter.near_duplicates": True}
"""The paper's rules are the defaults."""
MIXED: dict[str, Any] = {**OWN_PICTURES, "filter.drop_markup": True, "filter.near_duplicates": True}
"""Where pictures of one's own come together with addresses: one-word captions stay, and a picture that several places show is one."""


def train(
    source: Annotated[
        list[str],
        typer.Argument(
            help="Folders of captioned pictures, webdataset tars, tables, addresses to start from; any number of them, of any kind."
        ),
    ],
    budget: Annotated[str, typer.Option(help="How long everything may take: 90s, 20m, 1.5h, 1d.")] = "20m",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Collect, print the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Go on with few pairs.")] = False,
    begin_from: From = "",
    settings: Settings = None,
) -> None:
    """Learn from captioned pictures within a time budget, and show what came of it.

    Collects the pairs, measures this machine in seconds, chooses the size of the networks and how long each is trained, prints the plan
    with a finish time, and trains. With `--from` the sizes are those of the model that it begins from. A `--set` wins over the plan. The
    settings are kept in the data root, so `dalle generate PROMPT` draws with the result. The same command goes on where it was
    interrupted.
    """
    from dalle_datasets.store.layout import open_data_root
    from dalle_model.config.presets import preset
    from dalle_model.planning import parse_budget
    from flows.cli.demo import prefect_flows, remember_settings
    from flows.cli.run import before_start, begin
    from flows.cli.summary import print_drops, print_summary
    from flows.runtime.parameters import find_config

    budget_s, given, started = parse_budget(budget), parse_settings(settings), time.monotonic()
    root = find_config(overrides={name: value for name, value in given.items() if name == "paths.data_root"}).paths.data_root
    kept = find_config(overrides={"paths.data_root": root}).source
    chosen = {**read_source(source, kept), "paths.data_root": root, **given}
    config = preset("demo", before_start(chosen) if begin_from else chosen)
    layout = open_data_root(root)
    with prefect_flows(config) as run:
        start = begin(begin_from, config, given) if begin_from else {}
        chosen |= start
        config = preset("demo", chosen)
        collected = run("collect_pairs", config)
        print_drops(collected)
        plan_path = layout.root / "plan.json"
        overrides = read_plan(plan_path, chosen, collected["filter"]["pairs_id"], budget)
        if overrides is None:
            with asking() as ask:
                plan, look, machine = make_plan(ask, layout, config, budget_s, started, force, start)
            print_plan(plan, look, machine, time.monotonic() - started)
            overrides = dict(plan.overrides)
            keep_plan(plan_path, chosen, collected["filter"]["pairs_id"], budget, overrides)
        config = preset("demo", {**overrides, **chosen})
        remember_settings(config)
        if dry_run:
            typer.echo("nothing was trained (--dry-run); the plan is in settings.toml of the data root")
            return
        account = run("run_pipeline", config)
    print_summary(layout, account, already_done=False)
    typer.echo(f"took {time.monotonic() - started:,.0f} s of a budget of {budget_s:,.0f} s")


def read_source(sources: list[str], kept: "SourceConfig | None" = None) -> dict[str, Any]:
    """The settings `source.*` and `filter.*` for what is to be learned from.

    A source `kept` in the data root that shares a place with these keeps its name: what is no longer named is withdrawn from it.
    Raises `ValueError` for something that is not there, or is of no known kind.
    """
    kinds = {source: kind_of(source) for source in sources}
    start_urls = [source for source, kind in kinds.items() if kind == "web_pages"]
    inputs = [_place_of(source, kind) for source, kind in kinds.items() if kind != "web_pages"]
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in _short_name(sources[0])).strip("-")[:40] or "pictures"
    if kept is not None and {*start_urls, *inputs} & {*kept.start_urls, *kept.inputs}:
        name = kept.name
    kind = next(iter(kinds.values())) if len(set(kinds.values())) == 1 else "mixed"
    own = {"image_folders", "webdatasets"}.issuperset(kinds.values())
    rules = OWN_PICTURES if own else MIXED if kind == "mixed" else CRAWLED
    return {"source.kind": kind, "source.name": name, "source.start_urls": start_urls, "source.inputs": inputs, **rules}


def kind_of(source: str) -> str:
    """The `source.kind` of a folder, file or address. Raises `ValueError` when there is none."""
    from dalle_datasets.sources.documents import kind_of_document

    if _is_address(source):
        return "url_tables" if urlsplit(source).path.lower().endswith(TABLES) else "web_pages"
    path = Path(source).expanduser()
    if not path.exists():
        raise ValueError(f"{source} does not exist; give a folder of captioned pictures, a tar, a table, or an http(s) address")
    if path.is_dir():
        if (path / "settings.toml").exists() or (path / "pairs").is_dir():
            raise ValueError(
                f"{source} is a data root: `dalle run run_pipeline --set paths.data_root={source}` trains on what it collected"
            )
        names = [name for _, _, names in os.walk(path) for name in names]
        if not names:
            raise ValueError(f"{source} is empty; put captioned pictures into it: NAME.png beside NAME.txt, or a metadata.csv")
        if all(name.endswith(".tar") for name in names):
            return "webdatasets"
    return kind_of_document(path)


def _place_of(source: str, kind: str) -> str:
    """What `source.inputs` names: an address, a path, or the tars of a folder, also those to come."""
    if _is_address(source):
        return source
    path = Path(source).expanduser().resolve()
    return f"{glob.escape(str(path))}/**/*.tar" if kind == "webdatasets" and path.is_dir() else str(path)


def _is_address(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _short_name(source: str) -> str:
    if _is_address(source):
        return urlsplit(source).netloc
    return Path(source).expanduser().resolve().stem


@contextmanager
def asking() -> Iterator[Any]:
    """A child process that measures: `ask(question)` returns its answer. Raises `ValueError` with its last words when it ends."""
    command = [sys.executable, "-m", "dalle_model.measuring", str(time.time())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        stdin, stdout, stderr = child.stdin, child.stdout, child.stderr

        def ask(question: Mapping[str, Any]) -> dict[str, Any]:
            print(json.dumps(question), file=stdin, flush=True)
            answer = stdout.readline()
            if not answer:
                last = (stderr.read() if stderr else "").strip().splitlines()[-1:] or ["no last words"]
                raise ValueError(f"this machine could not be measured: {last[0]}")
            found: dict[str, Any] = json.loads(answer)
            return found

        try:
            yield ask
        finally:
            child.kill()


def make_plan(
    ask: Any, layout: "Layout", config: "Config", budget_s: float, started: float, force: bool, start: Mapping[str, Any]
) -> "tuple[Plan, Look, Machine]":
    """Look at the pairs, measure, choose."""
    from dataclasses import replace

    from dalle_model.planning import MIN_PAIRS, Look, Machine, Times, choose_plan
    from dalle_model.running.starts import find_weights
    from flows.runtime.progress import watched

    def measure(overrides: Mapping[str, Any]) -> "Times":
        return Times(**ask({"overrides": dict(overrides)}))

    vocabulary = find_weights(layout, "tokenizer", config.start.tokenizer) if config.start.tokenizer else ""
    with watched("measure this machine"):
        pairs = str(layout.pairs(config.source.name))
        seen = ask({"pairs": pairs, "tokenizer": str(layout.root / vocabulary) if vocabulary else ""})
        look, machine = Look(**seen["look"]), Machine(**seen["machine"])
        judged = replace(look, num_pairs=max(look.num_pairs, MIN_PAIRS)) if force else look
        return choose_plan(judged, machine, budget_s, measure, time.monotonic() - started, start), look, machine


def print_plan(plan: "Plan", look: "Look", machine: "Machine", spent_s: float) -> None:
    """What will be trained, and when it will be done."""
    from datetime import datetime, timedelta

    from rich.table import Table

    from dalle_model.planning import duration
    from flows.cli.output import results_console

    console = results_console()
    console.print(
        f"{look.num_pairs:,} pairs ({look.num_validation:,} kept apart), {look.num_captions:,} captions of {look.num_words:,} words, "
        f"pictures of {look.median_side} px"
    )
    where = f"{machine.num_devices} x {machine.device}" if machine.has_gpu else f"{machine.num_cores} cores"
    console.print(f"{where}: {machine.fp32_flops / 1e9:,.0f} GFLOP/s in float32, {machine.bf16_flops / 1e9:,.0f} in bf16")
    settings = plan.overrides
    console.print(
        f"size: {plan.size.name}; {plan.size.image_size} x {plan.size.image_size} pictures as {plan.size.grid} x {plan.size.grid} "
        f"tokens of {plan.size.codebook_size:,}; transformer {plan.size.num_layers} x {plan.size.d_model} "
        f"({plan.num_parameters / 1e6:.1f} million weights), {settings['train_transformer.max_steps']:,} updates, {plan.passes:.1f} passes"
    )
    table = Table("stage", "time", box=None)
    for stage, seconds in plan.stages.items():
        table.add_row(stage, duration(seconds))
    console.print(table)
    for warning in plan.warnings:
        console.print(f"[yellow]{warning}[/yellow]")
    done = datetime.now() + timedelta(seconds=plan.total_s)
    console.print(f"[bold]{duration(plan.total_s)} from now, done at {done:%H:%M} ({duration(spent_s)} are spent)[/bold]")


def read_plan(path: Path, chosen: Mapping[str, Any], pairs_id: str, budget: str) -> dict[str, Any] | None:
    """The plan of an interrupted command, so that measuring again does not change it; None for another source, pairs or budget."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    same = isinstance(kept, dict) and kept.get("of") == {"chosen": json.loads(json.dumps(chosen)), "pairs_id": pairs_id, "budget": budget}
    return dict(kept["overrides"]) if same else None


def keep_plan(path: Path, chosen: Mapping[str, Any], pairs_id: str, budget: str, overrides: Mapping[str, Any]) -> None:
    """Write the plan beside the settings."""
    from dalle_datasets.store.parquet import atomic_path

    of = {"chosen": dict(chosen), "pairs_id": pairs_id, "budget": budget}
    with atomic_path(path) as partial:
        partial.write_text(json.dumps({"of": of, "overrides": dict(overrides)}, indent=1))
