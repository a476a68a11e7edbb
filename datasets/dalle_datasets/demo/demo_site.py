"""The emoji scenes published as a small web site, with the dirt of the real web in known numbers.

The demo reads it over HTTP like any other site. What is published and what should become of it are written down together,
so a test can ask for every drop count to the row. Addresses do not depend on the port: the site has a name of its own, and
whoever reads it is told which address and port stand behind that name.
"""

import html
import io
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dalle_datasets.config import SourceConfig
from dalle_datasets.demo.emoji_scenes import Scene, caption_scene, draw_scene, split_scenes

SITE_NAME = "emoji-scenes.localhost"
START_URL = f"http://{SITE_NAME}/"
ADDRESS = "127.0.0.1"

FIGURES_PER_PAGE = 60

SHORT_CAPTIONS = (
    "star", "red car", "a cat", "apples", "two dogs", "blue", "my bike", "logo", "the end", "hi", "an owl", "untitled", "photo",
    "green tree", "click here", "sale", "new", "home", "ok", "a b c",
)  # fmt: skip
BOILERPLATE_CAPTIONS = (
    "photographed on 3 May 2014", "Photo taken on 12/08/2013 at 14:05", "Photographed on March 21, 2011",
    "picture taken 2015-07-04 10:22:31", "Uploaded on 1 January 2016", "Copyright 2014 All rights reserved", "© 2012 all rights reserved",
    "Click to view full size image",
    "Click here to enlarge this picture", "Image may be subject to copyright", "Photo by stock image 2019", "image 12 of 48",
    "Posted on Tuesday, 9 June 2015", "No description available for this image", "Download this free stock photo",
)  # fmt: skip
FILE_NAME_CAPTIONS = (
    "IMG_2041.jpg", "DSC00123.JPG", "Screenshot 2014-05-03 at 10.22.31.png", "DSCN4711 copy.jpg", "image001.png", "final_final_v2 (1).png",
    "P1010023.JPG", "WhatsApp Image 2016-03-01 at 12.00.00.jpeg", "scan0004.tif", "banner-top-728x90.gif",
)  # fmt: skip
MARKUP_CAPTIONS = (
    "a <b>red</b> car on white", "two cats on pink [url=cats]", "more at https://emoji.example/cats", "{{title}} on a blue background",
    "a pear from www.fruit.example",
)  # fmt: skip
FOREIGN_CAPTIONS = (
    "ein roter Apfel liegt auf einem weißen Hintergrund", "zwei kleine Hunde spielen im grünen Garten",
    "une pomme rouge sur un fond blanc", "deux petits chats assis dans le jardin",
    "una manzana roja sobre un fondo blanco", "dos perros pequeños jugando en el parque",
    "una mela rossa su uno sfondo bianco", "uma maçã vermelha sobre um fundo branco",
    "een rode appel op een witte achtergrond", "ett rött äpple på en vit bakgrund",
    "czerwone jabłko na białym tle", "красное яблоко на белом фоне", "две маленькие собаки играют в саду",
    "червоне яблуко на білому тлі", "ένα κόκκινο μήλο σε λευκό φόντο", "beyaz bir arka plan üzerinde kırmızı bir elma",
    "白い背景の赤いりんご", "白色背景上的红苹果", "흰색 배경 위의 빨간 사과", "تفاحة حمراء على خلفية بيضاء",
)  # fmt: skip

Fate = tuple[str, str]
"""(stage, reason) of the drop that something published should end in."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answers."""

    status: int
    body: bytes = b""
    content_type: str = "image/png"
    headers: Mapping[str, str] = field(default_factory=dict)
    announced_bytes: int | None = None
    """A Content-Length that is not true."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One picture on a page. `fate` is None if a pair should come of it."""

    address: str
    caption: str
    fate: Fate | None = None


@dataclass(slots=True)
class Site:
    """Everything that is published, by path, and what should become of it."""

    replies: dict[str, Callable[[int], Reply]]
    """Path -> reply to the n-th request for it, counted from 0."""
    fates: Counter[Fate]
    num_pairs: int
    num_candidates: int
    num_pages: int

    def reply(self, path: str, request: int) -> Reply:
        """What a GET of `path` gets, the `request`-th time."""
        make = self.replies.get(path)
        return make(request) if make else Reply(404, b"There is nothing here.", "text/plain")


