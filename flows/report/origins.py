"""The sections about where things come from: the pairs, what was left out, one picture's lineage, what to ask, and this run."""

from collections.abc import Sequence
from html import escape

from dalle_model.config.parsing import to_dict
from flows.report.data import Example, ReportData, Row
from flows.report.elements import caption_and_score, card, facts, folded, heading, image, settings, table, two_columns
from flows.report.figures import histogram, horizontal_bars

STAGE_NAMES = {
    "found": "found",
    "discover": "readable candidates",
    "download": "downloaded",
    "decode": "decoded",
    "filter": "usable pairs",
}
LONG_TEXT = 120
"""A fact with more characters is folded."""


def pairs(data: ReportData) -> str:
    """Some training pictures, how many candidates each stage left, and the pairs' CLIP scores."""
    examples = "".join(
        f'<li>{image(example.image, example.text)}<p class="caption">{escape(example.text)}</p></li>' for example in data.training_examples
    )
    stages = [(STAGE_NAMES[row["stage"]], float(row["num_left"]), f"{row['num_left']:,}") for row in data.funnel]
    scores = [(row["score_from"], row["score_to"], float(row["num_pairs"])) for row in data.clip_histogram]
    lengths = [(row["num_caption_words"] - 0.5, row["num_caption_words"] + 0.5, float(row["num_pairs"])) for row in data.caption_lengths]
    lead = f"{data.num_pairs:,} pairs of a picture and a caption, {_found_where(data)}. A few of them:"
    return (
        heading("What it learned from", lead)
        + f'<ul class="gallery">{examples}</ul><div class="gap"></div>'
        + two_columns(
            card(
                horizontal_bars("Candidates left after each stage", stages)
                + '<div class="gap"></div>'
                + histogram("Words in a caption", lengths, x_label="words", color="unseen", size=(520, 140))
            ),
            card(
                histogram(
                    "CLIP scores of the pairs", scores, x_label="cosine similarity of picture and caption", color="other", size=(520, 300)
                )
            ),
        )
    )


def _found_where(data: ReportData) -> str:
    """How the pairs of the source came here, in words."""
    where = {
        "web_archives": "found in web archives, downloaded",
        "url_tables": "named in tables, downloaded",
        "image_folders": "read from folders",
        "webdatasets": "read from tars",
        "mixed": "found in several places, downloaded or read",
    }
    return f"{where.get(data.config.source.kind, 'found on web pages, downloaded')} and filtered"


def drops(data: ReportData) -> str:
    """Every reason for leaving a candidate out, with an example."""
    total = sum(row["num_dropped"] for row in data.drops)
    lead = (
        f"{total:,} candidates did not become pairs, each for a reason that can be looked up: dalle query drop_reasons. "
        "All about it: dalle report collection."
    )
    cards = "".join(_reason(row, data.drop_examples.get((row["stage"], row["reason"]), [])) for row in data.drops)
    return heading("What was left out", lead) + f'<ul class="reasons">{cards}</ul>' if cards else ""


def _reason(row: Row, examples: Sequence[Example]) -> str:
    said = f"{examples[0].detail or row['example']}: “{examples[0].text}”" if examples and examples[0].text else row["example"]
    thumbs = "".join(image(example.image, f"left out: {example.text}") for example in examples if example.image)
    return (
        f'<li class="reason"><b>{escape(row["reason"].replace("_", " "))}</b><span class="score">{row["num_dropped"]:,}</span>'
        f'<span class="detail"><i>{escape(row["stage"])}</i> {escape(said)}</span>'
        + (f'<span class="thumbs">{thumbs}</span>' if thumbs else "")
        + "</li>"
    )


def lineage(data: ReportData) -> str:
    """One picture, from its file back to the pages behind it, and whether it is a copy."""
    picture = data.lineage_picture
    if picture is None or not data.lineage:
        return ""
    known = facts((row["fact"], _fact(row["value"], row["made_by"])) for row in data.lineage)
    alike = [
        [
            escape(row["caption"]),
            escape(row["split"]),
            f"{row['tokens_equal']} of {row['tokens_equal'] + row['hamming_distance']}",
            f"{row['share_equal']:.0%}",
            "unknown" if row["clip_similarity"] is None else f"{row['clip_similarity']:.3f}",
            "looks copied" if row["looks_copied"] else "",
        ]
        for row in data.nearest
    ]
    copies = table(
        "Is it a copy? The pairs most like it, token by token and as CLIP sees them",
        ["caption", "split", "equal tokens", "share", "CLIP similarity", ""],
        alike,
        "plain",
    )
    shown = f"<div>{image(picture.image, picture.prompt)}{caption_and_score(picture)}</div>"
    return heading("Where a picture comes from", "Every picture can be followed back to the web pages behind it. This one:") + card(
        f'<div class="lineage">{shown}<div>{known}<div class="gap"></div>{copies if alike else ""}</div></div>'
    )


def _fact(value: str | None, made_by: str | None) -> str:
    if value is None:
        return '<span class="muted">unknown</span>'
    text = folded("show", value) if "\n" in value or len(value) > LONG_TEXT else escape(value)
    return text + (f' <span class="muted mono">{escape(made_by)}</span>' if made_by else "")


def queries(data: ReportData) -> str:
    """First questions to ask the tables."""
    picture = data.lineage_picture.generation_id if data.lineage_picture else "…"
    examples = [
        ("All questions that have a name", "dalle query --list"),
        ("Where the picture above comes from", f"dalle query lineage --param generation_id={picture}"),
        ("Is it a copy?", f"dalle query nearest_training_pairs --param generation_id={picture}"),
        ("What reranking brings", "dalle query agreement"),
        ("Which image tokens are never used", "dalle query dead_codes"),
        ("Anything else, in SQL", 'dalle query "select split, count(*) from pairs group by split"'),
        ("A picture of your own", 'dalle generate "a blue apple on a pink background" --show'),
    ]
    lines = "\n\n".join(f'<span class="muted"># {escape(about)}</span>\n{escape(command)}' for about, command in examples)
    return heading("Ask", "Every number on this page is a query on tables that lie beside it.") + f"<pre>{lines}</pre>"


def this_run(data: ReportData) -> str:
    """How long the stages took, and everything needed to run it again."""
    times = [
        (row["stage"], row["duration_s"], "was there" if row["was_skipped"] else f"{row['duration_s']:.1f} s") for row in data.stage_times
    ]
    config = to_dict(data.config)
    del config["paths"]  # where it was made, not what
    known = facts(
        (name, escape(value))
        for name, value in {
            "preset": data.config.preset,
            "seed": str(data.config.seed),
            "run of the pictures": data.run_id,
            "code": data.git_commit or "not a checkout",
            "pictures made": data.made_at or "unknown",
        }.items()
    )
    return "<h2>This run</h2>" + two_columns(
        card(horizontal_bars("Seconds per stage", times, "training")), card(f'{known}<div class="gap"></div>{settings(config)}')
    )
