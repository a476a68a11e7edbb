"""The report of what was collected: what changed, how far candidates came, why they were lost, and what they look like."""

import math
from collections.abc import Iterator, Sequence
from html import escape

from dalle_datasets.download.failures import FAILURES
from dalle_datasets.filters.base import REASONS
from flows.report.collection_data import Cluster, CollectionData
from flows.report.data import Example, Row
from flows.report.elements import card, heading, image, stack, table, two_columns
from flows.report.figures import Lines, Series, histogram, horizontal_bars, line_chart
from flows.report.page import document

STAGES = {"found": "found on pages", "discover": "candidates", "download": "downloaded", "decode": "decoded", "filter": "kept"}
"""What is left after each stage."""
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
"""A host with so many candidates of which fewer are kept, and a reason that takes more of all candidates, are pointed out."""
NUM_HOSTS, NUM_LANGUAGES = 20, 12
DISCOVERY = {
    "no_caption": "an image about which the page says nothing",
    "duplicate_candidate": "the same address with the same caption, found once more",
    "meta_robots": "the page asks not to be used, in its head",
    "not_html": "a page that is no page",
}
"""Codes that only discovery gives."""


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
    footer = "<footer>Made with open-dalle from the published catalog. Pictures are re-encoded; addresses are text, not links.</footer>"
    return document("what was collected", _header(data), sections, footer)


def _header(data: CollectionData) -> str:
    found, kept = data.funnel[0]["num_left"], data.funnel[-1]["num_left"]
    num_hosts = sum(row["num_hosts"] for row in data.sources)
    names = ", ".join(row["source"] for row in data.sources)
    when = f"Last collected on {data.runs[0]['finished_at']:%-d %B %Y, %H:%M} UTC." if data.runs else ""
    notes = list(remarks(data)) or ["Nothing stands out."]
    numbers = [
        (f"{row['num_left']:,}", STAGES[row["stage"]] + (f", {row['share_left'] or 0:.1%} of all" if row["position"] else ""))
        for row in data.funnel
    ]
    tiles = "".join(f'<div class="stat"><b>{escape(number)}</b><span>{escape(about)}</span></div>' for number, about in numbers)
    looks = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        '<header class="top"><div class="inner"><div><p class="name">open-dalle · collection</p>'
        f"<h1>{kept:,} pairs out of {found:,} found on {num_hosts:,} host{'s' if num_hosts > 1 else ''}</h1>"
        f'<p class="lead">{escape(names)}. {escape(when)}</p></div>'
        f'<div class="card"><h3>What stands out</h3><ul class="notes">{looks}</ul></div></div>'
        f'<div class="inner"><div class="stats">{tiles}</div></div></header>'
    )


def remarks(data: CollectionData) -> Iterator[str]:
    """What deserves a look, in sentences, most urgent first."""
    for kind, said in (("newly left out", "left out now"), ("gone", "not found any more")):
        rows = [row for row in data.changes if row["change"] == kind]
        if rows:
            total = sum(row["num_candidates"] for row in rows)
            mostly = f", most for {_words(rows[0]['outcome'])}" if rows[0]["outcome"] else ""
            yield f"{total:,} pair{'s' if total > 1 else ''} of the last collection {'are' if total > 1 else 'is'} {said}{mostly}."
    for row in data.hosts:
        if row["num_found"] >= MIN_CANDIDATES and row["share_kept"] < LOW_SHARE:
            lost = f", mostly lost to {_words(row['top_reason'])}" if row["top_reason"] else ""
            yield f"{row['host']} gave {row['num_kept']:,} pairs of {row['num_found']:,} ({row['share_kept']:.0%}){lost}."
    found = data.funnel[0]["num_left"]
    for row in data.drops:
        if row["num_dropped"] > HIGH_SHARE * found:
            remedy = _explained(row["reason"])[1]
            yield f"{_words(row['reason'])} takes {row['num_dropped'] / found:.0%} of what was found{f'; {remedy}' if remedy else ''}."
        if row["reason"] == "worker_lost":
            yield f"Addresses lost with a downloading process: {row['num_dropped']:,}; collect again to ask for them."
    newest = data.runs[0] if data.runs else None
    before = next((row for row in data.runs[1:] if newest and row["source"] == newest["source"]), None)
    if newest and before and newest["share_kept"] < before["share_kept"] - 0.05:
        yield f"{newest['source']} keeps {newest['share_kept']:.0%} of what was found; last time it was {before['share_kept']:.0%}."


