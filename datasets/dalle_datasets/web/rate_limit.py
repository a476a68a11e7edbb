"""Per-host rate limiting: a fixed rate, slowed by Crawl-delay and Retry-After."""

import threading
import time
import urllib.parse
from collections.abc import Collection

from dalle_datasets.web.failures import FetchError

MAX_DELAY_S = 30.0
"""A longer wish (Crawl-delay, Retry-After) is honoured as this much; the retry passes come later anyway."""


class RateLimiter:
    """Spreads requests to one host over time. Safe to share between threads; other hosts are not slowed down by the bookkeeping."""

    def __init__(self, requests_per_s: float, exempt: Collection[str] = ()) -> None:
        """`requests_per_s` for each host, 0 for no limit; `exempt` hosts (sites that we publish ourselves) are never waited for."""
        self._interval_s = 1 / requests_per_s if requests_per_s else 0.0
        self._exempt = frozenset(exempt)
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}

    def wait(self, url: str, crawl_delay_s: float = 0.0) -> None:
        """Return when it is our turn to ask the host of `url`."""
        host = _host(url)
        if host in self._exempt:
            return
        interval_s = max(self._interval_s, min(crawl_delay_s, MAX_DELAY_S))
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next.get(host, now))
            if turn > now or interval_s:
                self._next[host] = turn + interval_s
        if turn > now:
            time.sleep(turn - now)

    def back_off(self, url: str, error: FetchError) -> None:
        """Leave the host of `url` alone for as long as its `Retry-After` asks."""
        host = _host(url)
        if error.retry_after_s and host not in self._exempt:
            with self._lock:
                now = time.monotonic()
                self._next[host] = max(self._next.get(host, now), now + min(error.retry_after_s, MAX_DELAY_S))


def _host(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""
