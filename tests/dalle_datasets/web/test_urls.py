"""Addresses are what browsers make of them."""

import pytest

from dalle_datasets.web.failures import FetchError
from dalle_datasets.web.urls import join_url, resolve_url, split_url

PAGE = "http://site.example/blog/page.html"


@pytest.mark.parametrize(
    ("url", "absolute"),
    [
        ("pix\\b1.png", "http://site.example/blog/pix/b1.png"),
        ("\\\\other.example\\a.png", "http://other.example/a.png"),
        (" a b.png\n", "http://site.example/blog/a%20b.png"),
        ("../../../a.png", "http://site.example/a.png"),
        ("рыба.png", "http://site.example/blog/%D1%80%D1%8B%D0%B1%D0%B0.png"),
        ("//faß.example/", "http://xn--fa-hia.example/"),  # not fass.example, which is somebody else's
        ("//ＥＸＡＭＰＬＥ。com/", "http://example.com/"),
        ("//EXAMPLE.com:80/%7Ea?b=c d#e", "http://example.com/%7Ea?b=c%20d#e"),
        ("//0x7f.1/", "http://127.0.0.1/"),
        ("https:a.png", "https://a.png/"),
        ("http:a.png", "http://site.example/blog/a.png"),
    ],
)
def test_addresses(url, absolute):
    assert resolve_url(url, PAGE).href == absolute


def test_the_query_of_an_old_page_is_in_its_encoding():
    assert resolve_url("ä?q=ä猫#ä", PAGE, "windows-1252").href == "http://site.example/blog/%C3%A4?q=%E4%26%2329483%3B#%C3%A4"
    assert resolve_url("?q=ä", PAGE, "utf-16-le").href == "http://site.example/blog/page.html?q=%C3%A4"


@pytest.mark.parametrize("url", ["http://[::1", "http://a:b/", "http://a b/", "http://", "http://\ud800/", "//%00/"])
def test_no_addresses(url):
    assert resolve_url(url, "https://site.example/") is None


def test_what_is_asked_for():
    assert split_url("https://Grüße.example:8443/ä b?c=ü|d") == (
        "https", "xn--gre-6ka8l.example", 8443, "/%C3%A4%20b?c=%C3%BC|d",
    )  # fmt: skip
    assert split_url("http://[2001:DB8::1]") == ("http", "2001:db8::1", 80, "/")


def test_redirects():
    assert join_url(PAGE, "\\a.png") == "http://site.example/a.png"
    assert join_url(PAGE, "/ü".encode().decode("latin-1")) == "http://site.example/%C3%BC"
    with pytest.raises(FetchError, match="bad_url: redirect to 'http://a:b/', which is no address"):
        join_url(PAGE, "http://a:b/")
