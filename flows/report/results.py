"""The sections about what was made: the pictures, what reranking brings, and all candidates of a few captions."""

from collections.abc import Sequence
from html import escape

from flows.report.data import ATTRIBUTES, Candidates, Picture, PromptSet, ReportData, Row
from flows.report.elements import (
    ATTRIBUTE_NAMES,
    SETS,
    about_set,
    caption_and_score,
    card,
    dot,
    heading,
    image,
    mark,
    stack,
    table,
    two_columns,
)
from flows.report.figures import Lines, Series, line_chart

_TALL = (560, 330)


def pictures(data: ReportData) -> str:
    """The best picture of a sample of captions of every set."""
    is_judged = any(picture.is_right is not None for item in data.prompt_sets for picture in item.pictures)
    lead = (
        f"For each caption the one of {data.config.sampling.num_images} candidates that CLIP ranks first. The captions are a sample, "
        "not a choice."
        + (" A strict checker looks whether object, colour, background and layout are what the caption asks for." if is_judged else "")
    )
    return heading("Pictures", lead) + "".join(_gallery(item) for item in data.prompt_sets) if data.prompt_sets else ""


def _gallery(item: PromptSet) -> str:
    title, about, color = about_set(item.name)
    items = "".join(f"<li>{image(picture.image, picture.prompt)}{caption_and_score(picture)}</li>" for picture in item.pictures)
    return (
        f'<div class="set-head"><h3>{dot(color)}{escape(title)}</h3><p>{escape(about)}</p>{_share(item)}</div>'
        f'<ul class="gallery">{items}</ul>'
    )


def _share(item: PromptSet) -> str:
    judged = [picture for picture in item.pictures if picture.is_right is not None]
    right = f"{sum(bool(picture.is_right) for picture in judged)} of these {len(judged)} are right" if judged else ""
    return f'<span class="score">{right}<small>{len(item.pictures)} of {item.num_prompts:,} prompts shown</small></span>'


def reranking(data: ReportData) -> str:
    """How often everything is right, by the number of candidates CLIP may choose from."""
    if not data.agreement:
        return ""
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
    return heading("Does reranking help?", lead) + stack(two_columns(card(agreement), card(scores)), card(_agreement_table(found, ticks)))


def _sets_of(rows: Sequence[Row]) -> list[str]:
    names = {row["prompt_set"] for row in rows}
    return [name for name in SETS if name in names] + sorted(names - set(SETS))


def _series(name: str, rows: Sequence[Row], column: str, is_dashed: bool = False) -> Series:
    title, _, color = about_set(name)
    return Series(title, [(row["best_of"], row[column]) for row in rows], color, is_dashed)


def _agreement_table(found: dict[str, list[Row]], ticks: Sequence[int]) -> str:
    body = []
    for name, rows in found.items():
        title, _, color = about_set(name)
        shares = {row["best_of"]: row for row in rows}
        body.append([f'<th scope="row">{dot(color)}{escape(title)}</th>', *_percent(shares, ticks, "all_right")])
        body += [[ATTRIBUTE_NAMES[attribute], *_percent(shares, ticks, f"{attribute}_right")] for attribute in ATTRIBUTES]
    head = ["all four right, and each alone", *("one picture" if n == 1 else f"best of {n}" for n in ticks)]
    return table("Shares by prompt set and attribute", head, body)


def _percent(shares: dict[int, Row], ticks: Sequence[int], column: str) -> list[str]:
    return [f"{shares[n][column]:.0%}" if n in shares else "" for n in ticks]


def candidates(data: ReportData) -> str:
    """Everything that was drawn for a few captions."""
    cards = [card(_strip(item)) for item in data.candidates if item.pictures]
    lead = "Everything that was drawn for a few captions, best score first. The first is the one that is kept." + (
        " ✓ and ✗ are the checker's, which CLIP does not know."
        if any(p.is_right is not None for item in data.candidates for p in item.pictures)
        else ""
    )
    return heading("All candidates, as CLIP orders them", lead) + stack(*cards) if cards else ""


def _strip(item: Candidates) -> str:
    judged = [picture for picture in item.pictures if picture.is_right is not None]
    right = sum(bool(picture.is_right) for picture in judged)
    count = f'<span class="score">{right} of {len(judged)} right</span>' if judged else ""
    items = "".join(_strip_item(picture, is_first=i == 0) for i, picture in enumerate(item.pictures))
    head = f"<h3>{dot(about_set(item.prompt_set)[2])}{escape(item.prompt)}</h3>{count}"
    return f'<div class="strip-head">{head}</div><ul class="strip">{items}</ul>'


def _strip_item(picture: Picture, is_first: bool) -> str:
    alt = f"{picture.prompt}, candidate ranked {picture.rank}"
    return f"<li{' class=first' if is_first else ''}>{image(picture.image, alt)}{mark(picture)} {picture.clip_score:.2f}</li>"
