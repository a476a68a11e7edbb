"""A client that keeps to each host's robots.txt and rate limit, redirects included. Pages and images are fetched with it."""

from collections.abc import Mapping

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import Answer, Guard, fetch
from dalle_datasets.web.rate_limit import Pace
from dalle_datasets.web.robots import Robots
from dalle_datasets.web.urls import split_url


class Visitor:
    """Asks for images as a good guest does: by the host's rules and at its pace. Safe to share between threads."""

    def __init__(self, guard: Guard, requests_per_s: float) -> None:
        self._guard = guard
        self._robots = Robots(guard)
        self._pace = Pace(requests_per_s, exempt=guard.connect_to)

    def fetch_image(self, image_url: str) -> bytes:
        """The bytes behind an address that may be used. Raises `FetchError`."""
        return self.fetch(image_url).body

    def fetch(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer of an address that may be used. Raises `FetchError`."""
        self._enter(url)
        try:
            return fetch(url, self._guard, headers, before_redirect=self._enter)
        except FetchError as error:
            self._pace.heed(url, error)
            raise

    def _enter(self, url: str) -> None:
        """Return when it is our turn to ask for `url`; it may be where a redirect led us. Raises `FetchError` if we may not."""
        split_url(url)
        self._robots.check(url)
        self._pace.wait(url, self._robots.crawl_delay_s(url))

    def sitemaps(self, url: str) -> list[str]:
        """Sitemap addresses that the host of `url` names."""
        return self._robots.sitemaps(url)
