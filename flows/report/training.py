"""How the networks learned: losses, gradients, learning rate, speed, memory and waiting, over the steps of each training.

The same plots stand in the HTML report, read from the catalog, and in Prefect, read from the run's own files.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from flows.report.curves import Logged
from flows.report.data import ReportData
from flows.report.figures import SMALL, Lines, Series, line_chart, short
from flows.report.strips import Strip
from flows.report.templating import fill, piece

NAMES = {"train_dvae": "Discrete VAE", "train_clip": "CLIP", "train_transformer": "Transformer"}
SPLITS = (("train", "training", "accent"), ("validation", "validation", "held"))
BITS = ("bits", math.log(2))


class Plot(NamedTuple):
    """One chart: `flows.report.figures.line_chart` or `line_svg` draw it."""

    title: str
    series: list[Series]
    look: Lines


def training(data: ReportData) -> Markup:
    """Every network's curves, with what its training took, and what the transformer drew on the way."""
    networks = []
    for job, name in NAMES.items():
        plots = plots_of(job, data.logged[job]) if job in data.logged else []
        if plots:
            charts = [line_chart(plot.title, plot.series, plot.look) for plot in plots]
            strips = learning(data.strips) if job == "train_transformer" else Markup()
            networks.append({"name": name, "took": took(data.logged[job]), "strips": strips, "charts": charts})
    lead = (
        "What the networks had left to learn, and what learning took. Where the validation curve leaves the training curve, "
        "learning has turned into remembering. The numbers: dalle query training_summary, training_losses, training_speed, dvae_health."
    )
    return fill("training.html", lead=lead, networks=networks) if networks else Markup()


def learning(strips: Sequence[Strip]) -> Markup:
    """A row of pictures for each prompt, from the first update to the last."""
    return piece("strips.html", "learning", strips)


def plots_of(job: str, logged: Logged) -> list[Plot]:
    """The charts of one training; those of which nothing was logged are left out."""
    makers = {"train_dvae": _dvae, "train_clip": _clip, "train_transformer": _transformer}
    plots = [*makers[job](logged), *_progress(job, logged)]
    return [plot for plot in plots if any(item.points for item in plot.series)]


def _dvae(logged: Logged) -> list[Plot]:
    codes = [
        Series("used", logged.curves.get(("codes_used", "validation"), []), "unseen"),
        Series("dead", logged.curves.get(("codes_dead", "validation"), []), "bad"),
        Series("perplexity", logged.curves.get(("perplexity", "validation"), []), "other"),
    ]
    return [
        _plot(logged, "loss", "Loss: likelihood and KL"),
        _plot(logged, "psnr", "Reconstruction, validation: PSNR", y_name="dB"),
        _plot(logged, "kl_nats", "KL to the uniform distribution", y_name="nats", right=BITS),
        Plot("Codebook on validation pictures", codes, _look(codes, y_name="tokens")),
    ]


def _clip(logged: Logged) -> list[Plot]:
    return [
        _plot(logged, "loss", "Contrastive loss", y_name="nats", right=BITS),
        _plot(logged, "batch_accuracy", "Right caption found in a batch", y_range=(0.0, 1.0), y_text=_percent),
    ]


def _transformer(logged: Logged) -> list[Plot]:
    return [
        _plot(logged, "image_loss", "Loss per image token", y_name="nats", right=BITS),
        _plot(logged, "text_loss", "Loss per text token", y_name="nats", right=BITS),
        _plot(logged, "caption_gain", "Worth of a picture's own caption, per image token", y_name="nats", right=BITS),
    ]


def _progress(job: str, logged: Logged) -> list[Plot]:
    """What every training logs."""
    rate = ("pairs_per_s", "Pairs per second") if job == "train_clip" else ("tokens_per_s", "Tokens per second")
    return [
        _plot(logged, "gradient_norm", "Gradient norm before clipping"),
        _by_part(logged),
        _plot(logged, "learning_rate", "Learning rate"),
        _rate(logged, *rate),
        _rate(logged, "mfu", "Model FLOPs, share of peak (MFU)", y_text=_percent),
        _rate(logged, "data_wait_share", "Waiting for data, share of time", y_text=_percent),
        _rate(logged, "memory_gib", "Memory at most", y_name="GiB"),
    ]


def _by_part(logged: Logged) -> Plot:
    """The last norms of the gradients of the parts of a network, named `kind_number`, from the first to the last."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for (name, split), points in sorted(logged.curves.items()):
        kind, _, number = name.rpartition("_")
        if split == "gradients" and number.isdecimal():
            kinds.setdefault(kind, []).append((float(number), points[-1][1]))
    colors = ("training", "held", "unseen", "other")
    series = [Series(kind.replace("_", " "), norms, colors[i % len(colors)]) for i, (kind, norms) in enumerate(kinds.items())]
    return Plot("Gradient norm by layer, at the end", series, Lines("layer", with_dots=True, size=SMALL))


def _plot(
    logged: Logged, name: str, title: str, y_name: str = "", right: tuple[str, float] | None = None,
    y_range: tuple[float, float] | None = None, y_text: Callable[[float], str] = short,
) -> Plot:  # fmt: skip
    """Training and validation curve of one number."""
    series = [Series(label, logged.curves[name, split], color) for split, label, color in SPLITS if (name, split) in logged.curves]
    return Plot(title, series, _look(series, y_name, right, y_range, y_text))


def _rate(logged: Logged, name: str, title: str, y_name: str = "", y_text: Callable[[float], str] = short) -> Plot:
    """A figure that depends on the machine; its axis begins at zero."""
    points = logged.speed.get(name, [])
    top = 1.08 * max((y for _, y in points), default=0.0)
    series = [Series("training", points, "training")]
    return Plot(title, series, _look(series, y_name, y_range=(0.0, top or 1.0), y_text=y_text))


def _look(
    series: Sequence[Series], y_name: str = "", right: tuple[str, float] | None = None,
    y_range: tuple[float, float] | None = None, y_text: Callable[[float], str] = short,
) -> Lines:  # fmt: skip
    few = all(len(item.points) < 15 for item in series)
    return Lines("optimiser steps", y_range, with_dots=few, y_text=y_text, y_name=y_name, right=right, size=SMALL)


def took(logged: Logged) -> str:
    """What a training took, in words."""
    row = logged.summary
    if not row:
        return ""
    said = [f"{row['num_steps']:,} steps"]
    if row["duration_s"]:
        said[0] += f" in {row['duration_s']:,.0f} s"
    if row["num_processes"]:
        said[0] += f" on {row['num_processes']} process{'es' if row['num_processes'] > 1 else ''}"
    rate, unit = (row["tokens_per_s"], "tokens/s") if row["tokens_per_s"] else (row["pairs_per_s"], "pairs/s")
    said.append(f"{rate:,.0f} {unit}" if rate else "")
    said.append(f"{row['mfu']:.0%} of the device's peak (MFU)" if row["mfu"] else "")
    said.append(f"{row['data_wait_share']:.1%} of the time waiting for data" if row["data_wait_share"] is not None else "")
    said.append(f"{row['memory_bytes'] / 2**30:.2f} GiB at most" if row["memory_bytes"] else "")
    return " · ".join(filter(None, said))


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
