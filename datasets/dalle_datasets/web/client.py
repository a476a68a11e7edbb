"""A client that keeps to each host's robots.txt and rate limit, redirects included. Pages and images are fetched with it."""

from collections.abc import Mapping

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import RequestLimits, Response, Wish, fetch
from dalle_datasets.web.rate_limit import RateLimiter
from dalle_datasets.web.robots import Robots
from dalle_datasets.web.urls import split_url


class PoliteClient:
    """Asks for images as a good guest does: by the host's rules and at its pace. Safe to share between threads."""

    def __init__(self, limits: RequestLimits, requests_per_s: float) -> None:
        self._guard = limits
        self._robots = Robots(limits)
        self._pace = RateLimiter(requests_per_s, exempt=limits.connect_to)

    def fetch_image(self, image_url: str) -> bytes:
        """The bytes behind a URL that may be used. Raises `FetchError`."""
        return self.fetch(image_url).body

    def fetch(self, url: str, headers: Mapping[str, str] | None = None) -> Response:
        """The answer of a URL that may be used. Raises `FetchError`."""
        self._enter(url)
        try:
            return fetch(url, self._guard, Wish(headers=headers or {}), before_redirect=self._enter)
        except FetchError as error:
            self._pace.back_off(url, error)
            raise

    def _enter(self, url: str) -> None:
        """Return when it is our turn to ask for `url`; it may be where a redirect led us. Raises `FetchError` if we may not."""
        split_url(url)
        self._robots.check(url)
        self._pace.wait(url, self._robots.crawl_delay_s(url))

    def sitemaps(self, url: str) -> list[str]:
        """Sitemap URLs that the host of `url` names."""
        return self._robots.sitemaps(url)
