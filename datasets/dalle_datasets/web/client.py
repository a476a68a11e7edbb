"""A client that keeps to each host's robots.txt and rate limit, redirects included. Pages and images are fetched with it."""

import urllib.parse
from collections.abc import Callable

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import BODY, RequestLimits, Response, Wish, fetch
from dalle_datasets.web.rate_limit import RateLimiter
from dalle_datasets.web.robots import Robots
from dalle_datasets.web.urls import split_url


class PoliteClient:
    """Asks for images as a good guest does: by the host's rules and at its pace. Safe to share between threads."""

    def __init__(
        self, limits: RequestLimits, requests_per_s: float, note_image: Callable[[str, Response], None] = lambda url, response: None
    ) -> None:
        """`note_image` is called with the address and answer of every image."""
        self._note_image = note_image
        self._guard = limits
        self._robots = Robots(limits)
        self._without_head: set[str] = set()
        self._pace = RateLimiter(requests_per_s, exempt=limits.connect_to)

    def fetch_image(self, image_url: str) -> bytes:
        """The bytes behind a URL that may be used. Raises `FetchError`."""
        response = self.fetch(image_url)
        self._note_image(image_url, response)
        return response.body

    def fetch(self, url: str, wish: Wish = BODY) -> Response:
        """The answer of an address that may be used. Raises `FetchError`."""
        self._enter(url)
        try:
            return fetch(url, self._guard, wish, before_redirect=self._enter)
        except FetchError as error:
            self._pace.back_off(url, error)
            raise

    def revisit(
        self, url: str, etag: str | None, last_modified: str | None, num_bytes: int | None = None, wants_body: bool = True
    ) -> Response | None:
        """The answer of an address that was asked before; None if it is as it was, which is asked with HEAD.

        That shows all headers, opt-outs too, and a body only if it changed. Raises `FetchError`.
        """
        conditions: dict[str, str] = {"If-None-Match": etag} if etag else {"If-Modified-Since": last_modified} if last_modified else {}
        host = urllib.parse.urlsplit(url).netloc
        if conditions and host not in self._without_head:
            try:
                head = self.fetch(url, Wish(method="HEAD"))
            except FetchError as error:
                if not error.status or error.status in (429, 503):
                    raise
                if error.status in (405, 501):
                    self._without_head.add(host)  # others may mean this address only, so GET has the last word
            else:
                if _is_same(head, etag, last_modified, num_bytes):
                    return None
                if not wants_body:
                    return head
                conditions = {}
        answer = self.fetch(url, Wish(headers=conditions, wants_body=wants_body))
        if answer.status == 304 or (conditions and _is_same(answer, etag, last_modified, num_bytes)):
            return None
        return answer

    def look(self, url: str) -> Response:
        """The headers of an address. Raises `FetchError`."""
        try:
            return self.fetch(url, Wish(method="HEAD"))
        except FetchError as error:
            if not error.status:
                raise
            return self.fetch(url, Wish(wants_body=False))

    def _enter(self, url: str) -> None:
        """Return when it is our turn to ask for `url`; it may be where a redirect led us. Raises `FetchError` if we may not."""
        split_url(url)
        self._robots.check(url)
        self._pace.wait(url, self._robots.crawl_delay_s(url))

    def sitemaps(self, url: str) -> list[str]:
        """Sitemap URLs that the host of `url` names."""
        return self._robots.sitemaps(url)


def _is_same(answer: Response, etag: str | None, last_modified: str | None, num_bytes: int | None) -> bool:
    """Whether the headers of an answer say that its body is the one that was seen with these."""
    headers = answer.headers
    length = headers.get("Content-Length")
    if num_bytes is not None and length is not None and length.strip() != str(num_bytes):
        return False
    if etag and headers.get("ETag"):
        return str(headers["ETag"]).removeprefix("W/") == etag.removeprefix("W/")
    if last_modified and headers.get("Last-Modified"):
        return bool(headers["Last-Modified"] == last_modified)
    return False
