"""Pages read over HTTP: links followed breadth-first on the hosts of the start addresses, within bounds."""

import logging
import urllib.parse
from collections import deque
from collections.abc import Mapping

from dalle_datasets.config import SourceConfig
from dalle_datasets.download.failures import FetchError
from dalle_datasets.download.fetching import Visitor
from dalle_datasets.sources.base import Discovered, Drop, SeenPage, clean_url
from dalle_datasets.sources.html import read_page
from dalle_datasets.sources.sitemaps import read_sitemaps
from dalle_datasets.stage import Report

logger = logging.getLogger(__name__)


def crawl(
    source: SourceConfig,
    start_urls: tuple[str, ...],
    visitor: Visitor,
    user_agent_token: str,
    known: Mapping[str, SeenPage],
    report: Report,
) -> Discovered:
    """Read pages until there is none left or `source.max_pages` were asked for.

    Pages in `known` are asked for only if they changed (conditional requests).
    """
    crawl = _Crawl(start_urls, visitor, user_agent_token, known)
    if source.use_sitemaps:
        crawl.add_sitemaps(source.max_pages)
    num_asked = 0
    while crawl.queue and num_asked < source.max_pages:
        crawl.visit(crawl.queue.popleft())
        num_asked += 1
        report(num_asked, min(source.max_pages, num_asked + len(crawl.queue)), "pages", candidates=len(crawl.result.found))
    crawl.result.num_left = len(crawl.queue)
    if crawl.queue:
        logger.info("%d more pages are known; raise source.max_pages=%d to read them", len(crawl.queue), source.max_pages)
    return crawl.result


class _Crawl:
    def __init__(self, start_urls: tuple[str, ...], visitor: Visitor, user_agent_token: str, known: Mapping[str, SeenPage]) -> None:
        self.visitor = visitor
        self.user_agent_token = user_agent_token
        self.known = known
        self.queue = deque(dict.fromkeys(clean_url(url) for url in start_urls))
        self.seen = set(self.queue)
        self.hosts = frozenset(urllib.parse.urlsplit(url).netloc for url in self.queue)
        self.result = Discovered()

    def add_sitemaps(self, max_pages: int) -> None:
        """Queue the pages of the hosts' sitemaps, and take the captioned images that they list."""
        for url in dict.fromkeys(urllib.parse.urljoin(start, "/") for start in self.queue):
            pages, found, drops = read_sitemaps(url, self.visitor, max_pages)
            self.result.found += found
            self.result.drops += drops
            self.follow(pages)

    def follow(self, links: list[str]) -> None:
        """Queue links to pages of the same site that were not seen before."""
        for link in links:
            if link not in self.seen and urllib.parse.urlsplit(link).netloc in self.hosts:
                self.seen.add(link)
                self.queue.append(link)

    def visit(self, url: str) -> None:
        """Read one page."""
        earlier = self.known.get(url)
        conditions = {}
        if earlier and earlier.etag:
            conditions["If-None-Match"] = earlier.etag
        elif earlier and earlier.last_modified:
            conditions["If-Modified-Since"] = earlier.last_modified
        try:
            answer = self.visitor.fetch(url, conditions)
        except FetchError as error:
            self.result.drops.append(Drop(error.code, error.detail, url))
            return
        if answer.status == 304 and earlier:
            self.result.num_unchanged += 1
            self.result.pages.append(earlier)
            self.follow(earlier.links)
            return
        page = read_page(answer.body, clean_url(answer.url), answer.headers, self.user_agent_token)
        self.result.found += page.found
        self.result.drops += page.drops
        if not page.is_closed:
            self.result.pages.append(SeenPage(url, answer.headers.get("ETag"), answer.headers.get("Last-Modified"), page.links))
        self.follow(page.links)
