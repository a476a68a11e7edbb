"""The section about the discrete VAE: what it keeps of a picture, and how much of its codebook is in use."""

from collections.abc import Sequence

from markupsafe import Markup

from flows.report.data import ReportData
from flows.report.figures import Lines, Series, histogram, line_chart
from flows.report.templating import fill

MAX_BARS = 256


def dvae(data: ReportData) -> Markup:
    """Reconstructions beside originals, and how much of the codebook is in use."""
    if not data.reconstructions and not data.codebook:
        return Markup()
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
    return fill("dvae.html", lead=" ".join(lead), reconstructions=data.reconstructions, usage=usage, quality=quality)


def join_bars(bars: Sequence[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Neighbouring bars joined, each as high as their mean, so that at most `MAX_BARS` are drawn."""
    size = -(-len(bars) // MAX_BARS) or 1
    groups = [bars[i : i + size] for i in range(0, len(bars), size)]
    return [(group[0][0], group[-1][1], sum(bar[2] for bar in group) / len(group)) for group in groups]
