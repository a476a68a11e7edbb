"""Who may ask: on loopback everybody at this machine, elsewhere who knows the token. And what a browser is told to forbid."""

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "dalle_app"
ENTER = "/enter"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SAFE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


def new_token() -> str:
    """A token nobody guesses, short enough to be read out."""
    return secrets.token_urlsafe(18)


class Door:
    """ASGI middleware: lets in who may, and puts `SAFE_HEADERS` on every answer.

    Without a token the server listens on loopback: only requests for a loopback name pass, so that a page elsewhere whose name leads to
    127.0.0.1 reads nothing. A request that changes or costs something must come from a page of this server.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        request = Request(scope, receive)
        refusal = self._refusal(request)
        if refusal is None and self.token is not None and request.url.path == ENTER:
            refusal = await self._enter(request)
        elif refusal is None and self.token is not None and not self._is_known(request.headers):
            refusal = self._ask_for_token(request)
        await (refusal or self.app)(scope, receive, send_safely)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self.token is None and _name_of(host) not in LOOPBACK:
            return PlainTextResponse("this playground answers at localhost only; start it with --host to share it", 403)
        if request.method not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("only GET and POST are answered", 405)
        origin = request.headers.get("origin")
        if request.method == "POST" and origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("a page of another site asked for this; only this playground's own page may", 403)
        return None

    async def _enter(self, request: Request) -> Response:
        """Exchange the token for a cookie."""
        given = request.query_params.get("token", "")
        if not self._is_token(given):
            return self._ask_for_token(request, was_wrong=bool(given))
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, given, max_age=30 * 24 * 3600, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer

    def _is_known(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _is_token(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def _ask_for_token(self, request: Request, was_wrong: bool = False) -> Response:
        if request.url.path not in ("/", ENTER):
            return PlainTextResponse("this playground asks for a token; open it at its first page", 401)
        said = "That is not the token." if was_wrong else "This playground asks for a token."
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
            f"<title>open-dalle</title></head><body><main><h1>open-dalle</h1><p>{said} It stands in the terminal in which "
            f'<code>dalle app</code> runs.</p><form action="{ENTER}"><label>Token <input name="token" type="password" required '
            'autofocus autocomplete="off"></label> <button>Enter</button></form></main></body></html>'
        )
        return HTMLResponse(page, 401)


def _name_of(host: str) -> str:
    """The name of a Host header, without its port."""
    return urlsplit(f"//{host}").hostname or ""
