"""The report as one HTML file: nothing is loaded from anywhere, and it reads well in light and in dark."""

from collections.abc import Sequence

from markupsafe import Markup

from flows.report.by_heart import describe_memory
from flows.report.data import Picture, ReportData
from flows.report.elements import SETS, about_set, document
from flows.report.measured import describe_figures, measured
from flows.report.networks import dvae
from flows.report.origins import drops, lineage, pairs, queries, this_run
from flows.report.results import candidates, pictures, reranking
from flows.report.sweeps import sweeps
from flows.report.templating import fill
from flows.report.training import training

SECTIONS = {
    "Pictures": pictures,
    "Figures": measured,
    "Reranking": reranking,
    "Settings": sweeps,
    "Candidates": candidates,
    "dVAE": dvae,
    "Training": training,
    "Pairs": pairs,
    "Left out": drops,
    "Lineage": lineage,
    "Ask": queries,
    "This run": this_run,
}
NUM_WALL = 12
"""Pictures beside the title."""


def render(data: ReportData) -> str:
    """The whole page. A section with nothing to show is left out."""
    return document("what this run made", _header(data), {name: section(data) for name, section in SECTIONS.items()}, _footer(data))


def _header(data: ReportData) -> Markup:
    shown = [picture for item in data.prompt_sets for picture in item.pictures if picture.image]
    right = [picture for picture in shown if picture.is_right]
    wall = spread(right or shown, NUM_WALL)
    where = "came out right, taken evenly from those below" if right else "are below, too"
    num_prompts = sum(item.num_prompts for item in data.prompt_sets)
    seconds = sum(row["duration_s"] for row in data.stage_times if not row["was_skipped"])
    lead = [
        *describe_figures(data.figures),
        describe_memory(data.results.get("train_transformer", {})),
        "A discrete VAE, a transformer over text and image tokens, and a CLIP that picks the best of "
        f"{data.config.sampling.num_images} candidates, all trained from nothing.",
        f"The last start of the pipeline took {duration(seconds)}; what was there already was not made again." if seconds else "",
        f"Pictures made on {data.made_at}." if data.made_at else "",
    ]
    title = f"{num_prompts:,} captions, drawn by networks that learned from {data.num_pairs:,} pairs"
    return fill("header.html", title=title, lead=" ".join(filter(None, lead)), wall=wall, where=where, numbers=_stats(data))


def _stats(data: ReportData) -> list[tuple[str, str]]:
    """The few numbers that say how good it is."""
    transformer, autoencoder = data.results.get("train_transformer", {}), data.results.get("train_dvae", {})
    most = {row["prompt_set"]: row for row in data.agreement}  # ordered by n: the last one stays
    stats = [
        (f"{most[name]['all_right']:.0%}", f"{about_set(name)[0]}: all four right, best of {most[name]['best_of']}")
        for name in (*SETS, *sorted(set(most) - set(SETS)))
        if name in most
    ]
    if "psnr" in autoencoder:
        stats.append((f"{autoencoder['psnr']:.1f} dB", "reconstruction by the dVAE (PSNR)"))
    if health := data.codebook_health:
        stats.append((f"{health['codes_used']:,}", f"of {health['codebook_size'] or 0:,} image tokens in use"))
    if "num_parameters" in transformer:
        stats.append((f"{transformer['num_parameters'] / 1e6:,.2f} M", "parameters of the transformer"))
    return stats


def _footer(data: ReportData) -> str:
    glyphs = " Drawn and learned from OpenMoji glyphs (openmoji.org, CC BY-SA 4.0)." if data.config.source.kind == "emoji_scenes" else ""
    return f"Made with open-dalle, after DALL·E (Ramesh et al., 2021, arXiv:2102.12092).{glyphs}"


def spread(items: Sequence[Picture], number: int) -> list[Picture]:
    """At most `number` items, evenly apart."""
    if len(items) <= number:
        return list(items)
    return [items[round(i * (len(items) - 1) / (number - 1))] for i in range(number)]


def duration(seconds: float) -> str:
    """95 as '1 min 35 s'."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
