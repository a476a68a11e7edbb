"""Checks of URLs: a valid form, and a host outside private networks."""

import ipaddress
import urllib.parse

from dalle_datasets.web.failures import FetchError

MAX_HOST_LENGTH = 253
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def join_url(url: str, location: str) -> str:
    """Where a redirect from `url` leads. Raises `FetchError` if that is no URL."""
    try:
        return urllib.parse.urljoin(url, location)
    except ValueError as error:
        raise FetchError("bad_url", f"redirect to {location[:100]!r}: {error}") from error


def split_url(url: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, path with query), with spaces and non-ASCII characters encoded.

    Raises `FetchError` for a URL that cannot be asked for.
    """
    try:
        parts = urllib.parse.urlsplit(url.strip())
        scheme = parts.scheme.lower()
        if scheme not in ("http", "https"):
            raise FetchError("bad_scheme", f"scheme {scheme[:20]!r}" if scheme else "no scheme")
        host = (parts.hostname or "").rstrip(".")
        port = parts.port or (443 if scheme == "https" else 80)
        if not host.isascii() and len(host) <= MAX_HOST_LENGTH:
            host = host.encode("idna").decode()
    except ValueError as error:  # UnicodeError is one
        raise FetchError("bad_url", str(error)) from error
    if not host or parts.username or len(host) > MAX_HOST_LENGTH:
        raise FetchError("bad_url", "no host" if not host else "a user name in the address" if parts.username else "host name too long")
    target = urllib.parse.quote(parts.path or "/", safe="%/:=&~+!$,;'@()*[]")
    if parts.query:
        target += "?" + urllib.parse.quote(parts.query, safe="%/:=&?~+!$,;'@()*[]")
    return scheme, host, port, target


def is_allowed(address: str, allow_addresses: tuple[str, ...]) -> bool:
    """Whether `address` is a public unicast address, or one of `allow_addresses`."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address inside an IPv6 one is judged as what it reaches.
        nat64 = ipaddress.IPv4Address(ip.packed[12:]) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or nat64 or ip
    return str(ip) in allow_addresses or (ip.is_global and not ip.is_multicast)
