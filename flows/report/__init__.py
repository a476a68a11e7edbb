"""The HTML report: one file that shows what a run made, how good it is, and where every picture comes from."""

from pathlib import Path

from dalle_datasets.layout import Layout
from dalle_datasets.parquet import atomic_path
from dalle_model.config.tree import Config


def write_report(layout: Layout, config: Config) -> Path:
    """Write the report of the newest pictures made with these settings; returns its path.

    Raises `ValueError` when nothing has been published or no picture has been made yet.
    """
    from flows.report.data import collect
    from flows.report.page import render

    page = render(collect(layout, config))
    with atomic_path(layout.report) as partial:
        partial.write_text(page, encoding="utf-8")
    return layout.report
