"""The report of what was collected: what stands out, what changed since the last time, and the sections about candidates."""

from collections.abc import Iterator

from markupsafe import Markup

from flows.report.collection_candidates import STAGES, captions, drops, duplicates, explained, funnel, hosts, images, in_words
from flows.report.collection_data import CollectionData
from flows.report.data import Row
from flows.report.elements import Cell, document
from flows.report.figures import Lines, Series, line_chart
from flows.report.templating import fill

CHANGES = {
    "new": "new pairs",
    "newly left out": "pairs of last time that are left out now",
    "recovered": "left out last time, pairs now",
    "gone": "pairs of last time that are not found any more",
    "new, left out": "found for the first time, and left out",
    "other reason": "left out for another reason than last time",
    "gone, was left out": "left out last time, not found any more",
}
"""In the order in which they matter on a Monday morning."""
MIN_CANDIDATES, LOW_SHARE, HIGH_SHARE = 20, 0.5, 0.2
"""Limits of the notes: hosts with at least this many candidates and a lower share kept, reasons with a higher share."""


def render_collection(data: CollectionData) -> str:
    """The whole page."""
    sections = {
        "Changes": changes(data),
        "Funnel": funnel(data),
        "Hosts": hosts(data),
        "Left out": drops(data),
        "Captions": captions(data),
        "Images": images(data),
        "Duplicates": duplicates(data),
        "Ask": queries(),
    }
    footer = "Made with open-dalle from the published catalog. Pictures are re-encoded; addresses are text, not links."
    return document("what was collected", _header(data), sections, footer)


def _header(data: CollectionData) -> Markup:
    found, kept = data.funnel[0]["num_left"], data.funnel[-1]["num_left"]
    num_hosts = sum(row["num_hosts"] for row in data.sources)
    names = ", ".join(row["source"] for row in data.sources)
    when = f"Last collected on {data.runs[0]['finished_at']:%-d %B %Y, %H:%M} UTC." if data.runs else ""
    notes = list(remarks(data)) or ["Nothing stands out."]
    numbers = [
        (f"{row['num_left']:,}", STAGES[row["stage"]] + (f", {row['share_left'] or 0:.1%} of all" if row["position"] else ""))
        for row in data.funnel
    ]
    title = f"{kept:,} pairs out of {found:,} found on {num_hosts:,} host{'s' if num_hosts > 1 else ''}"
    return fill("collection_header.html", title=title, lead=f"{names}. {when}", notes=notes, numbers=numbers)


def remarks(data: CollectionData) -> Iterator[str]:
    """What deserves a look, in sentences, most urgent first."""
    for kind, said in (("newly left out", "left out now"), ("gone", "not found any more")):
        rows = [row for row in data.changes if row["change"] == kind]
        if rows:
            total = sum(row["num_candidates"] for row in rows)
            mostly = f", most for {in_words(rows[0]['outcome'])}" if rows[0]["outcome"] else ""
            yield f"{total:,} pair{'s' if total > 1 else ''} of the last collection {'are' if total > 1 else 'is'} {said}{mostly}."
    for row in data.hosts:
        if row["num_found"] >= MIN_CANDIDATES and row["share_kept"] < LOW_SHARE:
            lost = f", mostly lost to {in_words(row['top_reason'])}" if row["top_reason"] else ""
            yield f"{row['host']} gave {row['num_kept']:,} pairs of {row['num_found']:,} ({row['share_kept']:.0%}){lost}."
    found = data.funnel[0]["num_left"]
    for row in data.drops:
        if row["num_dropped"] > HIGH_SHARE * found:
            remedy = explained(row["reason"])[1]
            yield f"{in_words(row['reason'])} takes {row['num_dropped'] / found:.0%} of what was found{f'; {remedy}' if remedy else ''}."
        if row["reason"] == "worker_lost":
            yield f"Addresses lost with a downloading process: {row['num_dropped']:,}; collect again to ask for them."
    newest = data.runs[0] if data.runs else None
    before = next((row for row in data.runs[1:] if newest and row["source"] == newest["source"]), None)
    if newest and before and newest["share_kept"] < before["share_kept"] - 0.05:
        yield f"{newest['source']} keeps {newest['share_kept']:.0%} of what was found; last time it was {before['share_kept']:.0%}."


def changes(data: CollectionData) -> Markup:
    """What the newest collection brought that the one before had not, and the other way round."""
    if not data.runs:
        return Markup()
    lead = "The newest collection of each source against the one before it: dalle query collection_changes, changed_candidates."
    by_source: dict[str, list[Row]] = {}
    for run in reversed(data.runs):
        by_source.setdefault(run["source"], []).append(run)
    rows = sorted(data.changes, key=lambda row: (list(CHANGES).index(row["change"]), -row["num_candidates"]))
    body = [
        [
            Cell(CHANGES[row["change"]], "bold"),
            row["source"],
            in_words(row["was"] or "not found"),
            in_words(row["outcome"] or "not found"),
            f"{row['num_candidates']:,}",
            Cell(row["example_urls"][0], "url") if row["example_urls"] else "",
        ]
        for row in rows
    ]
    otherwise, history = "This is the first collection on record; the next one will say here what changed.", Markup()
    if any(len(runs) > 1 for runs in by_source.values()):
        otherwise = "Nothing changed: the same candidates came to the same ends."
        colors = ("training", "held", "unseen", "other", "accent")
        series = [
            Series(source, [(run["number"], run["num_kept"]) for run in runs], colors[i % len(colors)])
            for i, (source, runs) in enumerate(sorted(by_source.items()))
        ]
        ticks = sorted({run["number"] for run in data.runs})
        history = line_chart(
            "Pairs kept, collection by collection",
            series,
            Lines("collection", x_ticks=ticks[-12:] if len(ticks) <= 12 else None, with_dots=True),
        )
    runs = [
        [
            f"{row['finished_at']:%-d %b %Y, %H:%M}",
            row["source"],
            f"{row['num_found']:,}",
            f"{row['num_kept']:,}",
            f"{row['share_kept']:.1%}",
        ]
        for row in data.runs[:8]
    ]
    return fill("changes.html", lead=lead, changed=body, otherwise=otherwise, history=history, runs=runs)


def queries() -> Markup:
    """First questions to ask the tables."""
    examples = [
        ("Everything that has been asked so far", "dalle query --list"),
        ("Which addresses fail that worked last time", 'dalle query changed_candidates --param change="newly left out"'),
        ("One host's funnel", "dalle query funnel --param host=example.org"),
        ("What a longer minimum length would cost", 'dalle query "select count(*) from pairs where num_caption_words < 5"'),
        ("All drops of a reason, as CSV", "dalle query \"select * from dropped_pairs where reason = 'http_4xx'\" --format csv"),
    ]
    return fill("ask.html", examples=examples)
