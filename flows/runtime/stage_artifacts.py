"""What Prefect's UI shows of tokens, scores and pictures that a stage made: figures, a histogram, samples."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dalle_datasets.store import schemas
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import iter_batches, read_parquet
from flows.report.figures import SMALL, as_data_url, histogram
from flows.runtime.artifacts import contact_sheet, show_page

_BARS = 40


def show_tokens(layout: Layout, made: Mapping[str, Any]) -> None:
    """How many pictures have tokens, and how often the tokens of the codebook occur."""
    occurrences = read_parquet(layout.root / made["codebook_usage"], schemas.CODEBOOK_USAGE, ["occurrences"])["occurrences"].to_numpy()
    counts, edges = np.histogram(np.log10(np.maximum(occurrences, 1)), _BARS)
    facts = {"pictures with tokens": made["num_images"], "tokens in use": made["codes_used"], "perplexity": made["perplexity"]}
    facts |= {f"left out: {reason}": number for reason, number in made.get("dropped", {}).items()}
    chart = _chart("how often tokens occur", "occurrences, powers of ten", counts, edges)
    _show("image-tokens", made, facts, [chart], "How the codebook is used")


def show_scores(layout: Layout, made: Mapping[str, Any]) -> None:
    """How well captions fit their pictures."""
    facts = {"pairs": made["num_scores"], "mean score": made["mean_score"]}
    _show("clip-scores", made, facts, [_scores(layout, made["clip_scores"], schemas.CLIP_SCORES, "clip_score")], "How well captions fit")


def show_safety(layout: Layout, made: Mapping[str, Any]) -> None:
    """How safe pictures are, by both scores."""
    names = ("nsfw_score", "watermark_score")
    facts = {"pairs": made["num_scores"], **{f"mean {name}": made[f"mean_{name}"] for name in names}}
    charts = [_scores(layout, made["safety_scores"], schemas.SAFETY_SCORES, name) for name in names]
    _show("safety-scores", made, facts, charts, "How safe pictures are")


def show_pictures(layout: Layout, made: Mapping[str, Any]) -> None:
    """The best picture of some prompts."""
    facts = {"prompts": made["num_prompts"], "pictures": made["num_images"], "pictures per second": made.get("images_per_s")}
    facts |= {f"prompts left out: {reason}": number for reason, number in made.get("dropped", {}).items()}
    sheet = f"![best picture of each prompt]({contact_sheet(layout, made['generations'])})"
    _show("pictures", made, facts, [sheet], "The best pictures of a batch")


def _scores(layout: Layout, folder: str, schema: Any, column: str) -> str:
    """The histogram of a column over all parts, whose range is found first; a bounded number of rows in memory."""

    def values() -> Iterable[Any]:
        return (batch[column].to_numpy() for batch in iter_batches(layout.root / folder, schema, [column], 65_536))

    low, high = -1.0, 1.0
    fine = sum((np.histogram(part, 100 * _BARS, (low, high))[0] for part in values()), np.zeros(100 * _BARS, int))
    seen = np.flatnonzero(fine)
    if not seen.size:
        return ""
    first, last = seen[0], seen[-1] + 1
    width = max(1, -(-(last - first) // _BARS))
    counts = [int(fine[i : i + width].sum()) for i in range(first, last, width)]
    edges = [low + (high - low) * (first + i * width) / len(fine) for i in range(len(counts) + 1)]
    return _chart(column.replace("_", " "), column, counts, edges)


def _chart(title: str, label: str, counts: Iterable[Any], edges: Any) -> str:
    bars = [(float(edges[i]), float(edges[i + 1]), float(count)) for i, count in enumerate(counts)]
    figure = histogram(title, bars, x_label=label, size=SMALL, x_text=lambda value: f"{value:.3g}")
    (svg,) = re.findall(r"<svg .*</svg>", figure, re.DOTALL)
    return f"### {title}\n\n![{title}]({as_data_url(svg)})"


def _show(key: str, made: Mapping[str, Any], facts: Mapping[str, Any], pictures: Iterable[str], description: str) -> None:
    table = ["| | |", "| --- | ---: |", *(f"| {name} | {_short(value)} |" for name, value in facts.items() if value is not None)]
    page = [f"# {made['run_id']}", "", *table, "", *(f"{picture}\n" for picture in pictures if picture)]
    show_page("\n".join(page), key=key, description=description)


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)
