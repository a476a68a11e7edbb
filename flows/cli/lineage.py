"""`dalle lineage`: where a generated picture came from."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import ConfigFile, Preset, Settings, resolve
from flows.cli.query import Format, write_rows


def lineage(
    picture: Annotated[str, typer.Argument(help="A picture file that open-dalle made, or its generation_id.")],
    form: Annotated[Format, typer.Option("--format", "-f", help="How to write the rows.")] = "table",
    preset: Preset = None,
    settings: Settings = None,
    config_file: ConfigFile = None,
) -> None:
    """Show where a picture came from: prompt, seed, networks, training set with its SQL, pairs, sources and pages.

    A picture file says itself which generation it is, wherever it was copied to. What the data root does not hold is read from the file.
    """
    import pyarrow as pa

    from dalle_datasets.catalog import queries
    from dalle_datasets.store.layout import find_data_root
    from dalle_model.generated.image_files import read_origin

    path = Path(picture).expanduser()
    origin = read_origin(path) if path.is_file() else {}
    try:
        layout = find_data_root(resolve(preset, settings, config_file).paths.data_root)
        rows = queries.run_query(layout, "lineage", {"generation_id": origin.get("generation_id", picture)})
    except ValueError as error:
        if not origin:
            raise
        print(f"what {path} itself says, because of this data root: {error}", file=sys.stderr)
        rows = pa.table({"fact": list(origin), "value": list(map(str, origin.values()))})
    write_rows(rows, form)
