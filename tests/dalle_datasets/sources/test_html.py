"""What is read from a page, tried on snippets as they are found in the wild."""

from email.message import Message

import pytest

from dalle_datasets.sources.base import clean_url
from dalle_datasets.sources.html import decode_html, read_page, unescape_attribute
from dalle_datasets.texts.captions import clean_caption

PAGE = "http://site.example/blog/post.html"


def headers(content_type="text/html; charset=utf-8"):
    message = Message()
    message["Content-Type"] = content_type
    return message


def read(body, **options):
    return read_page(body.encode(), PAGE, headers(**options), "open-dalle")


def only(body):
    page = read(body)
    assert len(page.found) == 1, page
    return page.found[0]


@pytest.mark.parametrize(
    ("snippet", "image_url"),
    [
        ('<img src="a.png" alt="a cat">', "http://site.example/blog/a.png"),
        ('<img src="/a.png" alt="a cat">', "http://site.example/a.png"),
        ('<img src="../a.png" alt="a cat">', "http://site.example/a.png"),
        ('<img src="//cdn.example/a.png#x" alt="a cat">', "http://cdn.example/a.png"),
        ('<img src="HTTP://CDN.example:80/A.png" alt="a cat">', "http://cdn.example/A.png"),
        ('<img src=" a.png\n" alt="a cat">', "http://site.example/blog/a.png"),
        ('<img src="a.png?x=1&amp;y=2" alt="a cat">', "http://site.example/blog/a.png?x=1&y=2"),
        ('<base href="http://other.example/x/"><img src="a.png" alt="a cat">', "http://other.example/x/a.png"),
        ('<img src="s.gif" data-src="a.png" alt="a cat">', "http://site.example/blog/a.png"),
        ('<amp-img src="a.png" width="4" height="3" alt="a cat"></amp-img>', "http://site.example/blog/a.png"),
        ('<img data-original="a.png" alt="a cat">', "http://site.example/blog/a.png"),
        ('<img src="s.png" srcset="m.png 320w, l.png 640w, xl.png 9000w" alt="a cat">', "http://site.example/blog/l.png"),
        ('<img src="s.png" srcset="m.png, l.png 2x" alt="a cat">', "http://site.example/blog/l.png"),
        ('<img src="s.png" srcset="huge.png 4000w, vast.png 8000w" alt="a cat">', "http://site.example/blog/huge.png"),
        ('<img srcset="/w_200,h_100/a.png 200w,/w_400,h_200/a.png 400w" alt="a cat">', "http://site.example/w_400,h_200/a.png"),
        ('<img srcset="data:image/png;base64,AA 1w, a.png 2w" alt="a cat">', "http://site.example/blog/a.png"),
        (
            '<picture><source srcset="v.svg" type="image/svg+xml"><source srcset="a.webp 800w"><img src="s.png" alt="a cat"></picture>',
            "http://site.example/blog/a.webp",
        ),
        ('<noscript><img src="a.png" alt="a cat"></noscript>', "http://site.example/blog/a.png"),
    ],
)
def test_the_address_of_an_image(snippet, image_url):
    assert only(snippet).image_url == image_url


@pytest.mark.parametrize(
    ("snippet", "caption", "found_in"),
    [
        ('<img src=a.png alt="a cat">', "a cat", "img alt"),
        ('<img src=a.png alt="  a \n cat ">', "a cat", "img alt"),
        ('<img src=a.png alt="Tom &amp; Jerry &#233;t&#xe9; &quot;x&quot;">', 'Tom & Jerry été "x"', "img alt"),
        ('<img src=a.png alt="Tom &amp;amp; Jerry">', "Tom & Jerry", "img alt"),
        ('<img src=a.png alt="un cafÃ© noir">', "un café noir", "img alt"),
        ('<img src=a.png alt="a\u200b cat\u00a0there">', "a cat there", "img alt"),
        ('<img src=a.png title="a cat">', "a cat", "img title"),
        ('<img src=a.png alt="" title="a cat">', "a cat", "img title"),
        ("<figure><a href=b><img src=a.png></a><figcaption>a <b>black</b> cat</figcaption></figure>", "a black cat", "figcaption"),
        ('<figure><img src=a.png alt="short"><figcaption>a cat</figcaption></figure>', "short", "img alt"),
        ("<figure><figcaption>a cat</figcaption><img src=a.png title=t></figure>", "a cat", "figcaption"),
    ],
)
def test_the_caption_of_an_image(snippet, caption, found_in):
    found = only(snippet)
    assert (found.caption, found.found_in) == (caption, found_in)


