"""The page beside exported pairs: how many, chosen how, under which licences, and how to read them. Hugging Face shows it as a card."""

from dalle_datasets.catalog.pair_exports import PairExport
from dalle_datasets.catalog.pair_shards import SUFFIXES, Form
from flows.report.model_card import plain

_READ = {
    "webdataset": "Each pair is three members of a tar with one name, its id: the picture, `.txt` its caption, `.json` all else.",
    "parquet": "Each row is a pair; the column `image` holds the bytes of the picture file.",
    "hf": "Each row is a pair; `datasets.load_dataset` reads this folder and gives pictures in the column `image`.",
}


def render_pairs_card(made: PairExport, form: Form, recipe: str) -> str:
    """The page as Markdown, with the splits in its head as Hugging Face wants them."""
    kind = "webdatasets" if form == "webdataset" else "url_tables"
    lines = ["---", "license: other", "task_categories: [text-to-image]", "configs:", "- config_name: default", "  data_files:"]
    lines += [f"  - {{split: {split}, path: {split}-*{SUFFIXES[form]}}}" for split in made.splits]
    lines += [
        "---",
        "",
        "# Pairs of a caption and a picture",
        "",
        f"{made.num_pairs:,} pairs, collected with open-dalle and chosen by its recipe `{recipe}`; `export.json` holds its text, its",
        f"parameters and the SHA-256 of each file. {_READ[form]}",
        "",
        "| licence, as the page or table gave it | pairs |",
        "| --- | ---: |",
        *(f"| {plain(licence) or 'not known'} | {num_pairs:,} |" for licence, num_pairs in made.licences),
        "",
        "A picture whose licence is not known may be used only as the law where you are permits. Pictures of which somebody asked to be",
        "forgotten before this export are not in it; `page_url` says where each one stood, so that you can ask and look again.",
        "",
        f"Another open-dalle reads them with `source.kind={kind}` and gives the same `pair_id` to all but pictures that were made plain",
        "or padded: theirs is a hash of the bytes that were downloaded (`sha256`), which are not here.",
        "",
    ]
    return "\n".join(lines)
