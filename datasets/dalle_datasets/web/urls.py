"""URLs as browsers resolve them (WHATWG), and which of them may be asked for: not those of a private network."""

import contextlib
import ipaddress
import re

from ada_url import URL

from dalle_datasets.web.failures import FetchError

MAX_HOST_LENGTH = 253
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")


def resolve_url(url: str, base: str = "", encoding: str = "utf-8") -> URL | None:
    """`url` seen from `base`, as a browser reads it; None if that is no URL.

    Backslashes are slashes, host names follow IDNA 2008 (so that "ß" is not "ss", which may be somebody else's), and what is not
    ASCII is escaped: in the query, of a page in an old encoding, by the bytes of that `encoding`.
    """
    try:
        url = _escape_query(url, encoding)
        return URL(url, base=base) if base else URL(url)
    except ValueError:  # UnicodeEncodeError is one
        return None


def _escape_query(url: str, encoding: str) -> str:
    if url.isascii() or encoding.lower().startswith("utf-"):
        return url
    rest, hash, fragment = url.partition("#")
    path, mark, query = rest.partition("?")
    return path + mark + "".join(c if c.isascii() else _escape(c, encoding) for c in query) + hash + fragment


def _escape(character: str, encoding: str) -> str:
    try:
        return "".join(f"%{byte:02X}" for byte in character.encode(encoding))
    except UnicodeEncodeError:
        return f"%26%23{ord(character)}%3B"


def join_url(url: str, location: str) -> str:
    """Where a redirect from `url` leads. Raises `FetchError` if that is no URL."""
    with contextlib.suppress(UnicodeError):
        location = location.encode("latin-1").decode()  # what headers are read as, and what they are written in
    found = resolve_url(location, url)
    if found is None:
        raise FetchError("bad_url", f"redirect to {location[:100]!r}, which is no address")
    return str(found.href)


def split_url(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path with query), with spaces and non-ASCII characters encoded.

    Raises `FetchError` for a URL that cannot be asked for.
    """
    found = resolve_url(url)
    if found is None:
        scheme = _SCHEME.match(url)
        if scheme is None or scheme[1].lower() not in ("http", "https"):
            raise FetchError("bad_scheme", f"scheme {scheme[1][:20]!r}" if scheme else "no scheme")
        raise FetchError("bad_url", "its host or port is none")
    if found.protocol not in ("http:", "https:"):
        raise FetchError("bad_scheme", f"scheme {found.protocol[:-1][:20]!r}")
    host = found.hostname.strip("[]").rstrip(".")
    if not host or found.username or len(host) > MAX_HOST_LENGTH:
        raise FetchError("bad_url", "no host" if not host else "a user name in the address" if found.username else "host name too long")
    port = int(found.port) if found.port else 443 if found.protocol == "https:" else 80
    return found.protocol[:-1], host, port, found.pathname + found.search


def is_allowed(address: str, allow_addresses: tuple[str, ...]) -> bool:
    """Whether `address` is a public unicast URL, or one of `allow_addresses`."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address inside an IPv6 one is judged as what it reaches.
        nat64 = ipaddress.IPv4Address(ip.packed[12:]) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or nat64 or ip
    return str(ip) in allow_addresses or (ip.is_global and not ip.is_multicast)
