"""Running the playground's server until Ctrl-C."""

import contextlib
import socket
from collections.abc import Callable

import uvicorn

from flows.app.server import Playground, make_app

GRACE_S = 2
"""How long an answer under way may take once the server is to end."""


def serve(playground: Playground, host: str, port: int, token: str | None, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM. `say` is told the address once it can be opened. Raises `ValueError` when the port is taken."""
    is_ipv6 = ":" in host
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()  # who is quick waits, instead of being refused
        except OSError as error:
            raise ValueError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port, 0 for any") from error
        name = f"[{host}]" if is_ipv6 else host
        url = f"http://{name}:{listener.getsockname()[1]}/" + (f"enter?token={token}" if token else "")
        say(f"the playground for {playground.title} is at {url}")
        if token:
            say("who has this address can play; there is no encryption: across a network you do not trust, use an SSH tunnel or a proxy")
        config = uvicorn.Config(
            make_app(playground, token), log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S, server_header=False
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn ends in good order, then raises what it caught
            uvicorn.Server(config).run(sockets=[listener])
    playground.line.close()
    say("the playground has ended")
