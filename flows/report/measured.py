"""Figures of a batch in words, as a table and as a section of the gallery: how good are pictures for captions
nobody trained on?"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dalle_datasets.prompts.write import SEEN_CAPTION
from flows.report.data import ReportData
from flows.report.elements import about_set
from flows.report.figures import Lines, Series, line_chart
from flows.report.templating import fill

Row = Mapping[str, Any]

_SETS = {
    "validation": "captions that training never saw",
    SEEN_CAPTION: "captions that occur in training",
    "unseen_scene": "scenes that training never saw",
    "held_out_pair": "objects in a colour that training never saw",
    "own": "one's own captions",
}
_MOST_NEW = ("held_out_pair", "unseen_scene", "validation")
DISTANCES = {"frechet": "Fréchet distance", "kid": "KID's formula", "cmmd": "CMMD's formula, x 1,000"}
NAMES = {
    "retrieval": "own caption found among 100",
    "clip_score": "cosine with the caption",
    "diversity": "1 - cosine between candidates",
    "copies": "look copied",
    "copied_tokens": "95% of the tokens of a training picture",
    "copied_features": "cosine of 0.99 with a training picture",
    "psnr": "PSNR of the dVAE, dB",
    "ssim": "SSIM of the dVAE",
    "codes_used": "codes in use",
    "perplexity": "perplexity of the codes",
    **DISTANCES,
}
"""Figure -> what it is, for people."""


def describe_figures(rows: Sequence[Row]) -> list[str]:
    """What the figures of a batch say, a sentence or two each; the newest captions first. Nothing for no
    figures."""
    said = []
    for name in _sets_of(rows):
        said += _about_set(rows, name)
    if rows and SEEN_CAPTION in (names := _sets_of(rows)) and len(names) == 1:
        said.append("Every caption that was asked for occurs in training, too, so nothing is known about new ones.")
    psnr, ssim = _one(rows, "psnr", "reconstructed"), _one(rows, "ssim", "reconstructed")
    if psnr:
        likeness = f", SSIM {ssim['value']:.2f}" if ssim else ""
        said.append(f"The dVAE gives pictures that were kept apart back at {psnr['value']:.1f} dB{likeness}.")
    return said


def _about_set(rows: Sequence[Row], name: str) -> list[str]:
    drawn = [row for row in rows if row["figure"] == "retrieval" and row["prompt_set"] == name]
    if not drawn:
        return []
    best, one = max(drawn, key=lambda row: row["best_of"]), min(drawn, key=lambda row: row["best_of"])
    chance, real = _one(rows, "retrieval", "chance"), _one(rows, "retrieval", "real")
    among = round(1 / chance["value"]) if chance else 100
    judge = "the CLIP that chose them" if "the CLIP that chose" in (best["note"] or "") else "a CLIP that did not choose them"
    beside = [f"without a choice {_share(one)}"] if one is not best else []
    beside += [f"chance {1 / among:.1%}", *([f"real pictures {_share(real)}"] if real else [])]
    said = [
        f"{about(name)}: {judge} finds the right one among {among} for {_share(best)} of the best of {best['best_of']} pictures; "
        f"{', '.join(beside)} ({best['num_samples']} prompts)."
    ]
    if judge == "the CLIP that chose them":
        said.append("It judges its own choice, so that is too good; `dalle evaluate` trains another one.")
    if copies := _one(rows, "copies", "drawn", name):
        floor = _one(rows, "copies", "real")
        beside_real = f"; of real pictures that were kept apart {_share(floor)} do" if floor else ""
        said.append(f"{_share(copies)} of these look copied from a training picture{beside_real}.")
    return said


def about(prompt_set: str) -> str:
    """A set of prompts as the beginning of a sentence."""
    said = _SETS.get(prompt_set, prompt_set.replace("_", " "))
    return said[0].upper() + said[1:]


def _share(row: Row) -> str:
    """`23% (17-29%)`."""
    interval = "" if row["low"] is None else f" ({row['low'] * 100:.0f}-{row['high']:.0%})"
    return f"{row['value']:.0%}{interval}"


def _one(rows: Iterable[Row], figure: str, pictures: str, prompt_set: str | None = None) -> Row | None:
    wanted = (figure, pictures, prompt_set)
    return next((row for row in rows if (row["figure"], row["pictures"], row["prompt_set"]) == wanted), None)


def _sets_of(rows: Iterable[Row]) -> list[str]:
    names = {row["prompt_set"] for row in rows if row["prompt_set"]}
    return [
        *(name for name in _MOST_NEW if name in names),
        *sorted(names - {*_MOST_NEW, SEEN_CAPTION}),
        *(n for n in (SEEN_CAPTION,) if n in names),
    ]


def figure_rows(rows: Iterable[Row]) -> list[dict[str, str]]:
    """The figures as text, a row each, for a terminal."""
    return [
        {
            "figure": NAMES.get(str(row["figure"]), str(row["figure"])),
            "pictures": row["pictures"] + (f", best of {row['best_of']}" if row["best_of"] else ""),
            "prompts": _SETS.get(row["prompt_set"] or "", row["prompt_set"] or ""),
            "blur": f"{row['blur_radius']:g}" if row["blur_radius"] else "",
            "value": number(row["value"]),
            "95% interval": "" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}",
            "of": f"{row['num_samples']:,}",
            "note": row["note"] or "",
        }
        for row in rows
    ]


def number(value: float) -> str:
    """Three figures that count."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def measured(data: ReportData) -> Markup:
    """How good the pictures are: curves over n, distances under blur, and the figures with intervals."""
    rows = data.figures
    if not rows:
        return Markup()
    space = next((row["space"] for row in rows if row["figure"] == "retrieval" and row["prompt_set"]), "")
    lead = (
        "A picture is right when a CLIP finds its caption among 100. Captions that occur in training are counted apart. Distances are "
        f"between features of {space}: they can be compared with other distances of the same features and the same number of pictures, "
        "and with those of training pictures beside them, which are as far as real pictures are from real ones. Ranges are 95% intervals."
    )
    plain = [row for row in rows if not row["blur_radius"] and row["best_of"] in (None, 1, _most(rows))]
    head = ["figure", "pictures", "prompts", "value", "95% interval", "of", "note"]
    body = [[row[name] for name in head] for row in figure_rows(plain)]
    return fill(
        "charts_and_table.html",
        title="How good is it?",
        lead=lead,
        sentences=describe_figures(rows),
        charts=[_over_n(rows), _over_blur(rows)],
        caption="Figures: dalle query evaluation",
        head=head,
        body=body,
    )


