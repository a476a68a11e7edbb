"""The report as one HTML file: sections of plain HTML, every text escaped, nothing loaded from anywhere."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dalle_model.config.sections import to_dict
from flows.report.data import ATTRIBUTES, Candidates, Example, Picture, PromptSet, ReportData
from flows.report.figures import Series, histogram, horizontal_bars, line_chart
from flows.report.pictures import Embedded

SETS = {
    "training": ("Captions it was trained on", "Scenes whose pictures the networks saw while they learned.", "training"),
    "unseen_scene": ("Unseen scenes", "Object and colour were seen together, but never on this background in this layout.", "unseen"),
    "held_out_pair": (
        "Held-out pairs",
        "No picture it learned from shows this object in this colour: getting these right is composition.",
        "held",
    ),
}
"""Prompt set -> title, what it tests, colour."""
ATTRIBUTE_NAMES = {"object": "object", "color": "colour", "background": "background", "layout": "layout"}
NUM_WALL = 12


def render(data: ReportData) -> str:
    """The whole page."""
    sections = [section for section in _sections(data) if section[2]]
    links = "".join(f'<li><a href="#{anchor}">{escape(name)}</a></li>' for anchor, name, _ in sections)
    body = "".join(f'<section id="{anchor}">{content}</section>' for anchor, _, content in sections)
    style = Path(__file__).with_name("style.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>open-dalle: what this run made</title>'
        f"<style>{style}</style></head><body>{_header(data)}"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>{body}{_footer(data)}</main></body></html>\n'
    )


def _sections(data: ReportData) -> list[tuple[str, str, str]]:
    """(anchor, name in the navigation, content); without content a section is left out."""
    return [
        ("pictures", "Pictures", _pictures(data)),
        ("reranking", "Reranking", _reranking(data)),
        ("candidates", "Candidates", _candidates(data)),
        ("dvae", "dVAE", _dvae(data)),
        ("training", "Training", _training(data)),
        ("pairs", "Pairs", _pairs(data)),
        ("drops", "What was left out", _drops(data)),
        ("lineage", "Lineage", _lineage(data)),
        ("queries", "Ask", _queries(data)),
        ("run", "This run", _run(data)),
    ]


def _header(data: ReportData) -> str:
    pictures = [picture for item in data.prompt_sets for picture in item.pictures if picture.image]
    right = [picture for picture in pictures if picture.is_right]
    wall = spread(right or pictures, NUM_WALL)
    images = "".join(_img(picture.image, picture.prompt) for picture in wall)
    about = "came out right, taken evenly from the prompts below" if right else "taken evenly from the prompts below"
    seconds = sum(row["duration_s"] for row in data.stage_times if not row["was_skipped"])
    title = (
        f"{sum(item.num_prompts for item in data.prompt_sets):,} captions, drawn by a network that learned from {data.num_pairs:,} pairs"
    )
    made = f"Made on {data.made_at}. " if data.made_at else ""
    took = f"Everything, from web pages to this report, took {duration(seconds)} on this machine. " if seconds else ""
    return (
        f'<header class="top"><div class="inner"><div><p class="name">open-dalle</p><h1>{escape(title)}</h1>'
        f'<p class="lead">A discrete VAE, a transformer over text and image tokens, and a CLIP that picks the best of '
        f"{data.config.sampling.num_images} candidates, all trained from nothing. {took}{made}</p></div>"
        f'<figure class="wall">{images}<figcaption>{len(wall)} pictures that {about}</figcaption></figure></div>'
        f'<div class="inner"><div style="grid-column:1/-1">{_stats(data)}</div></div></header>'
    )


def _stats(data: ReportData) -> str:
    results = data.results
    best = {row["prompt_set"]: row for row in data.agreement if row["best_of"] <= data.config.sampling.num_images}
    stats = [
        (f"{row['all_right']:.0%}", f"{SETS.get(name, (name.replace('_', ' '),))[0].lower()} all right, best of {row['best_of']}")
        for name, row in sorted(best.items(), key=lambda item: list(SETS).index(item[0]) if item[0] in SETS else len(SETS))
    ]
    if "train_dvae" in results:
        stats.append((f"{results['train_dvae']['psnr']:.1f} dB", "dVAE reconstruction (PSNR)"))
    if data.codebook_health:
        health = data.codebook_health
        stats.append((f"{health['codes_used']:,}", f"of {health['codebook_size'] or 0:,} image tokens in use"))
    if "num_parameters" in results.get("train_transformer", {}):
        stats.append((f"{results['train_transformer']['num_parameters'] / 1e6:.2f} M", "parameters of the transformer"))
    return (
        '<div class="stats">' + "".join(f'<div class="stat"><b>{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in stats) + "</div>"
    )


def _pictures(data: ReportData) -> str:
    parts = [
        "<h2>Pictures</h2>",
        f'<p class="lead">For each caption the one of {data.config.sampling.num_images} candidates that CLIP ranks first. The captions are a fair '
        "sample, not a choice. A strict checker looks whether object, colour, background and layout are what the caption asks for.</p>",
    ]
    for item in _in_order(data.prompt_sets):
        title, about, color = _about_set(item.name)
        parts.append(
            f'<div class="set-head"><h3>{_dot(color)}{escape(title)}</h3><p>{escape(about)} {_share(item)}</p></div>'
            f'<ul class="gallery">{"".join(_gallery_item(picture) for picture in item.pictures)}</ul>'
        )
    return "".join(parts) if data.prompt_sets else ""


def _share(item: PromptSet) -> str:
    judged = [picture for picture in item.pictures if picture.is_right is not None]
    if not judged:
        return f"{len(item.pictures)} of {item.num_prompts} prompts."
    return f"{sum(bool(picture.is_right) for picture in judged)} of these {len(judged)} are right ({item.num_prompts} prompts in all)."


def _gallery_item(picture: Picture) -> str:
    return (
        f'<li>{_img(picture.image, picture.prompt)}<p class="caption">{escape(picture.prompt)}</p>'
        f'<div class="meta">{_verdict(picture)}<span title="CLIP score: cosine similarity of picture and caption">{picture.clip_score:.3f}</span></div></li>'
    )


def _verdict(picture: Picture) -> str:
    if picture.verdict is None:
        return "<span>not judged</span>"
    wrong = [ATTRIBUTE_NAMES[name] for name, is_right in picture.verdict.items() if not is_right]
    return f'<span class="bad">✗ {escape(", ".join(wrong))}</span>' if wrong else '<span class="good">✓ right</span>'


def _reranking(data: ReportData) -> str:
    if not data.agreement:
        return ""
    sets = [name for name in (*SETS, *sorted({row["prompt_set"] for row in data.agreement} - set(SETS))) if _agreement_of(data, name)]
    series, reachable = [], []
    for name in sets:
        title, _, color = _about_set(name)
        found = _agreement_of(data, name)
        series.append(Series(title, [(row["best_of"], row["all_right"]) for row in found], color))
        reachable.append(Series(f"{title}: any of n right", [(row["best_of"], row["any_right"]) for row in found], color, is_dashed=True))
    ticks = sorted({row["best_of"] for row in data.agreement})
    chart = line_chart("All four attributes right, by number of candidates", [*series, *reachable], x_label="best of n by CLIP (n = 1: no reranking)",
                       y_range=(0, 1), x_ticks=ticks, with_dots=True, size=(560, 330))  # fmt: skip
    rises = [
        Series(
            _about_set(name)[0],
            [(row["best_of"], row["mean_best_clip_score"]) for row in data.best_of_n if row["prompt_set"] == name],
            _about_set(name)[2],
        )
        for name in sets
    ]
    scores = line_chart("CLIP score of the best of n", rises, x_label="candidates", size=(560, 330))
    return (
        "<h2>Does reranking help?</h2>"
        '<p class="lead">The share of pictures with everything right when CLIP chooses among n candidates. The dashed lines are the ceiling: a perfect '
        "judge could do no better with the same candidates. Groups of n are disjoint, so n = 1 is the plain average over all pictures.</p>"
        f'<div class="grid2"><div class="card">{chart}</div><div class="card">{scores}</div></div>'
        f'<div class="card scroll" style="margin-top:20px">{_agreement_table(data, sets, ticks)}</div>'
    )


def _agreement_of(data: ReportData, name: str) -> list[dict[str, float]]:
    return [row for row in data.agreement if row["prompt_set"] == name]


def _agreement_table(data: ReportData, sets: Sequence[str], ticks: Sequence[int]) -> str:
    head = "".join(f'<th scope="col">{"one picture" if n == 1 else f"best of {n}"}</th>' for n in ticks)
    body = []
    for name in sets:
        found = {row["best_of"]: row for row in _agreement_of(data, name)}
        title, _, color = _about_set(name)
        for key, label in (("all_right", "all four right"), *((f"{a}_right", f"{ATTRIBUTE_NAMES[a]} right") for a in ATTRIBUTES)):
            cells = "".join(f"<td>{found[n][key]:.0%}</td>" if n in found else "<td></td>" for n in ticks)
            first = (
                f'<th scope="row">{_dot(color)}{escape(title)}: {label}</th>' if key == "all_right" else f"<td>{'&emsp;' * 2}{label}</td>"
            )
            body.append(f"<tr>{first}{cells}</tr>")
    return (
        f'<table><caption>Shares by prompt set and attribute</caption><thead><tr><th scope="col">prompts</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table>"
    )


def _candidates(data: ReportData) -> str:
    cards = "".join(f'<div class="card">{_candidate_strip(item)}</div>' for item in data.candidates if item.pictures)
    if not cards:
        return ""
    return (
        '<h2>All candidates, as CLIP orders them</h2><p class="lead">Everything that was drawn for a few captions, best score first. '
        f'The first is the one that is kept. ✓ and ✗ are the checker\'s, which CLIP does not know.</p><div class="stack">{cards}</div>'
    )


def _candidate_strip(item: Candidates) -> str:
    _, _, color = _about_set(item.prompt_set)
    right = [picture for picture in item.pictures if picture.is_right]
    judged = any(picture.is_right is not None for picture in item.pictures)
    count = f'<p class="muted" style="margin:2px 0 0">{len(right)} of {len(item.pictures)} right</p>' if judged else ""
    items = "".join(
        f"<li{' class=first' if i == 0 else ''}>{_img(picture.image, f'{item.prompt}, candidate ranked {picture.rank}')}"
        f"{_mark(picture)} {picture.clip_score:.2f}</li>"
        for i, picture in enumerate(item.pictures)
    )
    return f'<h3>{_dot(color)}{escape(item.prompt)}</h3>{count}<ul class="strip">{items}</ul>'


def _mark(picture: Picture) -> str:
    if picture.is_right is None:
        return ""
    return '<span class="good" title="all right">✓</span>' if picture.is_right else '<span class="bad" title="not all right">✗</span>'


def _dvae(data: ReportData) -> str:
    if not data.reconstructions and not data.codebook:
        return ""
    config, result = data.config.dvae, data.results.get("train_dvae", {})
    pairs = "".join(
        f"<li>{_img(original, f'validation picture {i}')}{_img(rebuilt, f'validation picture {i} rebuilt from its tokens')}</li>"
        for i, (original, rebuilt) in enumerate(data.reconstructions, 1)
    )
    facts = f"PSNR {result['psnr']:.1f} dB on validation pictures. " if "psnr" in result else ""
    shown = f'<div class="card"><h3>Originals above, reconstructions below</h3><ul class="pairs">{pairs}</ul></div>' if pairs else ""
    used = sorted((row["occurrences"] for row in data.codebook), reverse=True)
    total = sum(used) or 1
    bars = [(float(i), float(i + 1), 100 * count / total) for i, count in enumerate(used) if count]
    health = data.codebook_health
    usage = histogram(
        "How often each image token is used, most used first", thin_bars(bars), x_label="image tokens by rank; share of all tokens, %"
    )
    about = (
        f"{health['codes_used']:,} of {health['codebook_size'] or 0:,} image tokens are used, with a perplexity of {health['perplexity']:.0f}; the most used one is {health['top_code_share']:.0%} of all tokens."
        if health
        else ""
    )
    return (
        "<h2>The discrete VAE: pictures as tokens</h2>"
        f'<p class="lead">Each {config.image_size} × {config.image_size} picture becomes {config.image_grid_size} × {config.image_grid_size} tokens '
        f"out of a codebook of {config.codebook_size:,}; the transformer draws with nothing but these. {facts}{about}</p>"
        f'<div class="stack">{shown}<div class="grid2"><div class="card">{usage}</div>{_dvae_curves(data)}</div></div>'
    )


def _dvae_curves(data: ReportData) -> str:
    chart = _curve_chart(data, "train_dvae", "psnr", "Reconstruction of validation pictures, PSNR in dB")
    return f'<div class="card">{chart}</div>' if chart else ""


def _training(data: ReportData) -> str:
    wanted = [
        ("train_dvae", "loss", "dVAE: loss"),
        ("train_clip", "loss", "CLIP: contrastive loss"),
        ("train_transformer", "image_loss", "Transformer: image tokens, nats"),
        ("train_transformer", "text_loss", "Transformer: text tokens, nats"),
    ]
    charts = [chart for job, name, title in wanted if (chart := _curve_chart(data, job, name, title))]
    if not charts:
        return ""
    cards = "".join(f'<div class="card">{chart}</div>' for chart in charts)
    return (
        '<h2>Training</h2><p class="lead">What the three networks had left to learn. Where the validation curve leaves the training curve, '
        f'learning has turned into remembering.</p><div class="grid2">{cards}</div>'
    )


def _curve_chart(data: ReportData, job: str, name: str, title: str) -> str:
    splits = (("train", "training", "accent", False), ("validation", "validation", "held", False))
    series = [
        Series(label, data.curves[job, name, split], color, dashed)
        for split, label, color, dashed in splits
        if (job, name, split) in data.curves
    ]
    return line_chart(title, series, x_label="optimiser steps", with_dots=len(series) == 1 and len(series[0].points) < 15) if series else ""


def _pairs(data: ReportData) -> str:
    examples = "".join(
        f'<li>{_img(example.image, example.text)}<p class="caption">{escape(example.text)}</p></li>' for example in data.training_examples
    )
    funnel = horizontal_bars(
        "Candidates left after each stage",
        [(STAGE_NAMES.get(row["stage"], row["stage"]), float(row["num_left"]), f"{row['num_left']:,}") for row in data.funnel],
    )
    bars = [(row["score_from"], row["score_to"], float(row["num_pairs"])) for row in data.clip_histogram]
    scores = histogram("CLIP scores of the pairs", bars, x_label="cosine similarity of picture and caption", color="other")
    return (
        f'<h2>What it learned from</h2><p class="lead">{data.num_pairs:,} pairs of a picture and a caption, found on web pages, downloaded and '
        f'filtered. A few of them:</p><ul class="gallery">{examples}</ul>'
        f'<div class="grid2" style="margin-top:28px"><div class="card">{funnel}</div><div class="card">{scores}</div></div>'
    )


STAGE_NAMES = {"found": "found on pages", "discover": "readable candidates", "download": "downloaded", "filter": "usable pairs"}


def _drops(data: ReportData) -> str:
    if not data.drops:
        return ""
    cards = []
    for row in data.drops:
        examples = data.drop_examples.get((row["stage"], row["reason"]), [])
        thumbs = "".join(_img(example.image, f"left out: {example.text}") for example in examples if example.image)
        cards.append(
            f'<li class="reason"><b>{escape(row["reason"].replace("_", " "))}</b><span class="score">{row["num_dropped"]:,}</span>'
            f'<span class="detail">{escape(row["stage"])}: {escape(_said(examples, row["example"]))}</span>'
            f"{f'<span class=thumbs>{thumbs}</span>' if thumbs else ''}</li>"
        )
    total = sum(row["num_dropped"] for row in data.drops)
    return (
        f'<h2>What was left out</h2><p class="lead">{total:,} candidates did not become pairs. Nothing is dropped without a reason, and every reason '
        f'can be looked at: <code>dalle query drop_reasons</code>.</p><ul class="reasons">{"".join(cards)}</ul>'
    )


def _said(examples: Sequence[Example], detail: str) -> str:
    """What was seen, and the caption it was seen with, of the first example."""
    if not examples:
        return detail
    first = examples[0]
    return f"{first.detail}. “{first.text}”" if first.text else first.detail


def _lineage(data: ReportData) -> str:
    picture = data.lineage_picture
    if picture is None or not data.lineage:
        return ""
    facts = "".join(f"<dt>{escape(row['fact'])}</dt><dd>{_fact(row['value'], row['made_by'])}</dd>" for row in data.lineage)
    nearest = "".join(
        f"<tr><td>{escape(row['caption'])}</td><td>{row['tokens_equal']} of {data.config.dvae.num_image_tokens}</td><td>{row['share_equal']:.0%}</td></tr>"
        for row in data.nearest
    )
    table = (
        '<div class="scroll" style="margin-top:20px"><table><caption>Is it a copy? The most alike of all pairs, token by token</caption>'
        f'<thead><tr><th scope="col">caption</th><th scope="col">equal tokens</th><th scope="col">share</th></tr></thead><tbody>{nearest}</tbody></table></div>'
        if nearest
        else ""
    )
    return (
        '<h2>Where a picture comes from</h2><p class="lead">Every picture can be followed back to the web pages behind it. This one:</p>'
        f'<div class="card"><div class="lineage"><div>{_img(picture.image, picture.prompt)}<p class="caption" style="margin:10px 0 2px">'
        f'{escape(picture.prompt)}</p><div class="meta">{_verdict(picture)}<span>{picture.clip_score:.3f}</span></div></div>'
        f'<div><dl class="facts">{facts}</dl>{table}</div></div></div>'
    )


def _fact(value: str | None, made_by: str | None) -> str:
    if value is None:
        return "<span class=muted>unknown</span>"
    long = "\n" in value or len(value) > 120
    text = f"<details><summary>show</summary><pre>{escape(_pretty(value))}</pre></details>" if long else escape(value)
    return text + (f' <span class="muted mono">{escape(made_by)}</span>' if made_by else "")


def _pretty(value: str) -> str:
    try:
        return json.dumps(json.loads(value), indent=1)
    except ValueError:
        return value


def _queries(data: ReportData) -> str:
    one = data.lineage_picture.generation_id if data.lineage_picture else "…"
    examples = [
        ("All questions that have a name", "dalle query --list"),
        ("Where this picture comes from", f"dalle query lineage --param generation_id={one}"),
        ("Is it a copy?", f"dalle query nearest_training_pairs --param generation_id={one}"),
        ("What reranking brings", "dalle query agreement"),
        ("Why candidates were left out", "dalle query drop_reasons"),
        ("Which image tokens are never used", "dalle query dead_codes"),
        ("Anything else, in SQL", 'dalle query "select split, count(*) from pairs group by split"'),
        ("A picture of your own", 'dalle generate "a blue apple on a pink background" --show'),
    ]
    lines = "\n".join(f"<span class=muted># {escape(about)}</span>\n{escape(command)}\n" for about, command in examples)
    return f'<h2>Ask</h2><p class="lead">Every number on this page is a query on tables that lie beside it.</p><pre>{lines.rstrip()}</pre>'


def _run(data: ReportData) -> str:
    config = to_dict(data.config)
    del config["paths"]  # where it was made, not what
    times = [
        (row["stage"], row["duration_s"], "was there" if row["was_skipped"] else f"{row['duration_s']:.1f} s") for row in data.stage_times
    ]
    facts = {
        "preset": data.config.preset,
        "seed": str(data.config.seed),
        "run of the pictures": data.run_id,
        "code": data.git_commit or "unknown (not a checkout)",
        "made": data.made_at,
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    settings = escape(json.dumps(config, indent=1))
    return (
        f'<h2>This run</h2><div class="grid2" style="margin-top:1.2rem"><div class="card">{horizontal_bars("Seconds per stage", times, "training")}</div>'
        f'<div class="card"><dl class="facts">{listed}</dl><details style="margin-top:14px"><summary>all settings</summary><pre>{settings}</pre></details></div></div>'
    )


def _footer(data: ReportData) -> str:
    glyphs = (
        " The demo's pictures are drawn from OpenMoji glyphs (openmoji.org, CC BY-SA 4.0), and so is what was learned from them."
        if data.config.source.kind == "emoji_scenes"
        else ""
    )
    return f"<footer>Written by open-dalle after DALL·E (Ramesh et al., 2021, arXiv:2102.12092).{glyphs}</footer>"


def _img(image: Embedded | None, alt: str) -> str:
    if image is None:
        return f'<div class="missing" role="img" aria-label="{escape(alt)} (the file is missing)"></div>'
    pixel = ' class="pixel"' if image.is_pixel_art else ""
    return f'<img{pixel} src="{image.src}" width="{image.width}" height="{image.height}" alt="{escape(alt)}" loading="lazy">'


def _dot(color: str) -> str:
    return f'<span class="dot" style="background:var(--{color})"></span>'


def _about_set(name: str) -> tuple[str, str, str]:
    return SETS.get(name, (name.replace("_", " ").capitalize(), "", "other"))


def _in_order(sets: Sequence[PromptSet]) -> list[PromptSet]:
    known = list(SETS)
    return sorted(sets, key=lambda item: known.index(item.name) if item.name in known else len(known))


def spread(items: Sequence[Picture], number: int) -> list[Picture]:
    """At most `number` items, evenly apart."""
    if len(items) <= number:
        return list(items)
    return [items[round(i * (len(items) - 1) / (number - 1))] for i in range(number)]


def thin_bars(bars: Sequence[tuple[float, float, float]], most: int = 256) -> list[tuple[float, float, float]]:
    """Neighbouring bars joined, each as high as their mean, so that at most `most` are drawn."""
    size = -(-len(bars) // most) or 1
    groups = [bars[i : i + size] for i in range(0, len(bars), size)]
    return [(group[0][0], group[-1][1], sum(bar[2] for bar in group) / len(group)) for group in groups]


def duration(seconds: float) -> str:
    """95 as '1 min 35 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
