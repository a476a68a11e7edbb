"""Ask the published catalog of a data root with a plain DuckDB: python examples/query_catalog.py data

`dalle query` runs the named questions of sql/queries/; this shows that any DuckDB client will do, also while the pipeline runs.
"""

import sys
from pathlib import Path

import duckdb


def main(data_root: str) -> None:
    """Print what was kept and why the rest was not, and write the picture of the best pair into the working directory."""
    catalog = duckdb.connect(f"{data_root}/catalog/published.duckdb", read_only=True)
    print(catalog.sql("select source, split, count(*) as num_pairs from pairs group by all order by all"))
    print(catalog.sql("select stage, reason, count(*) as num_dropped from dropped_pairs group by all order by num_dropped desc"))

    # Bytes stay in Parquet files; macros such as images(root) read those that the catalog knows.
    question = """
        select scored.caption, scored.clip_score, pictures.image
        from training_pairs as scored
        inner join images(?) as pictures on scored.pair_id = pictures.pair_id
        order by scored.clip_score desc, scored.pair_id
        limit 1
    """
    for caption, score, image in catalog.execute(question, [data_root]).fetchall():
        Path("best-pair").write_bytes(image)
        print(f"best-pair  {caption!r}, CLIP score {score:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
