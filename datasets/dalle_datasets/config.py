"""Settings of the data side: where pairs come from, how they are downloaded, filtered and stored.

Every section checks itself; checks that span sections live in `dalle_model.config.tree`.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Literal

from dalle_datasets.ranges import LONG_S, MANY, check_ranges
from dalle_datasets.store.identity import LATER, OPERATIONAL


@dataclass(frozen=True, kw_only=True, slots=True)
class PathsConfig:
    """Where everything is written."""

    data_root: str = "data"
    """Folder that holds all artefacts, runs and the catalog. `DALLE_DATA_ROOT` overrides the default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """Which pages to read captions and image URLs from."""

    name: str = "web"
    """Name of the source: a folder name and a column value; letters, digits, '-' and '_'."""
    kind: Literal["emoji_scenes", "web_pages", "web_archives", "url_tables", "image_folders", "webdatasets", "mixed"] = "web_pages"
    """`emoji_scenes` publishes the demo's own site on the loopback address and reads that; `web_pages` follows links from `start_urls`;
    `web_archives` (WARC, WAT), `url_tables` (CSV, TSV, JSON lines, Parquet), `image_folders` and `webdatasets` (tar) read `inputs`;
    `mixed` reads all of these together: `start_urls`, and `inputs` of any kind, which is known by their names."""
    start_urls: tuple[str, ...] = ()
    """`web_pages` and `mixed`: pages to start from (http or https)."""
    inputs: tuple[str, ...] = ()
    """Files to read: paths, patterns such as `crawl/*.warc.gz`, folders, or (archives and tables) http and https URLs."""
    caption_lines: Literal["separate", "joined"] = field(default="separate", metadata=LATER)
    """Folders and webdatasets: whether every line of a caption file is a caption of its own, or all lines are one caption."""
    max_pages: int = 1_000
    """Stop after this many pages."""
    use_sitemaps: bool = False
    """Also read the pages (and captioned images) that the sitemaps of the start URLs' hosts list."""
    user_agent: str = "open-dalle/0.1 (+https://github.com/open-dalle/open-dalle)"
    """Sent with every request; its first token is matched against robots.txt."""
    page_timeout_s: float = 20.0
    """Longest wait for one page, seconds."""
    num_scenes: int = 2_500
    """`emoji_scenes` only: how many clean captioned scenes the site publishes (its dirt comes on top)."""
    scene_size: int = 64
    """`emoji_scenes` only: side of a published picture, pixels."""
    port: int = field(default=0, metadata=OPERATIONAL)
    """`emoji_scenes` only: port of the site on the loopback address; 0 takes a free one. Recorded URLs do not depend on it."""

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_" for c in self.name):
            raise ValueError(f"source.name={self.name!r} becomes a folder name; use letters, digits, '-' and '_'")
        if self.kind in ("web_pages", "mixed"):
            for url in self.start_urls:
                if not url.startswith(("http://", "https://")):
                    raise ValueError(f"source.start_urls has {url!r}; only http:// and https:// pages can be read")
        if self.inputs and self.kind in ("emoji_scenes", "web_pages"):
            raise ValueError(f"source.inputs is set, but source.kind={self.kind} reads none; choose another kind, e.g. web_archives")
        if self.scene_size % 32:
            raise ValueError(f"source.scene_size={self.scene_size} must be a multiple of 32 pixels")
        check_ranges(
            self, max_pages=(1, MANY), page_timeout_s=(0.001, LONG_S), num_scenes=(64, 10_000_000), scene_size=(32, 4_096), port=(0, 65_535)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadConfig:
    """How img2dataset fetches the image bytes (in a guarded child process)."""

    num_processes: int = field(default=1, metadata=OPERATIONAL)
    """Worker processes of img2dataset, over all machines; each costs about 0.2 GB of memory."""
    num_threads: int = field(default=16, metadata=OPERATIONAL)
    """Download threads per worker process; also how many hosts' pages are read at a time."""
    timeout_s: float = 10.0
    """Longest wait for one socket operation, seconds."""
    deadline_s: float = 30.0
    """Longest time for one image from connect to last byte, seconds."""
    max_bytes: int = 20 * 2**20
    """A larger body is refused (never cut short)."""
    max_pixels: int = 40_000_000
    """A picture with more pixels is refused before it is decoded."""
    requests_per_s_per_host: float = field(default=20.0, metadata=OPERATIONAL)
    """Most requests to one host in a second, for pages and images; 0 is no limit. A host's own wishes come on top."""
    allow_addresses: tuple[str, ...] = ()
    """Private addresses that may be contacted all the same, e.g. of a site on your own network."""
    retries: int = 2
    """Extra passes over the URLs whose failure may be temporary."""
    retry_wait_s: float = field(default=1.0, metadata=OPERATIONAL)
    """Pause before the first extra pass, seconds; it doubles with every pass."""
    runner: Literal["img2dataset", "threads"] = field(default="img2dataset", metadata=OPERATIONAL)
    """`img2dataset` downloads in worker processes; `threads` in this process, without its start-up time, for small sources."""
    distributor: Literal["multiprocessing", "ray"] = field(default="multiprocessing", metadata=OPERATIONAL)
    """Who starts img2dataset's worker processes: `multiprocessing` on this machine, `ray` on the machines of a cluster."""
    ray_address: str = field(default="", metadata=OPERATIONAL)
    """`ray` only: a running cluster ("auto", "host:6379"), whose machines have open-dalle[scrape,ray] and see the data root under the
    same path; empty starts one on this machine."""
    urls_per_shard: int = field(default=1_000, metadata=OPERATIONAL)
    """URLs in one shard: the unit of work of a worker process and of resuming."""
    max_memory_mb: int = field(default=8_192, metadata=OPERATIONAL)
    """Address space of a worker process, MB."""
    stall_timeout_s: float = field(default=300.0, metadata=OPERATIONAL)
    """The child process is ended when it reports nothing for this long, seconds."""

    def __post_init__(self) -> None:
        check_ranges(
            self, num_processes=(1, 100_000), num_threads=(1, 10_000), timeout_s=(0.001, LONG_S), deadline_s=(0.001, LONG_S),
            max_bytes=(1, 2**40), max_pixels=(1, 10**10), requests_per_s_per_host=(0, 1e6), retries=(0, 100),
            retry_wait_s=(0, LONG_S), urls_per_shard=(1, MANY), max_memory_mb=(1_024, 2**30), stall_timeout_s=(0.001, LONG_S),
        )  # fmt: skip
        if self.ray_address and self.distributor != "ray":
            raise ValueError(
                f"download.ray_address={self.ray_address!r} says where a Ray cluster is, but download.distributor={self.distributor}; "
                "set download.distributor=ray too"
            )
        for address in self.allow_addresses:
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ValueError(f"download.allow_addresses has {address!r}; give IP addresses, e.g. 127.0.0.1") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Which downloaded pairs are unusable (paper, Appendix C). How good is good enough is decided later, in SQL."""

    min_caption_words: int = 3
    """Shorter captions are dropped (the paper gives no number)."""
    min_caption_letters: int = 5
    """Captions with fewer letters are dropped."""
    max_boilerplate_share: float = 0.5
    """Largest share of a caption's letters that may be dates and stock phrases ("photographed on …"), in [0, 1]."""
    languages: tuple[str, ...] = ("en",)
    """Kept languages (ISO 639-1); empty keeps all."""
    language_detector: Literal["combined", "cld3"] = "combined"
    """`combined` asks fastText's model and dictionaries; `cld3` is the paper's choice, which throws away most short English captions."""
    drop_markup: bool = True
    """Drop captions with remnants of HTML or a URL in them."""
    drop_personal: bool = False
    """Drop captions in which an e-mail address or a phone number seems to be."""
    max_aspect_ratio: float = 2.0
    """Long side over short side; the paper keeps [1/2, 2]."""
    fit: Literal["crop", "pad"] = field(default="crop", metadata=LATER)
    """How a picture that is not square becomes so: `crop` leaves it as it is, and later stages cut out the middle; `pad` puts it on a
    white square, so that a cut-out keeps its head and feet."""
    min_side: int = 32
    """Shortest side in pixels."""
    min_contrast: float = 2.0
    """Smallest standard deviation of the brightness, in levels of 255; less is a blank picture."""
    captions_per_image: int = 1
    """How many different captions of one and the same picture are kept."""
    max_captions_per_image: int = 20
    """A picture with more different captions than this is a placeholder, and not one of them is kept."""
    max_images_per_caption: int = 1_000
    """A caption of more different pictures than this says nothing about them, and not one of them is kept."""
    near_duplicates: bool = False
    """Drop pictures that look like one that is kept (two perceptual hashes and a colour thumbnail agree)."""
    evaluation_images: tuple[str, ...] = ()
    """Folders of images, or Parquet files with a column `image`, that must not be trained on: what looks like one of them is dropped."""
    evaluation_captions: tuple[str, ...] = field(default=(), metadata=LATER)
    """Captions that must not be trained on, whatever their case and punctuation: COCO's `captions_*.json`, a `text_c10` folder of CUB, a
    text with a line for each, or a table."""
    validation_share: float = 0.04
    """Share of pairs whose split is `validation`, chosen by a hash of the picture."""
    num_processes: int = field(default=1, metadata=OPERATIONAL)
    """Processes that decode and measure pictures, each a part at a time; the result does not depend on it. A script of your own that
    sets more than one needs `if __name__ == "__main__":`, as with everything that starts Python processes."""

    def __post_init__(self) -> None:
        if self.max_aspect_ratio < 1:
            raise ValueError(f"filter.max_aspect_ratio={self.max_aspect_ratio} is long side over short side; use at least 1")
        if self.validation_share == 1:
            raise ValueError("filter.validation_share=1 leaves nothing to train on; use less")
        check_ranges(
            self, min_caption_words=(0, MANY), min_caption_letters=(0, MANY), max_boilerplate_share=(0, 1), max_aspect_ratio=(1, 1e6),
            min_side=(0, 1_000_000), min_contrast=(0, 255), captions_per_image=(1, MANY), max_captions_per_image=(1, MANY),
            max_images_per_caption=(1, MANY), validation_share=(0, 1), num_processes=(1, 100_000),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardsConfig:
    """Sizes of the Parquet parts."""

    rows_per_part: int = 100_000
    """Rows in one part: one unit of work for tokenising and scoring."""
    row_group_size: int = 4_096
    """Rows in one Parquet row group: the unit that training shuffles."""

    def __post_init__(self) -> None:
        check_ranges(self, rows_per_part=(1, MANY), row_group_size=(1, MANY))


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogConfig:
    """The DuckDB catalog."""

    lock_timeout_s: float = 60.0
    """How long a writer waits for another writer, seconds."""
    training_set: str = "captioned_pairs"
    """Which query of `sql/training_sets/` selects the pairs to train on."""
    min_clip_score_quantile: float = 0.0
    """Pairs below this quantile of the CLIP scores are left out of the training set, in [0, 1)."""
    max_nsfw_score: float = 0.5
    """`safe_pairs` only: highest score for not being safe for work, in [0, 1]."""
    max_watermark_score: float = 0.5
    """`safe_pairs` only: highest score for carrying a watermark, in [0, 1]."""

    def __post_init__(self) -> None:
        if self.min_clip_score_quantile == 1:
            raise ValueError("catalog.min_clip_score_quantile=1 leaves no pair; use less")
        check_ranges(self, lock_timeout_s=(0, LONG_S), min_clip_score_quantile=(0, 1), max_nsfw_score=(0, 1), max_watermark_score=(0, 1))
