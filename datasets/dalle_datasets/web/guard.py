"""Requests under limits: the only way in which this package talks to the web.

Pages and images come from strangers, so every request goes through one function that speaks http and https only,
connects to public addresses only (the very address that was checked, so a name that changes its mind gains nothing; on every
redirect again), refuses a body that is too large instead of cutting it, keeps a deadline from the first byte of the name
look-up to the last byte of the body, uses no proxy, and says honestly who is asking.
"""

import functools
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.opt_outs import header_opt_out
from dalle_datasets.web.urls import is_allowed, join_url, split_url

MAX_REDIRECTS = 5
CHUNK_BYTES = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLimits:
    """The limits of one request."""

    user_agent: str
    timeout_s: float
    """Longest silence, seconds."""
    deadline_s: float
    """Longest time for the whole request with its redirects, seconds."""
    max_bytes: int
    allow_addresses: tuple[str, ...] = ()
    """IP addresses that may be contacted although they are not public."""
    connect_to: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Host name -> (address, port) to connect to instead of asking the DNS, e.g. for a site published on this machine."""

    @property
    def user_agent_token(self) -> str:
        """The name that robots.txt and X-Robots-Tag know us by."""
        return self.user_agent.split("/")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    url: str
    """Where the body came from, after redirects."""
    status: int
    headers: Message
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is wanted of an address, other than its body."""

    headers: Mapping[str, str] = field(default_factory=dict)
    into: BinaryIO | None = None
    """Where the body goes, piece by piece, instead of into the answer."""
    method: str = "GET"
    wants_body: bool = True
    """Without it the connection is closed after the headers."""
    is_rules: bool = False
    """A file of rules such as robots.txt: what is said against its own use is not about the others, and too long a one is cut."""


BODY = Wish()
"""The body alone."""


def fetch(
    url: str,
    limits: RequestLimits,
    wish: Wish = BODY,
    before_redirect: Callable[[str], None] = lambda url: None,
) -> Response:
    """The body behind `url`, complete. Raises `FetchError` with a code of the closed set for everything else.

    Status 304 is an answer too (it has no body) when the headers made the request conditional.
    `before_redirect` may refuse an address that we are sent to; its time does not count.
    """
    clock = _Clock(limits)
    for _ in range(MAX_REDIRECTS + 1):
        answer = _fetch_once(url, limits, clock, wish)
        location = answer.headers.get("Location")
        if answer.status not in (301, 302, 303, 307, 308) or not location:
            return answer
        url = join_url(url, location)
        with clock.stopped():
            before_redirect(url)
    raise FetchError("redirect_limit", f"more than {MAX_REDIRECTS} redirects")


class _Clock:
    """Time left for a request."""

    def __init__(self, limits: RequestLimits) -> None:
        self._timeout_s = limits.timeout_s
        self._deadline_s = limits.deadline_s
        self._end = time.monotonic() + limits.deadline_s

    def wait_s(self) -> float:
        """How long the next socket operation may take."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise FetchError("deadline", f"more than {self._deadline_s:g} s in all")
        return min(self._timeout_s, left)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """For time that is not the host's."""
        start = time.monotonic()
        yield
        self._end += time.monotonic() - start

    def explain(self) -> FetchError:
        """What a socket timeout was: silence, or the end of the deadline."""
        if time.monotonic() >= self._end:
            return FetchError("deadline", f"more than {self._deadline_s:g} s in all")
        return FetchError("timeout", f"silent for {self._timeout_s:g} s")


class _Reader(io.RawIOBase):
    """Reads a socket under a clock. `http.client` reads status line and headers through it too, so that they cannot drip for ever."""

    def __init__(self, connection: socket.socket, clock: _Clock) -> None:
        self._connection = connection
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._connection.settimeout(self._clock.wait_s())
        return self._connection.recv_into(buffer)


class _Socket:
    """As much of a socket as `http.client` uses."""

    def __init__(self, connection: socket.socket, clock: _Clock) -> None:
        self._connection = connection
        self._clock = clock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connection, self._clock), CHUNK_BYTES)

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(self._clock.wait_s())
        self._connection.sendall(data)

    def close(self) -> None:
        """The socket is closed by `_fetch_once`."""


