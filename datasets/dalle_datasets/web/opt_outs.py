"""What an owner may say against the use of a page or picture: X-Robots-Tag, `<meta name=robots>`, and reservations of text and data mining.

Directives come from strangers and many hands. Where they can be read in two ways, the picture is not taken.
"""

import json
import re
from collections.abc import Iterable
from email.message import Message
from typing import NamedTuple

from protego import Protego

DIRECTIVES = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none", "noml"})
"""Directives that we read as "not for training"."""
_OTHERS = frozenset(
    {"all", "index", "follow", "nofollow", "noarchive", "nocache", "nosnippet", "notranslate", "indexifembedded", "noodp", "noydir"}
)
_NOT_RESERVED = frozenset({"", "0", "false", "no"})
_WORDS = re.compile(r"[\w.*/+-]+")
MAX_RULES = 1_000
"""Of a tdmrep.json."""


class OptOut(NamedTuple):
    """Why something is not for us."""

    code: str
    """Of `failures.FAILURES`, or `meta_robots`."""
    detail: str


def header_opt_out(headers: Message, user_agent_token: str) -> OptOut | None:
    """What the headers of an answer say against its use: every `X-Robots-Tag` and `tdm-reservation` of them is heard."""
    for value in headers.get_all("X-Robots-Tag", []):
        if directive := directive_against(str(value), user_agent_token):
            return OptOut("x_robots_tag", f"X-Robots-Tag: {directive}")
    if any(_is_reserved(str(value)) for value in headers.get_all("TDM-Reservation", [])):
        return OptOut("tdm_reserved", "tdm-reservation: 1")
    return None


def meta_opt_out(metas: Iterable[tuple[str, str]], user_agent_token: str) -> OptOut | None:
    """What (name, content) of the `<meta>` elements of a page say against its use."""
    for name, content in metas:
        name = name.strip().lower()
        if name in ("robots", "x-robots-tag", user_agent_token) and (directive := directive_against(content, user_agent_token)):
            return OptOut("meta_robots", f"<meta name={name}> says {directive}")
        if name == "tdm-reservation" and _is_reserved(content):
            return OptOut("tdm_reserved", "<meta name=tdm-reservation> says 1")
    return None


def directive_against(value: str, user_agent_token: str) -> str | None:
    """The directive of an X-Robots-Tag or robots meta that forbids us the use, if there is one.

    Between commas stands a directive, perhaps with a value (`max-snippet: 20`) or before it the user agent that it is for
    (`otherbot: noai`). Dates have commas and colons, too. An agent is that of one directive only: a proxy may have joined several
    headers with commas (RFC 9110, 5.3), so what follows a comma may be for everybody.
    """
    for piece in re.split(r"[,;]", value.lower()):
        *names, last = piece.split(":")
        is_for_us = True
        for words_before in names:
            before: list[str] = _WORDS.findall(words_before) or [""]
            name = before.pop()
            if is_for_us and (found := DIRECTIVES.intersection(before)):
                return min(found)
            is_for_us = name.partition("/")[0] in (user_agent_token, "*")
            if name in DIRECTIVES:  # nobody is called that
                return name
        words = _WORDS.findall(last)
        if not is_for_us and words and words[0] in DIRECTIVES | _OTHERS:
            continue  # for the agent before it
        if found := DIRECTIVES.intersection(words):
            return min(found)
    return None


class Reservations:
    """The rules of a host's `/.well-known/tdmrep.json` (TDM Reservation Protocol)."""

    def __init__(self, body: bytes = b"") -> None:
        """What is no list of rules reserves nothing, as the protocol says."""
        try:
            entries = json.loads(decode_text(body))
        except (ValueError, RecursionError):
            entries = []
        if isinstance(entries, dict):
            entries = [entries]
        self._rules: list[tuple[int, Protego, bool]] = []
        for entry in entries[:MAX_RULES] if isinstance(entries, list) else []:
            if isinstance(entry, dict) and "tdm-reservation" in entry:
                location = re.sub(r"^https?://[^/]*|[\s#]", "", str(entry.get("location") or "/"))
                if not location.startswith(("/", "*")):
                    location = f"/{location}"
                pattern = Protego.parse(f"User-agent: *\nDisallow: {location}")
                self._rules.append((len(location), pattern, _is_reserved(str(entry["tdm-reservation"]))))

    def cover(self, url: str) -> bool:
        """Whether the rights in `url` are reserved: by the first rule for it or by the most precise one, if they differ."""
        matching = [(length, is_reserved) for length, pattern, is_reserved in self._rules if not pattern.can_fetch(url, "any")]
        return bool(matching) and (matching[0][1] or max(matching)[1])


def _is_reserved(value: str) -> bool:
    return any(word.strip(" \t\"'").lower() not in _NOT_RESERVED for word in re.split(r"[,;]", value))


def decode_text(body: bytes) -> str:
    """Text of a file of rules: UTF-8, or what its byte order mark or its zero bytes tell."""
    for mark, encoding in (
        (b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be"), (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"),
    ):  # fmt: skip
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    # Without a mark: rules begin with ASCII, of which UTF-16 and UTF-32 make zero bytes.
    zeros = [index for index, byte in enumerate(body[:4]) if not byte]
    encoding = {(1, 2, 3): "utf-32-le", (0, 1, 2): "utf-32-be", (1, 3): "utf-16-le", (0, 2): "utf-16-be"}.get(tuple(zeros), "utf-8")
    return body.decode(encoding, "replace")
