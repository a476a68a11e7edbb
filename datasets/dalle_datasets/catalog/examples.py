"""Example answers for sql/README.md: every named query, run on the data root of a demo.

python -m dalle_datasets.catalog.examples DATA_ROOT     # writes the last section of sql/README.md again
"""

import argparse
import textwrap
from pathlib import Path
from typing import Any

from dalle_datasets.catalog.queries import NoFilesError, list_queries, run_query, run_sql
from dalle_datasets.catalog.sql_files import SqlFile, quoted, sql_root
from dalle_datasets.store.layout import Layout, find_data_root
from dalle_datasets.store.parquet import atomic_path

HEADING = "## Every question, with an answer"
_INTRODUCTION = f"""{HEADING}

What `dalle query NAME` says of a small demo (`dalle demo --set source.num_scenes=100`, with trainings of six steps): the first
rows, long values cut. Written by `python -m dalle_datasets.catalog.examples DATA_ROOT`.
"""
_ROWS, _WIDTH, _VALUE_WIDTH = 3, 28, 60
_RUN_OF = "select run_id from runs where job = '{}' order by run_id limit 1"
_VALUES = {
    "generation_id": "select generation_id from generations order by generation_id limit 1",
    "pair_id": "select pair_id from pairs order by pair_id limit 1",
    "prompt": "select prompt from prompts order by prompt_id limit 1",
    "training_set_id": "select training_set_id from training_sets order by training_set_id limit 1",
    "first_training_set_id": "select training_set_id from training_sets order by training_set_id limit 1",
    "second_training_set_id": "select training_set_id from training_sets order by training_set_id desc limit 1",
    "id": "select artifact_id from artifacts where kind = 'transformer' order by artifact_id limit 1",
    "run_id": _RUN_OF.format("generate_images"),
    "first_run_id": _RUN_OF.format("train_dvae"),
    "second_run_id": _RUN_OF.format("train_clip"),
    "words": "select 'on green'",
    "clip_id": "select min(clip_id) from clip_scores",
    "embedding": "select image_embedding::varchar from pair_embeddings({root}) order by pair_id limit 1",
    "dvae_id": "select min(dvae_id) from image_token_shards",
    "image_tokens": "select image_tokens::varchar from image_tokens({root}) order by pair_id limit 1",
    "image_token": "select arg_max(image_token, occurrences) from codebook_usage",
}
"""Required parameter -> the query that finds a value for an example."""


def render(layout: Layout) -> str:
    """The section of the README: a heading, the header and an answer for every query."""
    return "\n".join([_INTRODUCTION, *(_render(layout, file) for file in list_queries())])


def header_of(file: SqlFile) -> str:
    """What the section says of a query before its answer, but for the values of the example."""
    takes = ", ".join(f"`{parameter}`" for parameter in file.parameters if parameter.name != "root") or "nothing"
    return f"### {file.name}\n\n{file.purpose}\nTakes {takes}. Returns `{file.returns}`.\n"


def write(layout: Layout, readme: Path) -> None:
    """Put the section at the end of a README, in place of the one that is there."""
    before, _, _ = readme.read_text().partition(HEADING)
    with atomic_path(readme) as partial:
        partial.write_text(f"{before.rstrip()}\n\n{render(layout)}")


def _render(layout: Layout, file: SqlFile) -> str:
    needed = [parameter.name for parameter in file.parameters if parameter.name != "root" and not parameter.is_optional]
    root = quoted(str(layout.root))
    values = {name: run_sql(layout, _VALUES[name].replace("{root}", root)).column(0)[0].as_py() for name in needed}
    said = "".join(f" --param {name}={_quoted(_cut(str(value), _VALUE_WIDTH))}" for name, value in values.items())
    try:
        answer = _table(run_query(layout, file.name, values).slice(0, _ROWS).to_pylist())
    except NoFilesError as error:
        answer = str(error).partition(" (")[0].replace(str(layout.root), "data")
    return f"{header_of(file)}\n```\n$ dalle query {file.name}{said}\n{answer}\n```\n"


def _quoted(text: str) -> str:
    return text if text.replace("-", "").isalnum() else f'"{text}"'


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "(no rows in the demo)"
    columns = [[name, *(_shown(row[name]) for row in rows)] for name in rows[0]]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(*([cell.ljust(width) for cell in column] for column, width in zip(columns, widths, strict=True)), strict=True)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def _shown(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str("" if value is None else value).split())
    return textwrap.shorten(text, _WIDTH, placeholder=" …") if " " in text else _cut(text, _WIDTH)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the example answers of sql/README.md again.")
    parser.add_argument("data_root", help="the data root of a finished demo")
    write(find_data_root(parser.parse_args().data_root), sql_root() / "README.md")
