"""Prompts of a batch: given one by one, in a file, by a query, or those that the source comes with."""

from collections.abc import Sequence
from pathlib import Path

from dalle_datasets.catalog.queries import run_sql
from dalle_datasets.prompts.read import PromptRows, read_prompts, table_prompts, text_prompts
from dalle_datasets.prompts.write import scene_prompts, validation_prompts, write_prompts
from dalle_datasets.store.layout import Layout, open_data_root
from dalle_model.config.tree import Config
from flows.runtime.upstream import find


def ask_for(
    config: Config, prompts: Sequence[str] | None = None, prompts_file: str | None = None, prompts_query: str | None = None
) -> dict[str, str]:
    """Write the prompts to files; returns the inputs of `generate_images` that name them.

    `prompts_file` is anything that `read_prompts` reads, or a `.sql` file; `prompts_query` is SQL on the published catalog. Without any
    of the three: the prompts the source comes with. Raises `ValueError` when more than one is given, or none of the rows is usable.
    """
    layout = open_data_root(config.paths.data_root)
    ways = {"prompts": prompts, "prompts_file": prompts_file, "prompts_query": prompts_query}
    if len(given := [name for name, value in ways.items() if value is not None]) > 1:
        raise ValueError(f"{' and '.join(given)} are given; choose one")
    if prompts is not None:
        return _write(layout, text_prompts(prompts))
    if prompts_query is not None:
        return _write(layout, table_prompts(run_sql(layout, prompts_query), "the query"), prompts_query)
    if prompts_file is not None and Path(prompts_file).suffix == ".sql":
        query = _read_query(prompts_file)
        return _write(layout, table_prompts(run_sql(layout, query), prompts_file), query)
    if prompts_file is not None:
        return _write(layout, read_prompts(prompts_file))
    if config.source.kind == "emoji_scenes":
        return write_prompts(layout, scene_prompts(config.source, config.evaluate.num_prompts))
    return write_prompts(layout, validation_prompts(layout.root / find("pairs", config)["pairs"], config.evaluate.num_prompts))


def _write(layout: Layout, found: PromptRows, query: str = "") -> dict[str, str]:
    return write_prompts(layout, found.prompts, found.dropped, query)


def _read_query(path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except OSError as error:
        raise ValueError(f"prompts {path}: cannot be read ({error.strerror}); correct the path") from error
