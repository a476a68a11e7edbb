"""The block list knows addresses however they are written, names nobody, and is not believed when it is damaged."""

import json

import pytest

from dalle_datasets.sources.blocked import Block, BlockList, add_blocks, block, read_blocks
from dalle_datasets.store.layout import Layout


def test_an_address_is_known_by_either_scheme_and_a_host_by_what_is_below_it():
    blocks = BlockList([block("url", "https://Example.com/a b.png#top"), block("page", "http://x.org/1.html"), block("host", "Bücher.de")])
    assert blocks.has_address("http://example.com/a%20b.png")
    assert not blocks.has_address("http://example.com/a.png")
    assert blocks.has_address("http://elsewhere.net/1.png", "https://x.org/1.html")
    assert blocks.has_page("https://x.org/1.html")
    assert not blocks.has_page("https://x.org/2.html")
    assert blocks.has_page("https://www.xn--bcher-kva.de:8080/")
    assert blocks.has_address("http://img.xn--bcher-kva.de/1.png", "http://other.net/")
    assert not blocks.has_address("http://notxn--bcher-kva.de/1.png")
    assert not blocks.has_address("tar:a.tar/1.png", "a.tar")


def test_one_host_with_a_port_is_not_the_others():
    blocks = BlockList([block("host", "127.0.0.1:8001")])
    assert blocks.has_page("http://127.0.0.1:8001/")
    assert not blocks.has_page("http://127.0.0.1:8002/")
    with pytest.raises(ValueError, match="'/' is no host; name one as in example.com"):
        block("host", "/")


def test_entries_are_written_once_and_in_hashes(tmp_path):
    layout = Layout(tmp_path)
    assert len(read_blocks(layout)) == 0
    add_blocks(layout, [block("url", "http://example.com/a.png"), block("picture", "AB" * 32)])
    add_blocks(layout, [block("picture", "ab" * 32)])
    assert len(read_blocks(layout)) == 2
    assert read_blocks(layout).has_picture(None, "ab" * 32)
    assert "example" not in layout.blocked.read_text()
    assert "abab" not in layout.blocked.read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"kind": "url", "value": "', "line 2 is no entry of a block list"),
        (b"\xff\xfe", "line 2 is no entry of a block list"),
        (b"[]", "line 2 is no entry"),
        (b'{"kind": "uri", "value": "00"}', "kind 'uri' is none of url, page, host, picture, look"),
        (b'{"kind": "url", "value": "http://example.com/"}', "the value of a url has 64 hex digits"),
        (b'{"kind": "url", "value": 3}', "its values are no texts"),
    ],
)
def test_a_damaged_list_is_refused_with_its_line(tmp_path, line, said):
    layout = Layout(tmp_path)
    good = json.dumps(Block("look", "0" * 128)._asdict()).encode()
    layout.blocked.write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(ValueError, match=f"{said}.*mend the line or take it from a backup") as error:
        read_blocks(layout)
    assert str(layout.blocked) in str(error.value)
