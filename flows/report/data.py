"""What the report shows, read from the published catalog and the files it names. No drawing here, and no SQL: only named queries."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dalle_datasets.catalog.queries import run_query
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, open_parquet
from dalle_model.config.parsing import from_dict, to_dict
from dalle_model.config.tree import Config
from flows.report.curves import Logged, logged_by
from flows.report.downloaded import find_images
from flows.report.pictures import MAX_SIDE, Embedded, cut_sheet, embed_bytes, embed_file
from flows.report.strips import Strip, read_strips
from flows.report.verdicts import Verdict, describe_verdict

Row = dict[str, Any]

PROMPT_SET_ORDER = ("training", "unseen_scene", "held_out_pair")
"""From what was seen to what was not; a person's own sets come after."""
TRAININGS = ("train_dvae", "train_clip", "train_transformer")
ATTRIBUTES = ("object", "color", "background", "layout")
NUM_TRAINING_EXAMPLES = 16
NUM_CANDIDATE_PROMPTS = 4
MAX_CANDIDATES = 64
NUM_OPEN, FOLDED_SIDE = 96, 96
"""Pictures of a set that stand open; more are folded, as many at a time and no larger than this, so that a page of ten thousand opens
as quickly as one of a hundred."""
EXAMPLE_SIDE = 128
"""Largest side of examples that only illustrate: training pictures and dropped ones."""
SAME_WHATEVER = frozenset({"paths", "evaluate", "download", "shards", "preset", "networks"})
"""Sections that do not decide which pictures a run makes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One generated picture."""

    generation_id: str
    prompt: str
    image: Embedded | None
    clip_score: float
    rank: int
    verdict: Mapping[str, bool] | None
    """Attribute -> right, None where nobody has judged."""

    @property
    def is_right(self) -> bool | None:
        """Whether all attributes are right."""
        return None if self.verdict is None else all(self.verdict.values())

    @property
    def said(self) -> Verdict | None:
        """The verdict in words."""
        return describe_verdict(self.verdict)


@dataclass(frozen=True, slots=True)
class PromptSet:
    """A sample of the best pictures of one set of prompts."""

    name: str
    num_prompts: int
    pictures: list[Picture]


@dataclass(frozen=True, slots=True)
class Candidates:
    """All pictures made for one prompt, best first."""

    prompt: str
    prompt_set: str
    pictures: list[Picture]


