"""Opening a source: start URLs, limits of requests, and the demo's site for as long as it is read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.demo.demo_site import START_URL, publish_site
from dalle_datasets.sources.base import MAX_PAGE_BYTES
from dalle_datasets.web.guard import RequestLimits


def check_source(source: SourceConfig) -> None:
    """Raises `ValueError` if there is nothing to read."""
    if source.kind == "web_pages" and not source.start_urls:
        raise ValueError("source.start_urls is empty, so there is no page to read; give at least one address")
    if source.kind == "mixed" and not source.start_urls and not source.inputs:
        raise ValueError("source.start_urls and source.inputs are empty, so there is nothing to read; give addresses, folders or files")
    if source.kind not in ("emoji_scenes", "web_pages", "mixed") and not source.inputs:
        raise ValueError(f"source.inputs is empty, but source.kind={source.kind} reads files; give at least one path or pattern")


@contextmanager
def open_source(source: SourceConfig) -> Iterator[tuple[tuple[str, ...], Mapping[str, tuple[str, int]]]]:
    """(start addresses, host -> (address, port)) of a source for as long as it is read.

    The demo's site is served meanwhile.
    """
    if source.kind == "emoji_scenes":
        with publish_site(source) as connect_to:
            yield (START_URL,), connect_to
    else:
        yield source.start_urls, {}


def page_guard(source: SourceConfig, download: DownloadConfig, connect_to: Mapping[str, tuple[str, int]]) -> RequestLimits:
    """The limits of a request for a page."""
    return RequestLimits(
        user_agent=source.user_agent,
        timeout_s=source.page_timeout_s,
        deadline_s=2 * source.page_timeout_s,
        max_bytes=MAX_PAGE_BYTES,
        allow_addresses=download.allow_addresses,
        connect_to=connect_to,
    )