def _most(rows: Iterable[Row]) -> int:
    return max((row["best_of"] or 1 for row in rows), default=1)


def _over_n(rows: Sequence[Row]) -> Markup:
    found = [row for row in rows if row["figure"] == "retrieval" and row["best_of"]]
    ticks = sorted({row["best_of"] for row in found})
    lines = [
        Series(about(name), [(row["best_of"], row["value"]) for row in found if row["prompt_set"] == name], about_set(name)[2])
        for name in _sets_of(found)
    ]
    level = {"chance": "chance", "real": "real pictures"}
    lines += [
        Series(said, [(n, row["value"]) for n in ticks], "grey", is_dashed=True)
        for pictures, said in level.items()
        if (row := _one(rows, "retrieval", pictures))
    ]
    look = Lines("best of n by the CLIP that ranks", (0, 1), ticks, with_dots=True, y_text=lambda share: f"{share:.0%}")
    return line_chart("Own caption found among 100", lines, look)


def _over_blur(rows: Sequence[Row]) -> Markup:
    found = [row for row in rows if row["figure"] == "frechet" and row["pictures"] == "drawn" and row["best_of"] == _most(rows)]
    ticks = sorted({row["blur_radius"] for row in found})
    lines = [
        Series(about(name), [(row["blur_radius"], row["value"]) for row in found if row["prompt_set"] == name], about_set(name)[2])
        for name in _sets_of(found)
    ]
    return line_chart("Fréchet distance to real pictures, both blurred", lines, Lines("blur, pixels", None, ticks, with_dots=True))
