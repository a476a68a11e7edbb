"""robots.txt, fetched once per host and obeyed (RFC 9309)."""

import threading
import urllib.parse
from dataclasses import replace

from protego import Protego

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import RequestLimits, fetch

MAX_BYTES = 500 * 1024  # what RFC 9309 asks a crawler to read at least


class Robots:
    """The rules of every host seen so far. Safe to share between threads."""

    def __init__(self, limits: RequestLimits) -> None:
        self._guard = replace(limits, max_bytes=MAX_BYTES)
        self._lock = threading.Lock()
        self._host_locks: dict[str, threading.Lock] = {}
        self._rules: dict[str, Protego | FetchError] = {}

    def check(self, url: str) -> None:
        """Raises `FetchError` when the host's robots.txt disallows `url`, or fails in a way that means "not now"."""
        rules = self._rules_of(url)
        if isinstance(rules, FetchError):
            raise rules
        if not rules.can_fetch(url, self._guard.user_agent_token):
            raise FetchError("robots_txt", f"robots.txt disallows {urllib.parse.urlsplit(url).path or '/'}")

    def crawl_delay_s(self, url: str) -> float:
        """Seconds the host asks us to wait between requests; 0 if it does not say."""
        rules = self._rules_of(url)
        return 0.0 if isinstance(rules, FetchError) else float(rules.crawl_delay(self._guard.user_agent_token) or 0.0)

    def sitemaps(self, url: str) -> list[str]:
        """Sitemap URLs that the robots.txt of the host of `url` names."""
        rules = self._rules_of(url)
        return [] if isinstance(rules, FetchError) else list(rules.sitemaps)

    def _rules_of(self, url: str) -> "Protego | FetchError":
        parts = urllib.parse.urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            host_lock = self._host_locks.setdefault(origin, threading.Lock())
        with host_lock:
            if origin not in self._rules:
                self._rules[origin] = self._read(origin)
            return self._rules[origin]

    def _read(self, origin: str) -> "Protego | FetchError":
        try:
            text = fetch(f"{origin}/robots.txt", self._guard).body.decode("utf-8", "replace")
        except FetchError as error:
            if error.code in ("http_5xx", "http_429"):
                return FetchError("robots_unavailable", error.detail)
            # No robots.txt means no rules; a host that cannot be reached will say so itself when it is asked for the image.
            text = ""
        return Protego.parse(text)