def _fetch_once(url: str, limits: RequestLimits, clock: _Clock, wish: Wish) -> Response:
    scheme, host, port, target = split_url(url)
    try:
        connection = _connect(host, port, limits, clock)
        try:
            if scheme == "https":
                connection.settimeout(clock.wait_s())
                connection = _tls_context().wrap_socket(connection, server_hostname=host)
            return _ask(url, host, port, scheme, target, _Socket(connection, clock), limits, wish)
        finally:
            connection.close()
    except ssl.SSLError as error:
        raise FetchError("tls", str(error)) from error
    except TimeoutError as error:
        raise clock.explain() from error
    except http.client.IncompleteRead as error:
        raise FetchError("incomplete_body", str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError("connect", f"{type(error).__name__}: {error}") from error


def _ask(
    url: str,
    host: str,
    port: int,
    scheme: str,
    target: str,
    connection: _Socket,
    limits: RequestLimits,
    wish: Wish,
) -> Response:
    client = http.client.HTTPConnection(host, port)
    client.sock = connection
    default_port = port == (443 if scheme == "https" else 80)
    name = f"[{host}]" if ":" in host else host
    client.request(
        wish.method, target,
        headers={
            "Host": name if default_port else f"{name}:{port}", "User-Agent": limits.user_agent, "Accept": "*/*",
            "Accept-Encoding": "identity", "Connection": "close", **wish.headers,
        },
    )  # fmt: skip
    response = client.getresponse()
    status = response.status
    if status >= 400:
        raise _failed_status(response)
    if status != 200 and not 300 <= status < 400:
        raise FetchError("empty_body", f"status {status}")
    if status in (200, 304) and not wish.is_rules and (against := header_opt_out(response.headers, limits.user_agent_token)):
        raise FetchError(against.code, against.detail)
    if status != 200 or wish.method == "HEAD" or not wish.wants_body:
        return Response(url, status, response.headers, b"")
    body = bytearray()
    _copy_body(response, limits.max_bytes, wish.into.write if wish.into is not None else body.extend, cut=wish.is_rules)
    return Response(url, status, response.headers, bytes(body))


def _copy_body(response: http.client.HTTPResponse, max_bytes: int, write: Callable[[bytes], object], cut: bool) -> None:
    announced = response.length  # None for a chunked body
    if announced is not None and announced > max_bytes and not cut:
        raise FetchError("too_many_bytes", f"{announced} bytes announced, {max_bytes} allowed")
    num_bytes = 0
    while chunk := response.read1(CHUNK_BYTES):
        if num_bytes + len(chunk) > max_bytes:
            if cut:
                write(chunk[: max_bytes - num_bytes])
                return
            raise FetchError("too_many_bytes", f"more than {max_bytes} bytes")
        num_bytes += len(chunk)
        write(chunk)
    if announced is not None and num_bytes < announced:
        raise FetchError("incomplete_body", f"{num_bytes} of {announced} bytes")
    if not num_bytes:
        raise FetchError("empty_body", "status 200 without a body")


def _failed_status(response: http.client.HTTPResponse) -> FetchError:
    status = response.status
    code = "http_429" if status == 429 else "http_4xx" if status < 500 else "http_5xx"
    retry_after = response.headers.get("Retry-After")
    if not retry_after:
        return FetchError(code, f"status {status}", status=status)
    return FetchError(code, f"status {status}, Retry-After: {retry_after}", _seconds_until(retry_after), status)


def _seconds_until(retry_after: str) -> float:
    """Seconds that a `Retry-After` of seconds or of a date means; 0 if it means nothing."""
    if retry_after.isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _connect(host: str, port: int, limits: RequestLimits, clock: _Clock) -> socket.socket:
    """A connection to the first address of `host` that is public, or allowed, and answers."""
    if host in limits.connect_to:
        return socket.create_connection(limits.connect_to[host], clock.wait_s())
    found = _look_up(host, port, clock.wait_s())
    last_error: OSError | FetchError = FetchError("dns", f"{host} has no address")
    for family, kind, protocol, _, address in found:
        if not is_allowed(str(address[0]), limits.allow_addresses):
            last_error = FetchError("private_address", f"{host} is {address[0]}")
            continue
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(clock.wait_s())
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            last_error = error
    raise last_error


def _look_up(host: str, port: int, wait_s: float) -> list[Any]:
    """What `socket.getaddrinfo` says, if it says it in time: a name server that is silent would hold it up for as long as it likes."""
    answer: Future[list[Any]] = Future()

    def ask(flags: int = 0) -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))
        except BaseException as error:
            answer.set_exception(error)

    if host.replace(".", "").isdigit() or ":" in host:
        ask(socket.AI_NUMERICHOST)
    else:
        threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(wait_s)
    except TimeoutError as error:
        raise FetchError("dns", f"{host} was not resolved in {wait_s:g} s") from error
    except (socket.gaierror, UnicodeError) as error:
        raise FetchError("dns", f"{host} does not resolve ({error})") from error


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()
