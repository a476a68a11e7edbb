"""Collect a folder of captioned pictures from Python: python examples/own_folder.py birds/ birds-data

`birds/` holds `wren.jpg` beside `wren.txt`, or a `metadata.csv`. `dalle train birds/` does this and then trains.
"""

import sys

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import open_data_root
from dalle_datasets.store.parquet import iter_batches
from dalle_datasets.store.schemas import PAIRS


def main(folder: str, data_root: str) -> None:
    """Print what became of the pictures: three stages, each of which may be run again and then does only what is left."""
    layout = open_data_root(data_root)
    source = SourceConfig(name="mine", kind="image_folders", inputs=(folder,))
    download = DownloadConfig()
    rules = FilterConfig(min_caption_words=1, languages=(), min_side=24, fit="pad")  # what suits captions by hand

    found = discover(source, download, layout)
    pictures = download_images(source, download, layout)
    kept = filter_pairs(source, download, rules, ShardsConfig(), layout)
    print(f"{found.num_candidates} captioned pictures, {pictures.num_images} read, {kept.num_pairs} pairs kept")
    for reason, num in kept.dropped.items():
        print(f"  dropped {num} as {reason}")
    for batch in iter_batches(layout.pairs("mine"), PAIRS, ["pair_id", "split", "caption"], 1_000):
        for pair in batch.to_pylist():
            print(f"  {pair['pair_id']}  {pair['split']}  {pair['caption']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