@contextmanager
def publish_site(source: SourceConfig) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Serve the site on the loopback address; yields what stands behind its name: {site name: (address, port)}.

    Raises `ValueError` when `source.port` is taken.
    """
    site = build_site(source)
    requests: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # headers and body leave together

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            request, requests[path] = requests[path], requests[path] + 1
            reply = site.reply(path, request)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Content-Length", str(len(reply.body) if reply.announced_bytes is None else reply.announced_bytes))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent: the collection keeps its own account."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, request: object, client_address: object) -> None:
            """A reader that hangs up early is not our error."""

    try:
        server = Server((ADDRESS, source.port), Handler)
    except OSError as error:
        raise ValueError(
            f"source.port={source.port}: {ADDRESS}:{source.port} cannot be used ({error.strerror}); "
            "choose another port, or 0 for any free one"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield {SITE_NAME: (ADDRESS, server.server_port)}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def build_site(source: SourceConfig) -> Site:
    """The site of `source.num_scenes` clean pictures and its dirt. Pictures are drawn when they are asked for."""
    builder = _Builder(source)
    builder.add_clean_pictures()
    builder.add_broken_downloads()
    builder.add_broken_images()
    builder.add_bad_captions()
    builder.add_duplicates()
    builder.add_what_discovery_drops()
    return builder.finish()


class _Builder:
    """Collects figures and replies."""

    def __init__(self, source: SourceConfig) -> None:
        self.size = source.scene_size
        self.top = f"/{self.size}px"  # other sizes are other pictures, so they have other addresses
        self.scenes = split_scenes(source.num_scenes)["training"]
        self.captions = [caption_scene(scene, random.Random(i)) for i, scene in enumerate(self.scenes)]
        self.figures: list[Figure] = []
        self.replies: dict[str, Callable[[int], Reply]] = {}
        self.page_fates: Counter[Fate] = Counter()

    def add(self, path: str, caption: str, fate: Fate | None, reply: Callable[[int], Reply] | None) -> None:
        """Put a picture on some page, behind `path`."""
        self.figures.append(Figure(path if path.startswith("data:") else self.top + path, caption, fate))
        if reply:
            self.replies[self.top + path] = reply

    def picture(self, i: int) -> Callable[[int], Reply]:
        """Reply with the picture of the i-th scene."""
        scene = self.scenes[i % len(self.scenes)]
        return lambda request: Reply(200, _png(draw_scene(scene, self.size)))

    def caption(self, i: int) -> str:
        return self.captions[i % len(self.captions)]

    def add_clean_pictures(self) -> None:
        for i, caption in enumerate(self.captions):
            self.add(f"/pictures/{i:05d}.png", caption, None, self.picture(i))
        # Some of them need a second request, or move.
        for i in range(4):
            self.replies[f"{self.top}/pictures/{i:05d}.png"] = _flaky(self.picture(i))
        for i in range(4, 9):
            self.replies[f"{self.top}/moved/{i:05d}.png"] = self.picture(i)
            self.replies[f"{self.top}/pictures/{i:05d}.png"] = _always(Reply(301, headers={"Location": f"../moved/{i:05d}.png"}))

    def add_broken_downloads(self) -> None:
        body = _png(draw_scene(self.scenes[0], self.size))
        for i in range(18):
            self.add(f"/gone/{i:02d}.png", self.caption(i), ("download", "http_4xx"), _always(Reply(410)) if i < 3 else None)
        for i in range(4):
            self.add(f"/busy/{i:02d}.png", self.caption(i), ("download", "http_5xx"), _always(Reply(503, headers={"Retry-After": "1"})))
        for i in range(5):
            reply = _always(Reply(200, body, headers={"X-Robots-Tag": "noai, noimageai"}))
            self.add(f"/reserved/{i:02d}.png", self.caption(i), ("download", "x_robots_tag"), reply)
        for i in range(3):
            self.add(f"/private/{i:02d}.png", self.caption(i), ("download", "robots_txt"), self.picture(i))
        for i in range(5):
            reply = _always(Reply(200, body[: len(body) // 2], announced_bytes=len(body)))
            self.add(f"/cut/{i:02d}.png", self.caption(i), ("download", "incomplete_body"), reply)
        for i in range(2):
            path = f"/round/{i:02d}.png"
            self.add(path, self.caption(i), ("download", "redirect_limit"), _always(Reply(302, headers={"Location": self.top + path})))
        for i in range(2):
            self.add(f"/empty/{i:02d}.png", self.caption(i), ("download", "empty_body"), _always(Reply(200)))

    def add_broken_images(self) -> None:
        page = b"<!doctype html><title>Sorry</title><p>This picture has been removed."
        drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="64" height="64"/></svg>'
        for i in range(8):
            self.add(f"/sorry/{i:02d}.png", self.caption(i), ("filter", "not_an_image"), _always(Reply(200, page)))
        for i in range(3):
            self.add(f"/drawings/{i:02d}.svg", self.caption(i), ("filter", "not_an_image"), _always(Reply(200, drawing, "image/svg+xml")))
        for i in range(8):
            body = _png(draw_scene(self.scenes[i], self.size))
            self.add(f"/torn/{i:02d}.png", self.caption(i), ("filter", "decode_error"), _always(Reply(200, body[: len(body) * 2 // 3])))
        for i in range(10):
            banner = (
                np.tile(draw_scene(self.scenes[i], self.size), (1, 4, 1))
                if i % 2
                else np.tile(draw_scene(self.scenes[i], self.size), (3, 1, 1))
            )
            self.add(f"/banners/{i:02d}.png", self.caption(i), ("filter", "aspect_ratio"), _always(Reply(200, _png(banner))))
        for i in range(6):
            icon = draw_scene(self.scenes[i], 64)[::4, ::4]
            self.add(f"/icons/{i:02d}.png", self.caption(i), ("filter", "too_small"), _always(Reply(200, _png(icon))))
        for i in range(4):
            blank = np.full((self.size, self.size, 3), 60 * i, np.uint8)
            self.add(f"/blank/{i:02d}.png", self.caption(i), ("filter", "blank"), _always(Reply(200, _png(blank))))
        sorry = _always(Reply(200, _png(_cross(self.size))))
        for i in range(24):
            self.add(f"/unavailable/{i:02d}.png", self.caption(i), ("filter", "placeholder"), sorry)

    def add_bad_captions(self) -> None:
        for reason, captions in (
            ("caption_short", SHORT_CAPTIONS),
            ("caption_boilerplate", BOILERPLATE_CAPTIONS),
            ("caption_file_name", FILE_NAME_CAPTIONS),
            ("caption_markup", MARKUP_CAPTIONS),
            ("caption_language", FOREIGN_CAPTIONS),
        ):
            for i, caption in enumerate(captions):
                self.add(f"/{reason.replace('_', '-')}/{i:02d}.png", caption, ("filter", reason), self.picture(i))

    def add_duplicates(self) -> None:
        """The same picture under another address: with its caption, or with another one, as the same file or packed differently."""
        for i in range(12):
            body = _png(draw_scene(self.scenes[20 + i], self.size), level=0 if i % 2 else 6)
            self.add(f"/copies/{i:02d}.png", self.caption(20 + i), ("filter", "duplicate_pair"), _always(Reply(200, body)))
        for i in range(12):
            body = _png(draw_scene(self.scenes[40 + i], self.size), level=0 if i % 2 else 6)
            self.add(
                f"/reposts/{i:02d}.png",
                _other_caption(self.scenes[40 + i], self.caption(40 + i)),
                ("filter", "duplicate_image"),
                _always(Reply(200, body)),
            )

    def add_what_discovery_drops(self) -> None:
        for i in range(6):
            self.add(f"/layout/spacer-{i}.gif", "", ("discover", "no_caption"), None)
        for i in range(3):
            self.add("data:image/gif;base64,R0lGODlhAQABAAAAACw=", f"{self.caption(i)} in a box", ("discover", "bad_scheme"), None)
        for i in range(5):
            self.add(f"/pictures/{i:05d}.png", self.caption(i), ("discover", "duplicate_candidate"), None)

    def finish(self) -> Site:
        """Lay the figures out on pages and link them."""
        figures = self.figures.copy()
        random.Random(7).shuffle(figures)
        chunks = [figures[i : i + FIGURES_PER_PAGE] for i in range(0, len(figures), FIGURES_PER_PAGE)]
        for number, chunk in enumerate(chunks, 1):
            link = f'<a href="{number + 1}.html">next page</a>' if number < len(chunks) else '<a href="/">start</a>'
            body = "\n".join(_markup(figure, i) for i, figure in enumerate(chunk)) + f"\n<p>{link} <a href='#top'>top</a></p>"
            self.page(f"/gallery/{number}.html", f"Emoji scenes, page {number}", body)
        self.add_closed_pages()
        entries = [f'<li><a href="gallery/{number}.html">Page {number}</a></li>' for number in range(1, len(chunks) + 1)]
        entries += [f'<li><a href="{path}">{path}</a></li>' for path in self.closed_paths]
        entries += ['<li><a href="http://elsewhere.example/">A friend</a> <a href="mailto:someone@elsewhere.example">Write</a></li>']
        self.page("/", "Emoji scenes", f"<ul>{''.join(entries)}</ul>")
        robots = f"User-agent: *\nDisallow: /members/\nDisallow: {self.top}/private/\n"
        self.replies["/robots.txt"] = _always(Reply(200, robots.encode(), "text/plain"))
        fates = self.page_fates + Counter(figure.fate for figure in self.figures if figure.fate)
        return Site(
            replies=self.replies,
            fates=fates,
            num_pairs=sum(figure.fate is None for figure in self.figures),
            num_candidates=sum(figure.fate is None or figure.fate[0] != "discover" for figure in self.figures),
            num_pages=len(chunks) + 1,
        )

    def page(self, path: str, title: str, body: str, head: str = "", headers: Mapping[str, str] | None = None) -> None:
        top = f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}</head>'
        text = f"<!doctype html>\n{top}\n<body>\n{body}\n</body></html>\n"
        self.replies[path] = _always(Reply(200, text.encode(), "text/html; charset=utf-8", headers or {}))

    def add_closed_pages(self) -> None:
        """Pages that do not want to be read, cannot be read or are no pages. Each becomes one drop."""
        hidden = "\n".join(_markup(Figure(f"{self.top}/pictures/{i:05d}.png", f"{self.caption(i)} for members", None), 0) for i in range(5))
        self.page("/members/1.html", "Members", hidden)
        self.page("/members/2.html", "Members", hidden)
        self.page("/no-training.html", "Reserved", hidden, head='<meta name="robots" content="index, noai, noimageai">')
        self.page("/no-training-header.html", "Reserved", hidden, headers={"X-Robots-Tag": "noai"})
        self.replies["/failing.html"] = _always(Reply(500, b"failed", "text/plain"))
        self.replies["/catalogue.pdf"] = _always(Reply(200, b"%PDF-1.4\n", "application/pdf"))
        closed = {
            "/members/1.html": "robots_txt", "/members/2.html": "robots_txt", "/no-training.html": "meta_robots",
            "/no-training-header.html": "x_robots_tag", "/failing.html": "http_5xx", "/missing.html": "http_4xx",
            "/also-missing.html": "http_4xx", "/catalogue.pdf": "not_html",
        }  # fmt: skip
        self.closed_paths = list(closed)
        self.page_fates.update(("discover", reason) for reason in closed.values())


def _markup(figure: Figure, i: int) -> str:
    """The figure in one of the ways in which pages show pictures."""
    caption, address = html.escape(figure.caption), figure.address
    if not figure.caption or not address.startswith("/"):
        return f'<img src="{address}" alt="{caption}">'
    spelled_out = "".join(f"&#{ord(c)};" if k % 3 == 0 else html.escape(c) for k, c in enumerate(figure.caption))
    ways = (
        f'<img src="..{address}" alt="{caption}">',
        f'<IMG ALT="{caption}" SRC="{address}" width=64>',
        f'<figure><img src="{address}" alt=""><figcaption>{caption.replace(" ", " <b></b>", 1)}</figcaption></figure>',
        f'<img src="/thumbs{address}" srcset="/thumbs{address} 16w, {address} 64w" alt="{caption}">',
        f'<picture><source type="image/png" srcset="{address}"><img src="/thumbs{address}" alt="{caption}"></picture>',
        f'<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" data-src="{address}" alt="{caption}" loading="lazy">',
        f'<p><img src=" {address}\n" alt="{spelled_out}"></p>',
        f'<a href="/gallery/1.html"><img src="//{SITE_NAME}{address}#view" title="{caption}"></a>',
    )
    return ways[i % len(ways)]


def _other_caption(scene: Scene, caption: str) -> str:
    """A caption of the scene in other words."""
    return next(other for other in (caption_scene(scene, random.Random(seed)) for seed in range(1_000, 2_000)) if other != caption)


def _cross(size: int) -> NDArray[np.uint8]:
    """What some sites show instead of a picture that they do not have."""
    row, column = np.indices((size, size))
    picture = np.full((size, size, 3), 225, np.uint8)
    picture[(row == column) | (row + column == size - 1)] = 120
    return picture


def _png(picture: NDArray[np.uint8], level: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def _always(reply: Reply) -> Callable[[int], Reply]:
    return lambda request: reply


def _flaky(make: Callable[[int], Reply]) -> Callable[[int], Reply]:
    """Overloaded at the first request, fine afterwards."""
    return lambda request: make(request) if request else Reply(503)
