"""The section about the discrete VAE: what it keeps of a picture, and how much of its codebook is in use."""

from collections.abc import Sequence

from flows.report.data import ReportData
from flows.report.elements import card, heading, image, stack, two_columns
from flows.report.figures import Lines, Series, histogram, line_chart

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
    curves = data.logged["train_dvae"].curves if "train_dvae" in data.logged else {}
    perplexity = Series("perplexity", curves.get(("perplexity", "validation"), []), "other")
    quality = line_chart(
        "Perplexity of the codebook while it was trained", [perplexity], Lines("optimiser steps", with_dots=True, y_name="tokens")
    )
    return heading("The discrete VAE: pictures as tokens", " ".join(lead)) + stack(
        card(_reconstructions(data)), two_columns(card(usage), card(quality))
    )


def _reconstructions(data: ReportData) -> str:
    items = "".join(
        f"<li>{image(original, f'validation picture {i}')}{image(rebuilt, f'validation picture {i}, rebuilt from its tokens')}</li>"
        for i, (original, rebuilt) in enumerate(data.reconstructions, 1)
    )
    return f'<h3>Originals above, reconstructions below</h3><ul class="pairs">{items}</ul>' if items else ""


def join_bars(bars: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Neighbouring bars joined, each as high as their mean, so that at most `MAX_BARS` are drawn."""
    size = -(-len(bars) // MAX_BARS) or 1
    groups = [bars[i : i + size] for i in range(0, len(bars), size)]
    return [(group[0][0], group[-1][1], sum(bar[2] for bar in group) / len(group)) for group in groups]