def test_images_in_scripts_and_comments_are_not_there():
    page = read(
        '<script>var x = "<img src=a.png alt=cat>";</script><!-- <img src=b.png alt=cat> --><template><img src=c.png alt=cat></template>'
    )
    assert not page.found
    assert not page.drops


def test_positions_count_the_images_of_the_page():
    page = read('<img src=a.png><img alt="no address"><img src=b.png alt="a cat"><img src=c.png alt="a dog">')
    assert [(found.position, found.caption) for found in page.found] == [(2, "a cat"), (3, "a dog")]
    assert [(drop.reason, drop.image_url) for drop in page.drops] == [("no_caption", "http://site.example/blog/a.png")]


@pytest.mark.parametrize(
    "address", ["data:image/png;base64,AAAA", "ftp://x/a.png", "blob:http://x/1", "javascript:x", "file:///etc/passwd"]
)
def test_other_schemes_are_drops(address):
    (drop,) = read(f'<img src="{address}" alt="a cat">').drops
    assert (drop.reason, drop.caption, drop.page_url) == ("bad_scheme", "a cat", PAGE)


@pytest.mark.parametrize(
    "meta",
    [
        '<meta name="robots" content="noai">',
        '<META NAME=Robots CONTENT="index, NoImageAI">',
        '<meta name="open-dalle" content="none">',
        '<meta name="robots" content="noindex,follow">',
    ],
)
def test_pages_that_opt_out_give_nothing(meta):
    page = read(f'<head>{meta}</head><img src=a.png alt="a cat"><a href="b.html">b</a>')
    assert [drop.reason for drop in page.drops] == ["meta_robots"]
    assert not page.found
    assert not page.links


def test_other_robots_meta_do_not_opt_out():
    assert only(
        '<meta name="robots" content="index, follow, max-image-preview:large"><meta name="otherbot" content="noai">'
        '<img src=a.png alt="a cat">'
    )


def test_what_is_no_page():
    (drop,) = read("%PDF", content_type="application/pdf").drops
    assert (drop.reason, drop.detail) == ("not_html", "Content-Type application/pdf")


def test_links_to_follow():
    page = read(
        '<a href="b.html#x">b</a> <a href="//other.example/">o</a> <a rel="nofollow noopener" href="c.html">c</a>'
        '<a href="mailto:x@y.z">m</a> <a>n</a>'
    )
    assert page.links == ["http://site.example/blog/b.html", "http://other.example/"]


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        ("né".encode(), None, "né"),
        ("né".encode("latin-1"), "latin-1", "né"),
        ("né".encode("cp1252"), None, "né"),
        ("né".encode(), "no-such-charset", "né"),
        ("<meta charset=iso-8859-7>ναι".encode("iso-8859-7"), None, "<meta charset=iso-8859-7>ναι"),
        ("né".encode(), "ascii", "nÃ©"),
        (b"\x81\xff", None, "\x81ÿ"),
    ],
)
def test_charsets(body, charset, text):
    assert decode_html(body, charset).text == text


@pytest.mark.parametrize("url", ["http://[::1", "http://a:b/", "//", "http://", "", "\x00", "http://ex ample/ a"])
def test_broken_addresses_are_no_error(url):
    assert isinstance(clean_url(url, PAGE), str)
    read(f'<base href="{url}"><img src="{url}" alt="a cat"><a href="{url}">x</a>')


def test_no_caption_is_an_empty_caption():
    assert clean_caption(None) == ""


@pytest.mark.parametrize("charset", ["undefined", "punycode", "idna", "unicode_escape", "utf-7", "hex", "no\0thing", "utf-16"])
def test_charsets_that_no_page_is_written_in(charset):
    """Python knows codecs that fail in ways of their own, or give halves of characters."""
    assert decode_html("caf\u00e9".encode(), charset).text.isprintable()
    assert decode_html(b'<meta charset="' + charset.encode() + b'">caf\xc3\xa9', None).text.encode()


LICENSED = '<img src="a.png" alt="a cat">'


@pytest.mark.parametrize(
    ("body", "licence"),
    [
        (LICENSED, None),
        (f'{LICENSED}<p>All of this is <a rel="license" href="https://cc.example/by/4.0/">CC BY</a></p>', "https://cc.example/by/4.0/"),
        (f'<head><link rel="license" href="/terms"></head>{LICENSED}', "http://site.example/terms"),
        (f'<figure>{LICENSED}<span itemprop="license">CC0</span></figure>', "CC0"),
        (
            f'<link rel="license" href="/page"><figure>{LICENSED}<a rel="nofollow license" href="/own">x</a></figure>',
            "http://site.example/own",
        ),
        (f'{LICENSED}<figure><img src="b.png"><a rel="license" href="/other">of the other picture</a></figure>', None),
        (f'{LICENSED}<a rel="licensed" href="/no">no licence</a>', None),
    ],
)
def test_the_licence_of_an_image(body, licence):
    """Its own figure's if there is one, else the page's; never that of another figure."""
    assert read(body).found[0].licence == licence


