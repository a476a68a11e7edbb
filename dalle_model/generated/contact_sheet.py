"""A web page of generated pictures: one row for each prompt, its candidates in CLIP's order."""

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dalle_datasets.store.parquet import atomic_path

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fafafa }
h2 { font-size: 1rem; font-weight: 600; margin: 1.5rem 0 .4rem }
h2 small { font-weight: 400; color: #777 }
figure { display: inline-block; margin: 0 6px 6px 0; text-align: center; font-size: 11px; color: #777 }
img { width: 96px; height: 96px; object-fit: contain; image-rendering: pixelated; display: block; background: #fff; border-radius: 4px }
figure.best img { outline: 3px solid #2a7 }
nav a { margin-right: 1rem }
"""


def write_contact_sheet(path: Path, root: Path, rows: Sequence[Mapping[str, Any]], title: str, links: Mapping[str, str]) -> None:
    """Write one page of rows of `schemas.GENERATIONS`, whose pictures lie under `root`.

    The page points at the pictures by relative URLs, so a run directory can be copied or served as it is.
    `links` are further pages: label -> URL.
    """
    prompts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        prompts.setdefault(row["prompt_id"], []).append(row)
    lines = [f"<h2>{escape(some[0]['prompt'])} <small>{escape(some[0]['prompt_set'])}</small></h2>" + _figures(path, root, some)
             for some in prompts.values()]  # fmt: skip
    nav = "".join(f'<a href="{quote(url)}">{escape(label)}</a>' for label, url in links.items())
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>\n'
        f"<h1>{escape(title)}</h1><nav>{nav}</nav>\n" + "\n".join(lines) + "\n</html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _figures(path: Path, root: Path, candidates: list[Mapping[str, Any]]) -> str:
    figures = []
    for row in sorted(candidates, key=lambda row: int(row["rank"])):
        url = quote(Path(os.path.relpath(root / row["image_path"], path.parent)).as_posix())
        about = f"rank {row['rank']}, CLIP score {row['clip_score']:.3f}, seed {row['seed']}, generation {row['generation_id']}"
        best = ' class="best"' if row["rank"] == 1 else ""
        image = f'<img loading="lazy" src="{url}" alt="{escape(row["prompt"])}" title="{escape(about)}">'
        figures.append(f"<figure{best}>{image}{row['clip_score']:.3f}</figure>")
    return "".join(figures)
