"""The sections about what was made: the pictures, what reranking brings, and all candidates of a few captions."""

from collections.abc import Sequence

from markupsafe import Markup

from flows.report.data import ATTRIBUTES, NUM_OPEN, Candidates, PromptSet, ReportData, Row
from flows.report.elements import SETS, Cell, about_set
from flows.report.figures import Lines, Series, line_chart
from flows.report.templating import fill
from flows.report.verdicts import ATTRIBUTE_NAMES

_TALL = (560, 330)


def pictures(data: ReportData) -> Markup:
    """The best picture of a sample of captions of every set."""
    if not data.prompt_sets:
        return Markup()
    is_judged = any(picture.is_right is not None for item in data.prompt_sets for picture in item.pictures)
    lead = (
        f"For each caption the one of {data.config.sampling.num_images} candidates that CLIP ranks first. The captions are a sample, "
        "not a choice."
        + (" A strict checker looks whether object, colour, background and layout are what the caption asks for." if is_judged else "")
    )
    return fill("pictures.html", lead=lead, sets=[_gallery(item) for item in data.prompt_sets])


def _gallery(item: PromptSet) -> dict[str, object]:
    title, about, color = about_set(item.name)
    judged = [picture for picture in item.pictures if picture.is_right is not None]
    return {
        "title": title,
        "about": about,
        "color": color,
        "right": f"{sum(bool(picture.is_right) for picture in judged)} of these {len(judged)} are right" if judged else "",
        "count": f"{len(item.pictures)} of {item.num_prompts:,} prompts shown",
        "parts": [(start + 1, item.pictures[start : start + NUM_OPEN]) for start in range(0, len(item.pictures), NUM_OPEN)],
    }


def reranking(data: ReportData) -> Markup:
    """How often everything is right, by the number of candidates CLIP may choose from."""
    if not data.agreement:
        return Markup()
    found = {name: [row for row in data.agreement if row["prompt_set"] == name] for name in _sets_of(data.agreement)}
    ticks = sorted({row["best_of"] for row in data.agreement})
    chosen = [_series(name, rows, "all_right") for name, rows in found.items()]
    reachable = [_series(name, rows, "any_right", is_dashed=True) for name, rows in found.items()]
    agreement = line_chart(
        "All four attributes right, by number of candidates",
        [*chosen, *reachable],
        Lines("best of n by CLIP (n = 1: no reranking)", (0, 1), ticks, with_dots=True, y_text=lambda share: f"{share:.0%}", size=_TALL),
        legend=[*chosen, Series("at least one of the n is right", [], "grey", is_dashed=True)],
    )
    scores = line_chart(
        "CLIP score of the best of n",
        [_series(name, [row for row in data.best_of_n if row["prompt_set"] == name], "mean_best_clip_score") for name in found],
        Lines("candidates", y_name="cosine", size=_TALL),
    )
    lead = (
        "The share of pictures with everything right when CLIP chooses among n candidates. The dashed lines are the ceiling: "
        "a perfect judge could do no better with the same candidates. Groups of n are disjoint, so n = 1 is the plain average."
    )
    return fill(
        "charts_and_table.html",
        title="Does reranking help?",
        lead=lead,
        sentences=[],
        charts=[agreement, scores],
        caption="Shares by prompt set and attribute",
        head=["all four right, and each alone", *("one picture" if n == 1 else f"best of {n}" for n in ticks)],
        body=_agreement_rows(found, ticks),
    )


def _sets_of(rows: Sequence[Row]) -> list[str]:
    names = {row["prompt_set"] for row in rows}
    return [name for name in SETS if name in names] + sorted(names - set(SETS))


def _series(name: str, rows: Sequence[Row], column: str, is_dashed: bool = False) -> Series:
    title, _, color = about_set(name)
    return Series(title, [(row["best_of"], row[column]) for row in rows], color, is_dashed)


def _agreement_rows(found: dict[str, list[Row]], ticks: Sequence[int]) -> list[list[str | Cell]]:
    body: list[list[str | Cell]] = []
    for name, rows in found.items():
        title, _, color = about_set(name)
        shares = {row["best_of"]: row for row in rows}
        body.append([Cell(title, "heading", color), *_percent(shares, ticks, "all_right")])
        body += [[ATTRIBUTE_NAMES[attribute], *_percent(shares, ticks, f"{attribute}_right")] for attribute in ATTRIBUTES]
    return body


def _percent(shares: dict[int, Row], ticks: Sequence[int], column: str) -> list[str]:
    return [f"{shares[n][column]:.0%}" if n in shares else "" for n in ticks]


def candidates(data: ReportData) -> Markup:
    """Everything that was drawn for a few captions."""
    strips = [_strip(item) for item in data.candidates if item.pictures]
    lead = "Everything that was drawn for a few captions, best score first. The first is the one that is kept." + (
        " ✓ and ✗ are the checker's, which CLIP does not know."
        if any(p.is_right is not None for item in data.candidates for p in item.pictures)
        else ""
    )
    return fill("candidates.html", lead=lead, strips=strips) if strips else Markup()


def _strip(item: Candidates) -> dict[str, object]:
    judged = [picture for picture in item.pictures if picture.is_right is not None]
    right = f"{sum(bool(picture.is_right) for picture in judged)} of {len(judged)} right" if judged else ""
    return {"prompt": item.prompt, "color": about_set(item.prompt_set)[2], "right": right, "pictures": item.pictures}