DATA = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


@pytest.mark.parametrize(
    ("image", "address"),
    [
        (f'src="{DATA}" srcset="{DATA}" data-srcset="s.png 400w, l.png 800w"', "/blog/l.png"),
        (f'src="{DATA}" data-src="a.png"', "/blog/a.png"),
        (f'src="{DATA}" data-src="{DATA}" data-hi-res-src="a.png"', "/blog/a.png"),
        ('src="/img/placeholder-300x200.png" data-image="a.png"', "/blog/a.png"),
        ('src="spacer.gif" data-original="a.png"', "/blog/a.png"),
        (f'src="{DATA}" data-of-some-program="a.png?w=9"', "/blog/a.png?w=9"),
        ('data-settings="{&quot;a&quot;: &quot;b.png&quot;}" data-page="/an-article" src="spacer.gif"', "/blog/spacer.gif"),
        ('src="a.png" data-full-size="b.png"', "/blog/a.png"),  # what is there already serves
        ('src="a.png" data-url="/an-article"', "/blog/a.png"),  # not a picture's address
        ('src="a.png" data-src="{{item.src}}"', "/blog/a.png"),
        ('src="spacer.gif"', "/blog/spacer.gif"),  # there is no other; filters judge the picture
        ('src="transparent-vase.png"', "/blog/transparent-vase.png"),
        ('src="s.png" srcset="a.png 1.5x,b.png 3x"', "/blog/b.png"),
        ('srcset="a.png 100w 50h, b.png 200w"', "/blog/b.png"),
        ('srcset=" , a.png ,b,c.png 2x"', "/blog/b,c.png"),
        ('srcset="a.png (x, y) 2x, b.png wide"', "/blog/a.png"),
        ('src="a.png?x=1&copy=2&amp;y=3"', "/blog/a.png?x=1&copy=2&y=3"),
        ('src="pix\\a.png"', "/blog/pix/a.png"),
    ],
)
def test_the_best_address_of_an_image(image, address):
    (found,) = read(f'<img {image} alt="a cat">').found
    assert found.image_url == "http://site.example" + address


def test_a_base_that_leads_nowhere():
    assert read('<base href="data:x"><img src="a.png" alt="a cat">').found[0].image_url == "http://site.example/blog/a.png"


def test_attributes_of_a_list_of_links_are_read_by_the_rules_of_html():
    assert unescape_attribute('a.png?x=1&amp;y="2"&copy=3&eacute;') == 'a.png?x=1&y="2"&copy=3é'


@pytest.mark.parametrize(
    ("head", "text", "encoding"),
    [
        ('<meta charset="Shift_JIS">', "①猫の写真", "cp932"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=gb2312">', "朱镕基", "gb18030"),
        ("<!-- <meta charset=utf-8> --><meta charset=euc-kr>", "똠양꿍", "cp949"),
        ("<meta name=x content='no charset'><meta charset=koi8-r>", "рыба", "koi8-r"),
        ("<script>var x = 1;</script>" * 200 + "<meta charset=windows-1251>", "рыба", "cp1251"),
        ('<?xml version="1.0" encoding="iso-8859-2"?>', "żółty", "iso-8859-2"),
        ("<meta charset=utf-16>", "рыба", "utf-8"),
    ],
)
def test_what_a_page_says_of_its_encoding(head, text, encoding):
    page = read_page(f'{head}<img src=a.png alt="{text}">'.encode(encoding), PAGE, headers("text/html"), "open-dalle")
    assert [(found.caption, found.found_in) for found in page.found] == [(text, "img alt")]


def test_a_page_that_says_nothing_of_its_encoding():
    body = '<img src=a.png alt="un café"><img src=b.png alt="a cat">'.encode("cp1252")
    page = read_page(body, PAGE, headers("text/html"), "open-dalle")
    assert [found.found_in for found in page.found] == ["img alt, read as windows-1252", "img alt"]
    page = read_page('<img src=a.png alt="猫の写真"><img src=b.png alt="a cat">'.encode("cp932"), PAGE, headers("text/html"), "open-dalle")
    assert ([found.caption for found in page.found], [drop.reason for drop in page.drops]) == (["a cat"], ["broken_text"])
