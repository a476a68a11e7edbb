"""The HTML reports, one file each: what a run made, how good it is and where every picture comes from; and what was collected."""

from pathlib import Path
from typing import TYPE_CHECKING

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import atomic_path
from dalle_model.config.tree import Config

if TYPE_CHECKING:
    from flows.report.collection_data import CollectionData


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


def write_collection_report(layout: Layout, data: "CollectionData | None" = None) -> Path:
    """Write the report of what was collected, from the published catalog unless `data` has been read; returns its path.

    Raises `ValueError` when nothing has been published or collected yet.
    """
    from flows.report.collection import render_collection
    from flows.report.collection_data import collect_collection

    page = render_collection(data or collect_collection(layout))
    with atomic_path(layout.collection_report) as partial:
        partial.write_text(page, encoding="utf-8")
    return layout.collection_report
