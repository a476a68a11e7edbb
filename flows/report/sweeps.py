"""The section about the sampler's settings: how agreement changes with one of them while the others stay."""

from collections.abc import Sequence

from markupsafe import Markup

from flows.report.data import ReportData, Row
from flows.report.elements import SETS, about_set
from flows.report.figures import Lines, Series, line_chart
from flows.report.templating import fill

SETTINGS = {
    "temperature": "Temperature",
    "guidance": "Guidance (1: none)",
    "top_k": "Top-k: tokens that may be drawn",
    "top_p": "Top-p: share of probability that may be drawn",
}
OTHERS = ("transformer_id", *SETTINGS)
"""What must be equal for runs to be compared."""
COLUMNS = (("best_of_32", "best of 32 by CLIP"), ("best_of_8", "best of 8 by CLIP"), ("one", "one picture"))
"""The first that the runs have enough candidates for is drawn in full, against the last."""


def sweeps(data: ReportData) -> Markup:
    """A chart for every setting that was tried at several values; nothing when all runs were made with the same."""
    charts = [_chart(name, title, found) for name, title in SETTINGS.items() if (found := vary(data.by_settings, name))]
    lead = (
        "The share of pictures with everything right, by the sampler's settings: one is changed while the others stay. Full lines are the "
        "best that CLIP finds among the candidates, dashed ones a single picture. The numbers: dalle query agreement_by_settings."
    )
    return fill("columns.html", title="Which settings help?", lead=lead, charts=charts) if charts else Markup()


def vary(rows: Sequence[Row], name: str) -> list[Row]:
    """The largest set of rows that differ in the setting `name` and nothing else; empty when there is none with two values."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if row[name] is not None:
            groups.setdefault(tuple(row[other] for other in OTHERS if other != name), []).append(row)
    largest = max(groups.values(), key=lambda group: len({row[name] for row in group}), default=[])
    return sorted(largest, key=lambda row: row[name]) if len({row[name] for row in largest}) > 1 else []


def _chart(name: str, title: str, rows: Sequence[Row]) -> Markup:
    column, said = next(item for item in COLUMNS if any(row[item[0]] is not None for row in rows))
    chosen = [_series(rows, prompt_set, name, column) for prompt_set in _sets_of(rows)]
    single = [_series(rows, prompt_set, name, "one", is_dashed=True) for prompt_set in _sets_of(rows)] if column != "one" else []
    values = sorted({row[name] for row in rows})
    look = Lines(name.replace("_", "-"), (0, 1), values, with_dots=True, y_text=lambda share: f"{share:.0%}")
    legend = [*chosen, Series("one picture, not reranked", [], "grey", is_dashed=True)] if single else chosen
    return line_chart(f"{title}: {said}", [*chosen, *single], look, legend)


def _sets_of(rows: Sequence[Row]) -> list[str]:
    names = {row["prompt_set"] for row in rows}
    return [name for name in SETS if name in names] + sorted(names - set(SETS))


def _series(rows: Sequence[Row], prompt_set: str, name: str, column: str, is_dashed: bool = False) -> Series:
    title, _, color = about_set(prompt_set)
    points = [(row[name], row[column]) for row in rows if row["prompt_set"] == prompt_set and row[column] is not None]
    return Series(title, points, color, is_dashed)