def changes(data: CollectionData) -> str:
    """What the newest collection brought that the one before had not, and the other way round."""
    if not data.runs:
        return ""
    lead = "The newest collection of each source against the one before it: dalle query collection_changes, changed_candidates."
    by_source: dict[str, list[Row]] = {}
    for run in reversed(data.runs):
        by_source.setdefault(run["source"], []).append(run)
    rows = sorted(data.changes, key=lambda row: (list(CHANGES).index(row["change"]), -row["num_candidates"]))
    body = [
        [
            f"<b>{escape(CHANGES[row['change']])}</b>",
            escape(row["source"]),
            escape(_words(row["was"] or "not found")),
            escape(_words(row["outcome"] or "not found")),
            f"{row['num_candidates']:,}",
            f'<span class="url">{escape(row["example_urls"][0])}</span>' if row["example_urls"] else "",
        ]
        for row in rows
    ]
    if rows:
        shown = table(
            "What became of candidates, then and now", ["", "source", "then", "now", "how many", "for example"], body, "plain left"
        )
    elif any(len(runs) > 1 for runs in by_source.values()):
        shown = '<p class="muted">Nothing changed: the same candidates came to the same ends.</p>'
    else:
        shown = '<p class="muted">This is the first collection on record; the next one will say here what changed.</p>'
    history = ""
    if any(len(runs) > 1 for runs in by_source.values()):
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
            escape(row["source"]),
            f"{row['num_found']:,}",
            f"{row['num_kept']:,}",
            f"{row['share_kept']:.1%}",
        ]
        for row in data.runs[:8]
    ]
    latest = table("The last collections", ["ended, UTC", "source", "found", "kept", "share"], runs, "plain")
    below = two_columns(card(history), card(latest)) if history else card(latest)
    return heading("Since the last time", lead) + stack(card(shown), below)


def funnel(data: CollectionData) -> str:
    """How many candidates are left after each stage, altogether and by source."""
    bars = [
        (
            STAGES[row["stage"]],
            float(row["num_left"]),
            f"{row['num_left']:,}" + (f"  −{row['num_dropped']:,}" if row["num_dropped"] else ""),
        )
        for row in data.funnel
    ]
    body = [[f'<th scope="row">{escape(row["source"])}</th>', f"{row['num_hosts']:,}", *_counts(row)] for row in data.sources]
    head = ["source", "hosts", "found", "candidates", "downloaded", "decoded", "kept", "share"]
    lead = "Everything that pages showed, stage by stage; what is lost is lost for a reason below. To the row: dalle query funnel."
    return heading("How far candidates came", lead) + stack(
        card(horizontal_bars("Left after each stage", bars, "unseen")), card(table("By source", head, body))
    )


def hosts(data: CollectionData) -> str:
    """The largest hosts with their losses, and every way of not delivering an image."""
    body = [
        [
            f'<th scope="row">{escape(row["host"])}</th>', *_counts(row),
            escape(f"{_words(row['top_reason'])} ({row['num_top_reason']:,})") if row["top_reason"] else "",
        ]
        for row in data.hosts[:NUM_HOSTS]
    ]  # fmt: skip
    head = ["host", "found", "candidates", "downloaded", "decoded", "kept", "share", "lost most to"]
    failures = [
        [
            f'<th scope="row">{escape(row["host"])}</th>',
            f"<code>{escape(row['reason'])}</code>",
            escape(_explained(row["reason"])[0]),
            "yes" if row["reason"] in FAILURES and FAILURES[row["reason"]].retryable else "no",
            f"{row['num_failed']:,}",
            f"{row['share_of_host']:.1%}",
            f'<span class="url">{escape(row["example_url"])}</span>',
        ]
        for row in data.failures
    ]
    codes = ["host", "code", "what it means", "asked again", "images", "of the host", "for example"]
    lead = "Hosts by what was found on them, and how they failed to deliver: dalle query funnel_by_host, download_failures."
    rest = data.hosts[NUM_HOSTS:]
    more = f'<p class="muted">And {len(rest):,} hosts with {sum(row["num_found"] for row in rest):,} candidates.</p>' if rest else ""
    return heading("Host by host", lead) + stack(
        card(table("The hosts with most candidates", head, body) + more),
        card(table("Images that were not delivered", codes, failures, "left")) if failures else "",
    )


def drops(data: CollectionData) -> str:
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
    cards = "".join(
        _reason(row, data.drop_examples.get((row["stage"], row["reason"]), []), more.get((row["stage"], row["reason"]), 0))
        for row in data.drops
    )
    return heading("What was left out, and why", lead) + f'<ul class="reasons">{cards}</ul>' if cards else ""


