"""A real HTTP server on the loopback address whose answers a test chooses, well or badly behaved."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import settings

settings.register_profile("fuzz", max_examples=2_000, derandomize=False)  # of each test in a round of `make fuzz`


Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Web:
    """`answers[path]` is called with the handler of a request; other paths get a 404."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    num_open: int = 0
    """Requests that are being answered."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def count(self, path: str) -> int:
        return Counter(asked for asked, _ in self.requests)[path]

    def put(self, path: str, body: bytes, content_type: str = "image/png", status: int = 200, **headers: str) -> None:
        """Answer `path` with a body and true headers; `X_Robots_Tag="noai"` becomes `X-Robots-Tag: noai`."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Type", content_type)
            if "Content_Length" not in headers:
                handler.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer

    def redirect(self, path: str, to: str) -> None:
        self.put(path, b"", status=302, Location=to)

    def flaky(self, path: str, body: bytes, failures: int) -> None:
        """Fail with 503 a few times, then answer."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            if self.count(path) <= failures:
                handler.send_error(503)
            else:
                handler.send_response(200)
                handler.end_headers()
                handler.wfile.write(body)

        self.answers[path] = answer

    def drip(self, path: str, every_s: float, what: bytes = b"") -> None:
        """Send a byte now and then, for ever: of the headers if `what` is empty, else of the body."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            if what:
                handler.send_response(200)
                handler.send_header("Content-Length", "1000")
                handler.end_headers()
            for _ in range(200):
                handler.connection.sendall(what[:1] or b"H")
                time.sleep(every_s)

        self.answers[path] = answer

    def hang(self, path: str, seconds: float) -> None:
        """Say nothing for a while."""
        self.answers[path] = lambda handler: time.sleep(seconds)

    def reset(self, path: str) -> None:
        """Break the connection."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()

        self.answers[path] = answer

    def endless(self, path: str) -> None:
        """A body without end."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            while True:
                handler.wfile.write(bytes(65_536))

        self.answers[path] = answer


@pytest.fixture
def web() -> Iterator[Web]:
    with serve() as site:
        yield site


@pytest.fixture
def webs() -> Iterator[list[Web]]:
    """Three hosts: every port is a host of its own."""
    with serve() as first, serve() as second, serve() as third:
        yield [first, second, third]


@contextmanager
def serve() -> Iterator[Web]:
    """Answer until the end of the block."""
    site = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            answer = site.answers.get(self.path)
            site.num_open += 1
            try:
                answer(self) if answer else self.send_error(404)
            except OSError:  # the reader hung up
                self.close_connection = True
            finally:
                site.num_open -= 1

        def log_message(self, format: str, *args: object) -> None: ...

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
