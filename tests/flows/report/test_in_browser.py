"""The report in a real browser: nothing on its console, no request, nothing that a phone would cut off, and it prints."""

import base64

import pytest

from dalle_model.config.presets import preset
from flows.report import write_collection_report, write_report
from tests.browser import PROGRAM, open_page


@pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (chromium or google-chrome on the PATH)")
def test_both_pages_are_right_on_a_phone_and_print(catalogued_root, tmp_path):
    layout = catalogued_root.layout
    pages = [write_report(layout, preset("demo", {"evaluate.num_shown": 3})), write_collection_report(layout)]
    with open_page(tmp_path / "profile") as page:
        for path in pages:
            page.resize(390, 844)
            page.open(path.as_uri())
            page.wait("document.readyState === 'complete' && document.querySelector('footer')")
            assert page.run("document.documentElement.scrollWidth") <= 390, path.name
            page.run("document.querySelector('nav a').focus()")
            assert page.run("document.activeElement.getAttribute('href')") == page.run(
                "document.querySelector('nav a').getAttribute('href')"
            )
            paper = base64.b64decode(page.send("Page.printToPDF")["data"])
            assert paper.startswith(b"%PDF")
        assert page.complaints == []
        assert {url.split(":")[0] for url in page.asked} <= {"file", "data"}
