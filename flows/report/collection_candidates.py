"""The sections about candidates: how far they came, why they were lost, and what they look like."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from dalle_datasets.filters.base import REASONS
from dalle_datasets.web.failures import FAILURES
from flows.report.collection_data import Cluster, CollectionData
from flows.report.data import Example, Row
from flows.report.elements import Cell
from flows.report.figures import histogram, horizontal_bars
from flows.report.templating import fill

STAGES = {"found": "found", "discover": "candidates", "download": "downloaded", "decode": "decoded", "filter": "kept"}
"""What is left after each stage."""
NUM_HOSTS, NUM_LANGUAGES = 20, 12
DISCOVERY = {
    "no_caption": "an image about which the page says nothing",
    "duplicate_candidate": "the same address with the same caption, found once more",
    "no_longer_shown": "its page or folder does not show it any more",
    "caption_changed": "the same picture has another caption there now",
    "page_gone": "its page has been taken down",
    "not_in_source": "its page or file is not among those of the source any more",
    "meta_robots": "the page asks not to be used, in its head",
    "not_html": "a page that is no page",
    "broken_line": "a line of a table that cannot be read",
    "broken_text": "a caption that was written in another encoding than its page or file says",
    "unread_format": "a picture in a format that is not read; convert it to PNG",
    "skipped_records": "records of an archive that hold no page, counted by what they are",
    "no_picture": "a caption file without a picture beside it",
}
"""Codes that only discovery gives."""


def funnel(data: CollectionData) -> Markup:
    """How many candidates are left after each stage, altogether and by source."""
    bars = [
        (
            STAGES[row["stage"]],
            float(row["num_left"]),
            f"{row['num_left']:,}" + (f"  −{row['num_dropped']:,}" if row["num_dropped"] else ""),
        )
        for row in data.funnel
    ]
    body = [[Cell(row["source"], "heading"), f"{row['num_hosts']:,}", *_counts(row)] for row in data.sources]
    head = ["source", "hosts", "found", "candidates", "downloaded", "decoded", "kept", "share"]
    lead = "Everything that pages showed, stage by stage; what is lost is lost for a reason below. To the row: dalle query funnel."
    return fill("funnel.html", lead=lead, bars=horizontal_bars("Left after each stage", bars, "unseen"), head=head, body=body)


def hosts(data: CollectionData) -> Markup:
    """The largest hosts with their losses, and every way of not delivering an image."""
    body = [
        [
            Cell(row["host"], "heading"), *_counts(row),
            f"{in_words(row['top_reason'])} ({row['num_top_reason']:,})" if row["top_reason"] else "",
        ]
        for row in data.hosts[:NUM_HOSTS]
    ]  # fmt: skip
    head = ["host", "found", "candidates", "downloaded", "decoded", "kept", "share", "lost most to"]
    failures = [
        [
            Cell(row["host"], "heading"),
            Cell(row["reason"], "code"),
            explained(row["reason"])[0],
            "yes" if row["reason"] in FAILURES and FAILURES[row["reason"]].retryable else "no",
            f"{row['num_failed']:,}",
            f"{row['share_of_host']:.1%}",
            Cell(row["example_url"], "url"),
        ]
        for row in data.failures
    ]
    codes = ["host", "code", "what it means", "asked again", "images", "of the host", "for example"]
    lead = "Hosts by what was found on them, and how they failed to deliver: dalle query funnel_by_host, download_failures."
    rest = data.hosts[NUM_HOSTS:]
    more = f"And {len(rest):,} hosts with {sum(row['num_found'] for row in rest):,} candidates." if rest else ""
    return fill("hosts.html", lead=lead, head=head, body=body, more=more, codes=codes, failures=failures)


def drops(data: CollectionData) -> Markup:
    """Every reason with its meaning, its remedy, and pictures it took."""
    total = sum(row["num_dropped"] for row in data.drops)
    lead = (
        f"{total:,} candidates did not become pairs. The reasons, most frequent first, with what was dropped: "
        "dalle query drop_reasons, collection_reasons, drop_examples."
    )
    more: dict[tuple[str, str], int] = {}
    for row in data.reasons:
        key = row["stage"], row["reason"]
        more[key] = more.get(key, 0) + (row["difference"] or 0)
    reasons = [
        _reason(row, data.drop_examples.get((row["stage"], row["reason"]), []), more.get((row["stage"], row["reason"]), 0))
        for row in data.drops
    ]
    return fill("drops.html", title="What was left out, and why", lead=lead, reasons=reasons) if reasons else Markup()


def _reason(row: Row, examples: Sequence[Example], difference: int) -> dict[str, object]:
    meaning, remedy = explained(row["reason"])
    first = examples[0] if examples else None
    said = f"“{first.text}”" if first and first.text else (first.url if first else "")
    seen = first.detail if first else row["example"]
    details = [meaning, f"{seen}{': ' if seen and said else ''}{said}"]
    if remedy and not remedy.startswith("nothing"):
        details.append(f"Too many? {remedy}.")
    return {
        "title": in_words(row["reason"]),
        "number": f"{row['num_dropped']:,}",
        "small": _share(row["share"]) + (f", {difference:+,} since last time" if difference else ""),
        "stage": row["stage"],
        "details": details,
        "examples": examples,
    }


def captions(data: CollectionData) -> Markup:
    """Languages and lengths of the captions of downloaded candidates."""
    if not data.languages:
        return Markup()
    shown = data.languages[:NUM_LANGUAGES]
    bars = [(row["language"], float(row["num_seen"]), f"{row['num_seen']:,} · {row['num_kept']:,} kept") for row in shown]
    if rest := data.languages[NUM_LANGUAGES:]:
        seen, kept = (sum(row[name] for row in rest) for name in ("num_seen", "num_kept"))
        bars.append((f"{len(rest)} others", float(seen), f"{seen:,} · {kept:,} kept"))
    lengths = [(row["num_caption_words"] - 0.5, row["num_caption_words"] + 0.5, float(row["num_seen"])) for row in data.caption_words]
    words = histogram(
        "Words in a caption",
        lengths,
        x_label="words (the last bar: and more)",
        color="unseen",
        kept=[row["num_kept"] for row in data.caption_words],
    )
    lead = "Of everything that was downloaded, kept or not: dalle query languages, caption_words."
    return fill("columns.html", title="Captions", lead=lead, charts=[horizontal_bars("Language", bars, "unseen"), words])


def images(data: CollectionData) -> Markup:
    """Sizes and shapes of downloaded pictures, on axes of doublings."""
    if not data.image_sizes:
        return Markup()
    sizes = [(math.log2(row["short_side_from"]), math.log2(row["short_side_to"]), float(row["num_seen"])) for row in data.image_sizes]
    shapes = [(math.log2(row["ratio_from"]), math.log2(row["ratio_to"]), float(row["num_seen"])) for row in data.aspect_ratios]
    lead = "Of every picture that could be decoded, kept or not: dalle query image_sizes, aspect_ratios."
    charts = [
        histogram(
            "Shorter side", sizes, x_label="pixels", color="other", kept=[row["num_kept"] for row in data.image_sizes],
            x_text=lambda x: f"{2**x:.0f}",
        ),
        histogram(
            "Shape", shapes, x_label="width : height", color="other", kept=[row["num_kept"] for row in data.aspect_ratios],
            x_text=lambda x: f"{2**x:.3g}:1" if x >= 0 else f"1:{2**-x:.3g}",
        ),
    ]  # fmt: skip
    return fill("columns.html", title="Images", lead=lead, charts=charts)


def duplicates(data: CollectionData) -> Markup:
    """Clusters of candidates that show the same picture, side by side."""
    lead = (
        "Candidates that show the same picture, pixel for pixel or nearly so, the largest clusters first. What is framed was kept. "
        "In SQL: dalle query duplicate_clusters."
    )
    clusters = [{"said": _size_of(cluster), "members": cluster.members} for cluster in data.clusters]
    return fill("duplicates.html", lead=lead, clusters=clusters) if clusters else Markup()


def _size_of(cluster: Cluster) -> str:
    more = cluster.num_members - len(cluster.members)
    return f"{cluster.num_members:,} candidates, {cluster.num_kept:,} kept" + (f"; {more:,} more not shown" if more else "")


def _counts(row: Row) -> list[str]:
    return [
        *(f"{row[name]:,}" for name in ("num_found", "num_candidates", "num_downloaded", "num_decoded", "num_kept")),
        f"{row['share_kept']:.1%}",
    ]


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "under 1%"


def explained(reason: str) -> tuple[str, str]:
    """What a code means, and what to do when too much goes that way (empty for what is the world's business)."""
    if reason in FAILURES:
        return FAILURES[reason].meaning, ""
    return REASONS.get(reason, (DISCOVERY.get(reason, ""), ""))


def in_words(code: str) -> str:
    """A code as it is said."""
    return code.replace("_", " ")