def _reason(row: Row, examples: Sequence[Example], difference: int) -> str:
    meaning, remedy = _explained(row["reason"])
    thumbs = "".join(image(example.image, f"left out: {example.text}") for example in examples if example.image)
    first = examples[0] if examples else None
    said = f"“{first.text}”" if first and first.text else (first.url if first else "")
    seen = first.detail if first else row["example"]
    since = f", {difference:+,} since last time" if difference else ""
    return (
        f'<li class="reason"><b>{escape(_words(row["reason"]))}</b>'
        f'<span class="score">{row["num_dropped"]:,} <small>{_share(row["share"])}{since}</small></span>'
        f'<span class="detail"><i>{escape(row["stage"])}</i> {escape(meaning)}</span>'
        f'<span class="detail seen">{escape(seen)}{": " if seen and said else ""}{escape(said)}</span>'
        + (f'<span class="detail">Too many? {escape(remedy)}.</span>' if remedy and not remedy.startswith("nothing") else "")
        + (f'<span class="thumbs">{thumbs}</span>' if thumbs else "")
        + "</li>"
    )


def captions(data: CollectionData) -> str:
    """Languages and lengths of the captions of downloaded candidates."""
    if not data.languages:
        return ""
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
    return heading("Captions", lead) + two_columns(card(horizontal_bars("Language", bars, "unseen")), card(words))


def images(data: CollectionData) -> str:
    """Sizes and shapes of downloaded pictures, on axes of doublings."""
    if not data.image_sizes:
        return ""
    sizes = [(math.log2(row["short_side_from"]), math.log2(row["short_side_to"]), float(row["num_seen"])) for row in data.image_sizes]
    shapes = [(math.log2(row["ratio_from"]), math.log2(row["ratio_to"]), float(row["num_seen"])) for row in data.aspect_ratios]
    lead = "Of every picture that could be decoded, kept or not: dalle query image_sizes, aspect_ratios."
    return heading("Images", lead) + two_columns(
        card(
            histogram(
                "Shorter side", sizes, x_label="pixels", color="other", kept=[row["num_kept"] for row in data.image_sizes],
                x_text=lambda x: f"{2**x:.0f}",
            )
        ),
        card(
            histogram(
                "Shape", shapes, x_label="width : height", color="other", kept=[row["num_kept"] for row in data.aspect_ratios],
                x_text=lambda x: f"{2**x:.3g}:1" if x >= 0 else f"1:{2**-x:.3g}",
            )
        ),
    )  # fmt: skip


def duplicates(data: CollectionData) -> str:
    """Clusters of candidates that show the same picture, side by side."""
    cards = "".join(_cluster(cluster) for cluster in data.clusters)
    lead = (
        "Candidates that show the same picture, pixel for pixel or nearly so, the largest clusters first. What is framed was kept. "
        "In SQL: dalle query duplicate_clusters."
    )
    return heading("The same picture, more than once", lead) + f'<div class="clusters">{cards}</div>' if cards else ""


def _cluster(cluster: Cluster) -> str:
    items = "".join(
        f'<li class="{"kept" if member.outcome == "kept" else ""}">{image(member.image, member.caption)}'
        f'<p class="caption">{escape(member.caption)}</p><p class="outcome">{escape(_words(member.outcome))}</p></li>'
        for member in cluster.members
    )
    more = cluster.num_members - len(cluster.members)
    said = f"{cluster.num_members:,} candidates, {cluster.num_kept:,} kept" + (f"; {more:,} more not shown" if more else "")
    return card(f'<h3>{said}</h3><ul class="cluster">{items}</ul>')


def queries() -> str:
    """First questions to ask the tables."""
    examples = [
        ("Everything that has been asked so far", "dalle query --list"),
        ("Which addresses fail that worked last time", 'dalle query changed_candidates --param change="newly left out"'),
        ("One host's funnel", "dalle query funnel --param host=example.org"),
        ("What a longer minimum length would cost", 'dalle query "select count(*) from pairs where num_caption_words < 5"'),
        ("All drops of a reason, as CSV", "dalle query \"select * from dropped_pairs where reason = 'http_4xx'\" --format csv"),
    ]
    lines = "\n\n".join(f'<span class="muted"># {escape(about)}</span>\n{escape(command)}' for about, command in examples)
    return heading("Ask", "Every number on this page is a query on tables that lie beside it.") + f"<pre>{lines}</pre>"


def _counts(row: Row) -> list[str]:
    return [
        *(f"{row[name]:,}" for name in ("num_found", "num_candidates", "num_downloaded", "num_decoded", "num_kept")),
        f"{row['share_kept']:.1%}",
    ]


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "under 1%"


def _explained(reason: str) -> tuple[str, str]:
    """What a code means, and what to do when too much goes that way (empty for what is the world's business)."""
    if reason in FAILURES:
        return FAILURES[reason].meaning, ""
    return REASONS.get(reason, (DISCOVERY.get(reason, ""), ""))


def _words(code: str) -> str:
    return code.replace("_", " ")
