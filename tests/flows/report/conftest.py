"""A parser for pages."""

from html.parser import HTMLParser

import pytest


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what a test asks for."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.images, self.addresses, self.ids, self.links = [], [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        self.addresses += [values[name] for name in ("src", "href", "srcset", "action") if values.get(name)]
        self.links += [values["href"]] if tag == "a" else []
        self.ids |= {values["id"]} if "id" in values else set()

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"


@pytest.fixture(scope="session")
def parse():
    """`parse(text)`: the page, checked for tags that are closed in order."""
    return Page
