"""The sections about where things come from: the pairs, what was left out, one picture's lineage, what to ask, and this run."""

import json
from collections.abc import Sequence

from markupsafe import Markup

from dalle_model.config.parsing import to_dict
from flows.report.data import Example, ReportData, Row
from flows.report.elements import laid_out
from flows.report.figures import histogram, horizontal_bars
from flows.report.templating import fill

STAGE_NAMES = {
    "found": "found",
    "discover": "readable candidates",
    "download": "downloaded",
    "decode": "decoded",
    "filter": "usable pairs",
}
LONG_TEXT = 120
"""A fact with more characters is folded."""


def pairs(data: ReportData) -> Markup:
    """Some training pictures, how many candidates each stage left, and the pairs' CLIP scores."""
    stages = [(STAGE_NAMES[row["stage"]], float(row["num_left"]), f"{row['num_left']:,}") for row in data.funnel]
    scores = [(row["score_from"], row["score_to"], float(row["num_pairs"])) for row in data.clip_histogram]
    lengths = [(row["num_caption_words"] - 0.5, row["num_caption_words"] + 0.5, float(row["num_pairs"])) for row in data.caption_lengths]
    lead = f"{data.num_pairs:,} pairs of a picture and a caption, {_found_where(data)}. A few of them:"
    return fill(
        "pairs.html",
        lead=lead,
        examples=data.training_examples,
        stages=horizontal_bars("Candidates left after each stage", stages),
        lengths=histogram("Words in a caption", lengths, x_label="words", color="unseen", size=(520, 140)),
        scores=histogram(
            "CLIP scores of the pairs", scores, x_label="cosine similarity of picture and caption", color="other", size=(520, 300)
        ),
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


def drops(data: ReportData) -> Markup:
    """Every reason for leaving a candidate out, with an example."""
    total = sum(row["num_dropped"] for row in data.drops)
    lead = (
        f"{total:,} candidates did not become pairs, each for a reason that can be looked up: dalle query drop_reasons. "
        "All about it: dalle report collection."
    )
    reasons = [_reason(row, data.drop_examples.get((row["stage"], row["reason"]), [])) for row in data.drops]
    return fill("drops.html", title="What was left out", lead=lead, reasons=reasons) if reasons else Markup()


def _reason(row: Row, examples: Sequence[Example]) -> dict[str, object]:
    said = f"{examples[0].detail or row['example']}: “{examples[0].text}”" if examples and examples[0].text else row["example"]
    title, number = row["reason"].replace("_", " "), f"{row['num_dropped']:,}"
    return {"title": title, "number": number, "small": "", "stage": row["stage"], "details": [said], "examples": examples}


def lineage(data: ReportData) -> Markup:
    """One picture, from its file back to the pages behind it, and whether it is a copy."""
    picture = data.lineage_picture
    if picture is None or not data.lineage:
        return Markup()
    alike = [
        [
            row["caption"],
            row["split"],
            f"{row['tokens_equal']} of {row['tokens_equal'] + row['hamming_distance']}",
            f"{row['share_equal']:.0%}",
            "unknown" if row["clip_similarity"] is None else f"{row['clip_similarity']:.3f}",
            "looks copied" if row["looks_copied"] else "",
        ]
        for row in data.nearest
    ]
    return fill("lineage.html", picture=picture, facts=[_fact(**row) for row in data.lineage], alike=alike)


def _fact(fact: str, value: str | None, made_by: str | None, **_: object) -> dict[str, object]:
    is_long = value is not None and ("\n" in value or len(value) > LONG_TEXT)
    return {"name": fact, "value": laid_out(value) if value is not None and is_long else value, "is_long": is_long, "made_by": made_by}


def queries(data: ReportData) -> Markup:
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
    return fill("ask.html", examples=examples)


def this_run(data: ReportData) -> Markup:
    """How long the stages took, and everything needed to run it again."""
    times = [
        (row["stage"], row["duration_s"], "was there" if row["was_skipped"] else f"{row['duration_s']:.1f} s") for row in data.stage_times
    ]
    config = to_dict(data.config)
    del config["paths"]  # where it was made, not what
    known = [
        ("preset", data.config.preset),
        ("seed", str(data.config.seed)),
        ("run of the pictures", data.run_id),
        ("code", data.git_commit or "not a checkout"),
        ("pictures made", data.made_at or "unknown"),
    ]
    settings = json.dumps(config, indent=1)
    return fill("this_run.html", times=horizontal_bars("Seconds per stage", times, "training"), known=known, settings=settings)
