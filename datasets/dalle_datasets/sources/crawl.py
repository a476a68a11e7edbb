"""Pages read over HTTP: links followed breadth-first on the hosts of the start URLs, within bounds.

Hosts are read side by side, the pages of one host one after another. What is read does not depend on who answers faster: a round
gives every host its share of the pages that may still be asked for, and links to other hosts are handed over between rounds.
"""

import logging
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dalle_datasets.config import SourceConfig
from dalle_datasets.sources.base import Drop, SeenPage, clean_url
from dalle_datasets.sources.discovered import PAGE_GONE, READ, DiscoveryWriter, KnownPages
from dalle_datasets.sources.html import read_page
from dalle_datasets.sources.sitemaps import read_sitemaps
from dalle_datasets.store.manifest import Report
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.failures import GONE_STATUSES, OPT_OUTS, FetchError

logger = logging.getLogger(__name__)


def crawl(
    source: SourceConfig,
    start_urls: tuple[str, ...],
    client: PoliteClient,
    user_agent_token: str,
    known: KnownPages | None,
    num_hosts: int,
    result: DiscoveryWriter,
    report: Report,
) -> None:
    """Read pages until there is none left or `source.max_pages` were asked for, of at most `num_hosts` hosts at a time.

    Pages in `known` are read only if they changed; those with candidates are asked even if no link leads to them any more.
    """
    urls = list(dict.fromkeys(clean_url(url) for url in start_urls))
    lock, stop = threading.Lock(), threading.Event()
    num_asked = 0

    def tick() -> None:
        nonlocal num_asked
        with lock:
            num_asked += 1
            known_pages = num_asked + sum(len(host.queue) for host in hosts.values())
            report(num_asked, min(source.max_pages, known_pages), "pages", candidates=result.num_found)

    def read_linked(pool: ThreadPoolExecutor) -> None:
        while (left := source.max_pages - num_asked) > 0 and (waiting := [host for host in hosts.values() if host.queue]):
            shares = [left // len(waiting) + (i < left % len(waiting)) for i in range(len(waiting))]
            list(pool.map(_Host.read, waiting, shares))
            _hand_over(hosts)

    names = list(dict.fromkeys(map(host_of, urls)))
    hosts = {
        name: _Host(number, name, frozenset(names), client, user_agent_token, known, result, tick, stop)
        for number, name in enumerate(names)
    }
    for url in urls:
        hosts[host_of(url)].follow([url])
    with ThreadPoolExecutor(min(num_hosts, len(hosts))) as pool:
        try:
            if source.use_sitemaps:
                list(pool.map(lambda host: host.read_sitemaps(source.max_pages), hosts.values()))
                _hand_over(hosts)
            read_linked(pool)
            list(pool.map(_Host.read_unlinked, hosts.values()))
            _hand_over(hosts)
            read_linked(pool)
        finally:
            stop.set()  # whoever ends us does not wait for all pages of a host
    result.num_left = sum(len(host.queue) for host in hosts.values())
    if result.num_left:
        logger.info("%d more pages are known; raise source.max_pages=%d to read them", result.num_left, source.max_pages)


def host_of(url: str) -> str:
    """Host and port of an address, empty if it has none."""
    try:
        return urllib.parse.urlsplit(url).netloc
    except ValueError:  # "http://[": pages link to such things
        return ""


def _hand_over(hosts: dict[str, "_Host"]) -> None:
    """Give every host the links to it that the others found, always in the same order."""
    for host in hosts.values():
        for link in host.elsewhere:
            hosts[host_of(link)].follow([link])
        host.elsewhere.clear()


class _Host:
    """The pages of one host. Only one thread at a time reads them."""

    def __init__(
        self,
        number: int,
        name: str,
        site: frozenset[str],
        client: PoliteClient,
        user_agent_token: str,
        known: KnownPages | None,
        result: DiscoveryWriter,
        tick: Callable[[], None],
        stop: threading.Event,
    ) -> None:
        self.number = number
        self.name = name
        self.site = site
        self.client = client
        self.user_agent_token = user_agent_token
        self.known = known
        self.result = result
        self.tick = tick
        self.stop = stop
        self.queue: deque[str] = deque()
        self.seen: set[str] = set()
        self.elsewhere: dict[str, None] = {}
        """Links to the other hosts of the site, in the order in which they were found."""

    def follow(self, links: list[str]) -> None:
        """Queue links to pages of this host that were not seen before, and keep those to the other hosts for later.

        Pages on the block list are not asked for.
        """
        for link in links:
            host = host_of(link)
            if self.result.blocks.has_page(link):
                continue
            if host == self.name and link not in self.seen:
                self.seen.add(link)
                self.queue.append(link)
            elif host != self.name and host in self.site:
                self.elsewhere[link] = None

    def read_sitemaps(self, max_pages: int) -> None:
        """Queue the pages of the host's sitemaps, and take the captioned images that they list."""
        for url in dict.fromkeys(urllib.parse.urljoin(start, "/") for start in self.queue if self.name):
            self.follow(read_sitemaps(url, self.client, max_pages, self.result, self.number))

    def read(self, num_pages: int) -> None:
        """Read that many pages, or all there are, or until somebody stops it all."""
        try:
            while num_pages and self.queue and not self.stop.is_set():
                self.visit(self.queue.popleft())
                num_pages -= 1
                self.tick()
        except BaseException:
            self.stop.set()
            raise

    def read_unlinked(self) -> None:
        """Ask the pages with candidates that were not come by this time, whatever the bound: their owners may have opted out."""
        missed = [url for url in sorted(self.known.units) if host_of(url) == self.name and url not in self.seen] if self.known else []
        waiting, self.queue = self.queue, deque(missed)
        self.seen.update(missed)
        self.read(len(missed))
        self.queue.extendleft(reversed(waiting))

    def visit(self, url: str) -> None:
        """Read one page."""
        earlier = self.known.get(url) if self.known else None
        try:
            answer = self.client.revisit(url, earlier.etag, earlier.last_modified) if earlier else self.client.fetch(url)
        except FetchError as error:
            self.result.add(drops=[Drop(error.code, error.detail, url)])
            if error.code in OPT_OUTS:
                self.result.add_fate(error.code, error.detail, url)
            elif error.status in GONE_STATUSES:
                self.result.add_fate(PAGE_GONE, error.detail, url)
            elif earlier:  # for a moment: it is what it was
                self.result.keep_page(earlier)
                self.follow(earlier.links)
            return
        if answer is None and earlier is not None:
            self.result.add_page(earlier, is_unchanged=True)
            self.follow(earlier.links)
            return
        assert answer is not None
        page_url = clean_url(answer.url)
        page = read_page(answer.body, page_url, answer.headers, self.user_agent_token)
        closed = next((drop for drop in page.drops if drop.reason in OPT_OUTS), None) if page.is_closed else None
        self.result.add_fate(*(closed.reason, closed.detail) if closed else (READ, ""), url, page_url)
        self.result.add(page.found, page.drops, self.number, unit=url)
        if not page.is_closed:
            seen = SeenPage(url, answer.headers.get("ETag"), answer.headers.get("Last-Modified"), page.links)
            self.result.add_page(seen, is_unchanged=False)
        self.follow(page.links)
