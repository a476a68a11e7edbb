"""The playground's web server: one page, its two files, and JSON. Long answers are a JSON object a line, as they come."""

import base64
import binascii
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from dalle_datasets.images import ImageError, decode_image
from flows.app.access import Door
from flows.app.archive import Archive, questions
from flows.app.line import Event, Line, Tell, Work
from flows.app.studio import MAX_PROMPT, MAX_UPLOAD_PIXELS, Studio, read_drawing

STATIC = Path(__file__).with_name("static")
FILES = {"app.js": "text/javascript", "app.css": "text/css", "icon.svg": "image/svg+xml"}
MAX_UPLOAD_BYTES = 8 * 2**20
"""Of a picture that somebody sends."""
MAX_BODY_BYTES = MAX_UPLOAD_BYTES * 4 // 3 + 2**16
"""Of a request: a picture as base64, and a few words."""
QUERIES_AT_ONCE = 2
MAX_SHOWN = 96

Handler = Callable[["Playground", dict[str, Any]], Any]


class Playground:
    """What the routes share: a model, a data root, or both."""

    def __init__(self, studio: Studio | None, archive: Archive | None, title: str, why_no_model: str = "") -> None:
        self.studio, self.archive, self.title, self.why_no_model = studio, archive, title, why_no_model
        self.line = Line()
        self.queries = anyio.CapacityLimiter(QUERIES_AT_ONCE)

    def model(self) -> Studio:
        """The model. Raises `ValueError` when there is none."""
        if self.studio is None:
            raise ValueError(self.why_no_model)
        return self.studio

    def catalog(self) -> Archive:
        """The data root. Raises `ValueError` when there is none."""
        if self.archive is None:
            raise ValueError("a model folder knows no pairs; start `dalle app` with the data root that it was trained from")
        return self.archive


def make_app(playground: Playground, token: str | None = None) -> Starlette:
    """The ASGI application; with a token, only for those who know it."""

    async def about(request: Request) -> Response:
        return await answer(request, lambda here, _: describe(here))

    routes = [
        Route("/", functools.partial(send_file, "index.html", "text/html")),
        *(Route(f"/{name}", functools.partial(send_file, name, kind)) for name, kind in FILES.items()),
        Route("/api/about", about),
        *(Route(f"/api/{name}", functools.partial(stream, work), methods=["POST"]) for name, work in STREAMS.items()),
        *(Route(f"/api/{name}", functools.partial(answer, handler=handler), methods=["POST"]) for name, handler in ANSWERS.items()),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Door, token=token)], lifespan=_lifespan)
    app.state.playground = playground
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    yield
    app.state.playground.line.close()


async def send_file(name: str, kind: str, request: Request) -> Response:
    """One of the page's files."""
    return FileResponse(STATIC / name, media_type=kind, headers={"Cache-Control": "no-cache"})


async def answer(request: Request, handler: Handler) -> Response:
    """Run a handler beside the event loop; what it refuses is a sentence."""
    playground: Playground = request.app.state.playground
    try:
        body = await read_body(request) if request.method == "POST" else {}
        found = await beside(playground, handler, body)
    except ValueError as error:
        return refuse(error)
    except ClientDisconnect:
        return Response(status_code=499)
    return JSONResponse(found)


async def beside(playground: Playground, handler: Handler, body: dict[str, Any]) -> Any:
    """Run a handler on another thread; a few at a time, as a query may use all cores and a picture much memory."""
    async with playground.queries:
        return await run_in_threadpool(handler, playground, body)


async def stream(prepare: Callable[[Playground, dict[str, Any]], Work], request: Request) -> Response:
    """Wait in line, then work; every event is a line of JSON. Who goes away frees the place."""
    playground: Playground = request.app.state.playground
    try:
        body = await read_body(request)
        ticket = playground.line.join(await beside(playground, prepare, body))
    except ValueError as error:
        return refuse(error)
    except ClientDisconnect:
        return Response(status_code=499)

    async def lines() -> AsyncIterator[bytes]:
        async with contextlib.aclosing(ticket.events()) as events:
            async for event in events:
                yield json.dumps(event, allow_nan=False).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"X-Accel-Buffering": "no"})


def refuse(error: ValueError) -> Response:
    """A sentence for the visitor."""
    return JSONResponse({"detail": str(error)}, 400)


