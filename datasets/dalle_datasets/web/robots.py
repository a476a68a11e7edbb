"""What a host says about robots: its robots.txt (RFC 9309) and `/.well-known/tdmrep.json`, fetched now and then and obeyed."""

import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, replace

from protego import Protego

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.guard import RequestLimits, Wish, fetch
from dalle_datasets.web.opt_outs import Reservations, decode_text

MAX_BYTES = 500 * 1024  # what RFC 9309 asks a crawler to read at least
KEPT_S = 24 * 3_600.0  # what RFC 9309 allows at most
RETRY_S = 10.0
"""After this time a host whose rules could not be read is asked for them again."""
_NO_RULES = frozenset({"http_4xx", "empty_body", "redirect_limit"})
"""Answers that say that there is no such file (RFC 9309, 2.3.1.2 and 2.3.1.3)."""
_INVISIBLE = re.compile("[\ufeff\0\u200b-\u200f\u2060]")
_FIELD = re.compile(r"\s*(user[- ]?agent|allow|d[isalow]{6,8})\s*[:\s]\s*(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Rules:
    """Of one host. With a failure nothing there may be asked for."""

    robots: Protego
    reservations: Reservations
    failure: FetchError | None
    until: float
    """Of the monotonic clock, when they are read anew."""


class Robots:
    """The rules of every host seen so far. Safe to share between threads."""

    def __init__(self, limits: RequestLimits) -> None:
        self._guard = replace(limits, max_bytes=MAX_BYTES)
        self._lock = threading.Lock()
        self._host_locks: dict[str, threading.Lock] = {}
        self._rules: dict[str, _Rules] = {}

    def check(self, url: str) -> None:
        """Raises `FetchError` when the host is against our use of `url`, or its rules cannot be read, which means "not now"."""
        rules = self._rules_of(url)
        if rules.failure is not None:
            raise rules.failure
        path = urllib.parse.urlsplit(url).path or "/"
        if not rules.robots.can_fetch(url, self._guard.user_agent_token):
            raise FetchError("robots_txt", f"robots.txt disallows {path}")
        if rules.reservations.cover(url):
            raise FetchError("tdm_reserved", f"tdmrep.json reserves {path}")

    def crawl_delay_s(self, url: str) -> float:
        """Seconds the host asks us to wait between requests; 0 if it does not say."""
        return float(self._rules_of(url).robots.crawl_delay(self._guard.user_agent_token) or 0.0)

    def sitemaps(self, url: str) -> list[str]:
        """Sitemap addresses that the robots.txt of the host of `url` names."""
        return list(self._rules_of(url).robots.sitemaps)

    def _rules_of(self, url: str) -> _Rules:
        parts = urllib.parse.urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            host_lock = self._host_locks.setdefault(origin, threading.Lock())
        with host_lock:
            if origin not in self._rules or time.monotonic() > self._rules[origin].until:
                self._rules[origin] = self._read(origin)
            return self._rules[origin]

    def _read(self, origin: str) -> _Rules:
        try:
            robots = parse_robots(self._read_file(f"{origin}/robots.txt"), self._guard.user_agent_token)
            reservations = Reservations(self._read_file(f"{origin}/.well-known/tdmrep.json"))
        except FetchError as error:
            return _Rules(parse_robots(b"", ""), Reservations(), error, time.monotonic() + RETRY_S)
        return _Rules(robots, reservations, None, time.monotonic() + KEPT_S)

    def _read_file(self, url: str) -> bytes:
        """The bytes of a file of rules, empty if there is none. Raises `FetchError` if that cannot be known."""
        try:
            return fetch(url, self._guard, Wish(is_rules=True)).body
        except FetchError as error:
            if error.code in _NO_RULES:
                return b""
            name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
            answered = error.code in ("http_5xx", "http_429", "deadline", "incomplete_body")
            raise FetchError("robots_unavailable" if answered else error.code, f"{name}: {error.detail}", error.retry_after_s) from error


def parse_robots(body: bytes, user_agent_token: str) -> Protego:
    """The rules of a robots.txt in any encoding, with any byte order mark and line ends, whole or cut after `MAX_BYTES`.

    Protego knows the grammar. It is helped where it would overlook a rule: marks and invisible characters, agents with a version or
    several on a line, rules before any agent. An agent counts only if it is `*` or named exactly like us.
    """
    text = _INVISIBLE.sub("", decode_text(body))
    lines = re.split(r"\r\n|\r|\n", text)
    if len(body) >= MAX_BYTES:
        lines.pop()  # half an `Allow` would allow more
    rules: list[str] = []
    others: list[str] = []
    has_agent = False
    for line in lines:
        line = line.partition("#")[0].strip()
        match = _FIELD.fullmatch(line)
        if match is None:
            # Between agents and their first rule it would end the group, which only rules do (RFC 9309, 2.2.4).
            (others if rules and rules[-1].startswith("User-agent") else rules).append(line)
        elif match[1].lower().startswith("user"):
            has_agent = True
            rules += [f"User-agent: {_agent(name, user_agent_token)}" for name in match[2].split(",")]
        else:
            rules += [line, *others] if has_agent else ["User-agent: *", line]
            has_agent, others = True, []
    return Protego.parse("\n".join([*rules, *others]))


def _agent(name: str, user_agent_token: str) -> str:
    """`*`, our own name, or that of nobody."""
    product = (name.partition("/")[0].split() or [""])[0].lower()
    return product if product == "*" or product.rstrip("*") == user_agent_token else "somebody-else"
