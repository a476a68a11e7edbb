"""The sections about the networks: what the dVAE keeps of a picture, and how all three learned."""

from collections.abc import Sequence

from flows.report.data import ReportData
from flows.report.elements import card, heading, image, stack, two_columns
from flows.report.figures import Series, histogram, line_chart

MAX_BARS = 256


def dvae(data: ReportData) -> str:
    """Reconstructions beside originals, and how much of the codebook is in use."""
    if not data.reconstructions and not data.codebook:
        return ""
    config = data.config.dvae
    lead = [
        f"Each {config.image_size} × {config.image_size} picture becomes {config.image_grid_size} × {config.image_grid_size} tokens "
        f"out of a codebook of {config.codebook_size:,}; the transformer draws with nothing but these."
    ]
    if "psnr" in (result := data.results.get("train_dvae", {})):
        lead.append(f"Rebuilt validation pictures reach {result['psnr']:.1f} dB (PSNR).")
    if health := data.codebook_health:
        lead.append(
            f"{health['codes_used']:,} of {health['codebook_size'] or 0:,} tokens are used, with a perplexity of "
            f"{health['perplexity']:.0f}; the most used one is {health['top_code_share']:.0%} of all tokens."
        )
    used = sorted((row["occurrences"] for row in data.codebook if row["occurrences"]), reverse=True)
    bars = [(float(i), float(i + 1), 100 * count / sum(used)) for i, count in enumerate(used)]
    usage = histogram("How often each token is used: share of all, %", join_bars(bars), x_label="tokens, most used first", is_log=True)
    quality = curve(data, "train_dvae", "psnr", "Reconstruction of validation pictures, PSNR in dB")
    return heading("The discrete VAE: pictures as tokens", " ".join(lead)) + stack(
        card(_reconstructions(data)), two_columns(card(usage), card(quality))
    )


def _reconstructions(data: ReportData) -> str:
    items = "".join(
        f"<li>{image(original, f'validation picture {i}')}{image(rebuilt, f'validation picture {i}, rebuilt from its tokens')}</li>"
        for i, (original, rebuilt) in enumerate(data.reconstructions, 1)
    )
    return f'<h3>Originals above, reconstructions below</h3><ul class="pairs">{items}</ul>' if items else ""


def training(data: ReportData) -> str:
    """The loss curves."""
    charts = [
        curve(data, "train_dvae", "loss", "dVAE: loss"),
        curve(data, "train_clip", "loss", "CLIP: contrastive loss"),
        curve(data, "train_transformer", "image_loss", "Transformer: image tokens, nats"),
        curve(data, "train_transformer", "text_loss", "Transformer: text tokens, nats"),
    ]
    lead = (
        "What the three networks had left to learn. Where the validation curve leaves the training curve, "
        "learning has turned into remembering."
    )
    return heading("Training", lead) + two_columns(*map(card, charts)) if any(charts) else ""


def curve(data: ReportData, job: str, name: str, title: str) -> str:
    """Training and validation curve of one number; nothing when it was never logged."""
    series = [
        Series(label, data.curves[job, name, split], color)
        for split, label, color in (("train", "training", "accent"), ("validation", "validation", "held"))
        if (job, name, split) in data.curves
    ]
    if not series:
        return ""
    few = all(len(item.points) < 15 for item in series)
    return line_chart(title, series, x_label="optimiser steps", with_dots=few, legend=series)


def join_bars(bars: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Neighbouring bars joined, each as high as their mean, so that at most `MAX_BARS` are drawn."""
    size = -(-len(bars) // MAX_BARS) or 1
    groups = [bars[i : i + size] for i in range(0, len(bars), size)]
    return [(group[0][0], group[-1][1], sum(bar[2] for bar in group) / len(group)) for group in groups]