async def read_body(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises `ValueError` when it is none or too long; no more than `MAX_BODY_BYTES` are read."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ValueError("the request must be JSON (Content-Type: application/json)")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the request is too long; a picture may have {MAX_UPLOAD_BYTES // 2**20} MB")
    try:
        found = json.loads(body.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError("the request is not valid JSON") from None
    if not isinstance(found, dict):
        raise ValueError("the request must be a JSON object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def read_picture(body: dict[str, Any], is_needed: bool = True) -> bytes | None:
    """The bytes of the picture in a request, which can be decoded. Raises `ValueError` when they are missing, too many or no picture."""
    text = body.get("image")
    if text is None and not is_needed:
        return None
    if not isinstance(text, str) or not text:
        raise ValueError("choose a picture first")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the picture did not arrive whole (it is not valid base64); send it again") from None
    if len(data) > MAX_UPLOAD_BYTES:
        raise ValueError(f"the picture has {len(data) / 2**20:.1f} MB; {MAX_UPLOAD_BYTES // 2**20} MB are read at most")
    try:
        decode_image(data, MAX_UPLOAD_PIXELS)
    except ImageError as error:
        raise ValueError(f"this picture cannot be read: {error.detail}") from None
    return data


def read_text(body: dict[str, Any], name: str) -> str:
    """A text of a request. Raises `ValueError` when it is none, or too long."""
    text = body.get(name, "")
    if not isinstance(text, str) or len(text) > MAX_PROMPT:
        raise ValueError(f"{name} must be a text of at most {MAX_PROMPT:,} characters")
    return text


def describe(here: Playground) -> Event:
    """What there is to play with."""
    catalog, why = None, ""
    if here.archive is not None:
        try:
            catalog = here.archive.describe()
        except ValueError as error:
            why = str(error)
    return {
        "title": here.title,
        "model": here.studio and here.studio.describe(),
        "why_no_model": here.why_no_model,
        "catalog": catalog,
        "why_no_catalog": why,
        "queries": questions() if catalog is not None else [],
        "max_upload_mb": MAX_UPLOAD_BYTES // 2**20,
    }


def draw(here: Playground, body: dict[str, Any]) -> Work:
    """Candidates for a caption."""
    studio = here.model()
    asked = read_drawing(body, studio.generator, read_picture(body, is_needed=False))
    return lambda tell: studio.draw(asked, tell)


def reconstruct(here: Playground, body: dict[str, Any]) -> Work:
    """A picture through the dVAE."""
    studio, data = here.model(), read_picture(body) or b""
    return lambda tell: studio.reconstruct(data, tell)


def find_by_clip(here: Playground, body: dict[str, Any]) -> Work:
    """Pairs whose pictures fit a text, or look like a picture."""
    studio, archive = here.model(), here.catalog()
    data, text = read_picture(body, is_needed=False), read_text(body, "text")

    def work(tell: Tell) -> None:
        embedding = studio.embed_text(text) if data is None else studio.embed_picture(data)
        tell({"event": "pairs", "pairs": archive.like_embedding(embedding)})

    return work


def find_by_tokens(here: Playground, body: dict[str, Any]) -> Work:
    """Pairs with the image tokens of a picture."""
    studio, archive, data = here.model(), here.catalog(), read_picture(body) or b""
    return lambda tell: tell({"event": "pairs", "pairs": archive.like_tokens(studio.tokenize(data)[2])})


def find_by_words(here: Playground, body: dict[str, Any]) -> Any:
    """Pairs whose captions hold words."""
    return {"pairs": here.catalog().with_words(read_text(body, "text"))}


def find_by_token(here: Playground, body: dict[str, Any]) -> Any:
    """Pairs that use an image token."""
    token, dvae = body.get("token"), here.model().generator.networks.dvae.config
    if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < dvae.codebook_size:
        raise ValueError(f"token={token!r} must be a whole number below {dvae.codebook_size:,}")
    return {"pairs": here.catalog().with_token(token, dvae.image_size), "grid": dvae.image_grid_size}


def gallery(here: Playground, body: dict[str, Any]) -> Any:
    """The best pictures of a run."""
    return {"pictures": here.catalog().gallery(read_text(body, "run_id"), MAX_SHOWN)}


def lineage(here: Playground, body: dict[str, Any]) -> Any:
    """Where a picture came from: one of the catalog (`generation_id`), or one drawn here (`id`)."""
    if generation_id := read_text(body, "generation_id"):
        return here.catalog().lineage(generation_id)
    studio = here.model()
    drawn = studio.find(read_text(body, "id"))
    settings = ", ".join(f"{name}={getattr(drawn.sampling, name):g}" for name in ("temperature", "top_k", "top_p", "guidance"))
    completed = f"; completed from the upper {drawn.sampling.image_prompt_share:.0%} of a picture" if drawn.is_completed else ""
    facts = [
        ["picture", f"drawn here and not kept{completed}"],
        ["prompt", drawn.prompt],
        ["seed", f"{drawn.seed}; of this candidate: {drawn.picture.seed}"],
        ["sampler settings", settings],
        ["CLIP score", f"{drawn.picture.clip_score:.4f}"],
        ["rank by CLIP", str(drawn.rank)],
        *([name.removesuffix("_id"), value] for name, value in studio.ids.items()),
        *studio.learned_from,
    ]
    if here.archive is None:
        return {"facts": facts, "nearest": []}
    known = {fact for fact, _ in facts}
    facts += [[fact, value] for fact, value in here.archive.provenance() if fact not in known]
    nearest = here.archive.like_tokens(drawn.picture.image_tokens.tolist(), 6)
    by_clip = here.archive.like_embedding(drawn.picture.image_embedding.tolist(), 6)
    return {"facts": facts, "nearest": nearest + [row for row in by_clip if row["pair_id"] not in {near["pair_id"] for near in nearest}]}


def ask(here: Playground, body: dict[str, Any]) -> Any:
    """A named query."""
    params = body.get("params", {})
    if not isinstance(params, dict) or not all(isinstance(value, str) and len(value) <= MAX_PROMPT for value in params.values()):
        raise ValueError(f"params must be texts of at most {MAX_PROMPT:,} characters")
    return here.catalog().ask(read_text(body, "name"), params)


STREAMS: dict[str, Callable[[Playground, dict[str, Any]], Work]] = {
    "draw": draw,
    "reconstruct": reconstruct,
    "pairs-by-clip": find_by_clip,
    "pairs-by-tokens": find_by_tokens,
}
"""What needs the model, and so its turn."""
ANSWERS: dict[str, Handler] = {
    "pairs-by-words": find_by_words,
    "pairs-by-token": find_by_token,
    "gallery": gallery,
    "lineage": lineage,
    "query": ask,
}