@dataclass(frozen=True, slots=True)
class Example:
    """A picture from the web with what is to be said about it."""

    image: Embedded | None
    text: str
    detail: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything on the page."""

    config: Config
    run_id: str
    made_at: str
    git_commit: str
    results: dict[str, Row]
    """Job -> the result of the run behind these pictures."""
    prompt_sets: list[PromptSet]
    candidates: list[Candidates]
    agreement: list[Row]
    best_of_n: list[Row]
    figures: list[Row]
    """How good these pictures are, where somebody measured them."""
    by_settings: list[Row]
    """Agreement of all judged runs, not only of the one that is shown."""
    reconstructions: list[tuple[Embedded, Embedded]]
    strips: list[Strip]
    """What the transformer drew while it was trained."""
    logged: dict[str, Logged]
    """Job -> what it logged, of the trainings behind these pictures."""
    codebook: list[Row]
    codebook_health: Row
    funnel: list[Row]
    drops: list[Row]
    drop_examples: dict[tuple[str, str], list[Example]]
    """(stage, reason) -> examples."""
    training_examples: list[Example]
    caption_lengths: list[Row]
    clip_histogram: list[Row]
    lineage: list[Row]
    lineage_picture: Picture | None
    nearest: list[Row]
    stage_times: list[Row]
    num_pairs: int


def collect(layout: Layout, config: Config) -> ReportData:
    """Read all of it. Raises `ValueError` when the catalog holds no generated pictures, or has not been published."""
    run = newest_generation_run(rows(layout, "runs", job="generate_images"), config)
    if run is None:
        raise ValueError(
            f"{layout.published_catalog} holds no generated pictures yet; run `dalle demo` or `dalle run generate_images` first"
        )
    run_id, inputs = run["run_id"], json.loads(run["inputs"])
    makers = {row["run_id"]: row for row in rows(layout, "runs")}
    behind = [makers[row["id"]] for row in rows(layout, "ancestors", id=run_id) if row["id"] in makers]
    results = {row["job"]: json.loads(row["result"]) for row in behind}
    for job in ("tokenize_images", "score_pairs", "evaluate"):  # what is made from the same networks, beside the line of descent
        results |= {row["job"]: json.loads(row["result"]) for row in makers.values() if row["job"] == job and _belongs(row, run_id, inputs)}
    prompt_sets = list(_prompt_sets(layout, run_id, config.evaluate.num_shown))
    shown = _shown_picture(prompt_sets)
    lineage = rows(layout, "lineage", generation_id=shown.generation_id) if shown else []
    histogram_width = {"bin_width": 0.01} if _is_narrow(layout, inputs) else {}
    return ReportData(
        config=_config_of(run, config),
        run_id=run_id,
        made_at=f"{run['started_at']:%-d %B %Y, %H:%M} UTC" if run["started_at"] else "",
        git_commit=next((row["value"] or "" for row in lineage if row["fact"] == "code of the sampler"), ""),
        results=results,
        prompt_sets=prompt_sets,
        candidates=list(_candidates(layout, run_id, prompt_sets)),
        agreement=rows(layout, "agreement", run_id=run_id),
        best_of_n=rows(layout, "best_of_n", run_id=run_id),
        figures=rows(layout, "evaluation", generations_run=run_id),
        by_settings=rows(layout, "agreement_by_settings"),
        reconstructions=cut_sheet(layout.root / results.get("train_dvae", {}).get("reconstructions", "none")),
        strips=read_strips(layout.root / results.get("train_transformer", {}).get("shown", "none")),
        logged={row["job"]: logged_by(partial(rows, layout), row["job"], row["run_id"]) for row in behind if row["job"] in TRAININGS},
        codebook=rows(layout, "codebook_usage", dvae_id=inputs["dvae_id"]),
        codebook_health=next((row for row in rows(layout, "codebook_health") if row["dvae_id"] == inputs["dvae_id"]), {}),
        funnel=rows(layout, "funnel"),
        drops=rows(layout, "drop_reasons"),
        drop_examples=drop_examples(layout),
        training_examples=list(_training_examples(layout, config.source.name)),
        caption_lengths=rows(layout, "caption_lengths"),
        clip_histogram=rows(layout, "clip_score_histogram", clip_id=inputs["clip_id"], **histogram_width),
        lineage=lineage,
        lineage_picture=shown,
        nearest=rows(layout, "nearest_training_pairs", generation_id=shown.generation_id, limit=3) if shown else [],
        stage_times=rows(layout, "stage_times"),
        num_pairs=sum(row["num_pairs"] for row in rows(layout, "sources")),
    )


def rows(layout: Layout, query: str, **params: Any) -> list[Row]:
    """The rows of a named query."""
    found: list[Row] = run_query(layout, query, params).to_pylist()
    return found


def newest_generation_run(runs: list[Row], config: Config) -> Row | None:
    """The newest run with these settings; the newest of all when none has them (a person's own prompts, say)."""
    wanted = {name: value for name, value in to_dict(config).items() if name not in SAME_WHATEVER}
    with_these = [run for run in runs if {name: json.loads(run["config"]).get(name) for name in wanted} == wanted]
    found = with_these or runs
    return found[-1] if found else None


def _config_of(run: Row, config: Config) -> Config:
    """The settings the pictures were really made with; those asked for when they were written by another version of the code."""
    try:
        return from_dict(Config, json.loads(run["config"]))
    except (ValueError, TypeError):
        return config


def _belongs(row: Row, run_id: str, inputs: Mapping[str, str]) -> bool:
    """Whether a run beside the line of descent is about the same pictures or networks."""
    own = json.loads(row["inputs"])
    if row["job"] == "evaluate":
        return bool(own.get("generations_run") == run_id)
    kind = "dvae_id" if row["job"] == "tokenize_images" else "clip_id"
    return bool(own.get(kind) == inputs.get(kind))


def _prompt_sets(layout: Layout, run_id: str, num_shown: int) -> Iterator[PromptSet]:
    found = rows(layout, "prompt_sets", run_id=run_id)
    found.sort(
        key=lambda row: PROMPT_SET_ORDER.index(row["prompt_set"]) if row["prompt_set"] in PROMPT_SET_ORDER else len(PROMPT_SET_ORDER)
    )
    for row in found:
        chosen = rows(layout, "gallery", run_id=run_id, prompt_set=row["prompt_set"], limit=num_shown)
        pictures = [_picture(layout, item, MAX_SIDE if i < NUM_OPEN else FOLDED_SIDE) for i, item in enumerate(chosen)]
        yield PromptSet(row["prompt_set"], row["num_prompts"], pictures)


def _candidates(layout: Layout, run_id: str, prompt_sets: list[PromptSet]) -> Iterator[Candidates]:
    """Prompts taken from all sets in turn."""
    turns = [(item.name, item.pictures[i].prompt) for i in range(NUM_CANDIDATE_PROMPTS) for item in prompt_sets if i < len(item.pictures)]
    for prompt_set, prompt in turns[:NUM_CANDIDATE_PROMPTS]:
        found = rows(layout, "candidates", run_id=run_id, prompt=prompt)
        yield Candidates(prompt, prompt_set, [_picture(layout, {**row, "prompt": prompt}) for row in found[:MAX_CANDIDATES]])


def _picture(layout: Layout, row: Row, max_side: int = MAX_SIDE) -> Picture:
    verdict = None if row["all_right"] is None else {name: row[f"{name}_right"] for name in ATTRIBUTES}
    image = embed_file(layout.root / row["image_path"], max_side)
    return Picture(row["generation_id"], row["prompt"], image, row["clip_score"], row["rank"], verdict)


def _shown_picture(prompt_sets: list[PromptSet]) -> Picture | None:
    """The picture whose lineage is shown: one that came out right if there is one, of the hardest set that has one."""
    for wanted in (True, None, False):
        for item in reversed(prompt_sets):
            for picture in item.pictures:
                if picture.is_right is wanted:
                    return picture
    return None


def drop_examples(layout: Layout, per_reason: int = 3) -> dict[tuple[str, str], list[Example]]:
    """(stage, reason) -> a few candidates that were left out, with their pictures where there are any."""
    found = rows(layout, "drop_examples", per_reason=per_reason)
    downloaded = [row for row in found if row["stage"] in ("decode", "filter")]
    ids_of = {source: {row["candidate_id"] for row in downloaded if row["source"] == source} for source in {row["source"] for row in found}}
    images = find_images(layout, ids_of)
    examples: dict[tuple[str, str], list[Example]] = {}
    for row in found:
        content = images.get(row["candidate_id"])
        example = Example(embed_bytes(content, EXAMPLE_SIDE) if content else None, row["caption"], row["detail"], row["image_url"])
        examples.setdefault((row["stage"], row["reason"]), []).append(example)
    return examples


def _training_examples(layout: Layout, source: str) -> Iterator[Example]:
    """The first pairs of the first part."""
    for part in list_parts(layout.pairs(source))[:1]:
        with open_parquet(part) as file:
            batch = next(file.iter_batches(NUM_TRAINING_EXAMPLES, columns=["caption", "image"]), None)
            for row in batch.to_pylist() if batch else []:
                yield Example(embed_bytes(row["image"], EXAMPLE_SIDE), row["caption"])


def _is_narrow(layout: Layout, inputs: Mapping[str, str]) -> bool:
    """Whether the CLIP scores lie so close together that finer bars say more."""
    return len(rows(layout, "clip_score_histogram", clip_id=inputs["clip_id"])) < 12
