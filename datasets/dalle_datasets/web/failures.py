"""Failure codes of requests: a closed set, so that failures can be counted, compared and retried."""

from typing import NamedTuple


class Failure(NamedTuple):
    """What a code means and whether trying again may help."""

    retryable: bool
    meaning: str


FAILURES: dict[str, Failure] = {
    "bad_url": Failure(False, "not an address that can be asked for"),
    "bad_scheme": Failure(False, "neither http nor https"),
    "private_address": Failure(False, "the host resolves to an address that is not public"),
    "robots_txt": Failure(False, "the host's robots.txt disallows it"),
    "robots_unavailable": Failure(True, "the host's robots.txt answers with a server error, which means: stay away for now"),
    "x_robots_tag": Failure(False, "the X-Robots-Tag header opts out"),
    "tdm_reserved": Failure(False, "text and data mining is reserved, by a header or the host's tdmrep.json"),
    "dns": Failure(True, "the host name does not resolve"),
    "connect": Failure(True, "no connection, or it broke"),
    "tls": Failure(False, "no trusted encrypted connection"),
    "timeout": Failure(True, "the host fell silent"),
    "deadline": Failure(False, "too slow as a whole"),
    "http_4xx": Failure(False, "not found, gone or forbidden"),
    "http_429": Failure(True, "too many requests"),
    "http_5xx": Failure(True, "the server failed"),
    "redirect_limit": Failure(False, "too many redirects"),
    "too_many_bytes": Failure(False, "the body is larger than allowed"),
    "incomplete_body": Failure(True, "fewer bytes than announced"),
    "empty_body": Failure(False, "an answer without a body"),
    "missing_file": Failure(False, "a local file that is not there, or outside of its source"),
    "forgotten": Failure(False, "a picture that was forgotten on request"),
    "worker_lost": Failure(True, "the downloading process ended before it reported"),
}

OK, FORGOTTEN = "ok", "forgotten"
OPT_OUTS = frozenset({"robots_txt", "x_robots_tag", "tdm_reserved", "meta_robots"})
"""What an owner says against the use of a page or picture (`meta_robots` is found by discovery only)."""
GONE_STATUSES = frozenset({404, 410, 451})
"""What has been taken down. Other refusals may be for us, or for today."""


class FetchError(Exception):
    """A URL gave no body. `code` is a key of `FAILURES`; `detail` is for people."""

    def __init__(self, code: str, detail: str, retry_after_s: float = 0.0, status: int = 0) -> None:
        assert code in FAILURES, code
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s
        """How long the host asks to be left alone, seconds."""
        self.status = status
        """Of HTTP, if the host answered with a failure."""


def parse_failure(message: str) -> tuple[str, str]:
    """Code and detail of the text of a `FetchError`; anything else is a broken connection."""
    code, _, detail = message.partition(": ")
    return (code, detail) if code in FAILURES else ("connect", message)
