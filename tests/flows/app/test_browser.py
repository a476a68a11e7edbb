"""The playground in a real browser, end to end: draw, follow a picture to its sources, see tokens, find pairs, ask; on a phone, too."""

import socket
import threading

import pytest
import uvicorn

from flows.app.server import make_app
from tests.browser import PROGRAM, open_page

NAMELESS = """[...document.querySelectorAll('button, input, select, img')].filter((e) =>
    !(e.labels?.length || e.ariaLabel || e.textContent || e.title || e.hasAttribute('alt') || e.querySelector('img[alt]'))
).map((e) => e.outerHTML)"""


@pytest.fixture
def address(make_playground, catalogued_root):
    """A server of this process on a free port."""
    app = make_app(make_playground(catalogued_root.layout))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join(20)


def by_id(name):
    return f"document.getElementById('{name}')"


def says(status, words):
    return f"/{words}/.test({by_id(status)}.textContent)"


@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (chromium or google-chrome on the PATH)")
def test_a_visitor_draws_follows_a_picture_and_looks_around(address, tmp_path):
    with open_page(tmp_path / "profile") as page:
        page.resize(1280, 900)
        page.open(address)
        page.wait("document.body && 'ready' in document.body.dataset")
        assert page.run("document.querySelectorAll('#examples button').length") == 6
        page.run(f"{by_id('prompt')}.value = '<b>owl</b>'; {by_id('draw-form')}.requestSubmit()")
        page.wait(says("draw-status", "order, the best first"))
        scores = page.run("[...document.querySelectorAll('#candidates .rank span')].map((score) => Number(score.textContent))")
        assert len(scores) == 16
        assert scores == sorted(scores, reverse=True)
        assert page.run("new Set([...document.querySelectorAll('canvas')].map((c) => c.toDataURL())).size") > 1  # drawn, and not alike
        page.run("document.querySelector('#candidates button').click()")
        page.wait("document.querySelectorAll('#nearest-list img').length >= 6")
        facts = dict(page.run("[...document.querySelectorAll('#facts dt')].map((dt) => [dt.textContent, dt.nextSibling.textContent])"))
        assert (facts["prompt"], facts["rank by CLIP"], facts["sources"]) == ("<b>owl</b>", "1", "emoji_scenes")
        page.screenshot(tmp_path / "lineage.png")
        assert (tmp_path / "lineage.png").stat().st_size > 10_000

        page.run("[...document.querySelectorAll('#detail-actions button')].find((b) => /tokens/.test(b.textContent)).click()")
        page.wait("document.querySelectorAll('#grid button').length === 16")
        page.run("document.querySelector('#grid button').click()")
        page.wait(says("token-title", r"token \d+"))
        page.run(f"{by_id('tab-pairs')}.click()")
        page.wait("document.querySelectorAll('#pairs-list img').length > 2")
        page.run(f"{by_id('pairs-text')}.value = 'no such word'; {by_id('pairs-form')}.requestSubmit()")
        page.wait(says("pairs-status", "try fewer words"))
        page.run(f"{by_id('tab-kept')}.click()")
        page.wait("document.querySelectorAll('#kept-list img').length === 6")
        page.run(f"{by_id('tab-ask')}.click(); {by_id('query')}.value = 'funnel'; {by_id('query')}.dispatchEvent(new Event('change'))")
        page.run(f"{by_id('ask-form')}.requestSubmit()")
        page.wait("document.querySelectorAll('#answer tbody tr').length === 5")

        (tmp_path / "bad.png").write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
        page.run(f"{by_id('tab-tokens')}.click()")
        page.upload("#tokens-file", tmp_path / "bad.png")
        page.wait(says("tokens-status", "cannot be read: an SVG drawing"))
        page.resize(390, 844)
        for tab in ("draw", "tokens", "pairs", "kept", "ask"):
            page.run(f"{by_id(f'tab-{tab}')}.click()")
            assert page.run("document.documentElement.scrollWidth") <= 390, tab
        assert page.run(NAMELESS) == []
        # browsers log every answer 400, as that to the bad upload
        assert [said for said in page.complaints if "400 (Bad Request)" not in said] == []
        assert {url.split("/")[2] for url in page.asked if url.startswith("http")} == {address.split("/")[2]}
