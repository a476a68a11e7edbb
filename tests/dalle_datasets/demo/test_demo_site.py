"""The demo's site is what it says it is."""

import socket
from collections import Counter

import pytest

from dalle_datasets.config import SourceConfig
from dalle_datasets.demo.demo_site import SITE_NAME, START_URL, build_site, publish_site
from dalle_datasets.web.guard import RequestLimits, fetch

SOURCE = SourceConfig(name="emoji", kind="emoji_scenes", num_scenes=64, scene_size=32)


def test_dirt_comes_on_top_of_the_clean_scenes():
    small, large = build_site(SOURCE), build_site(SourceConfig(name="emoji", kind="emoji_scenes", num_scenes=200))
    assert small.num_pairs == 64
    assert large.num_pairs == 200
    assert small.fates == large.fates
    assert small.fates[("filter", "duplicate_pair")] == 12
    stages = Counter({stage: sum(n for (s, _), n in small.fates.items() if s == stage) for stage in ("discover", "download", "filter")})
    assert stages["download"] + stages["filter"] + small.num_pairs == small.num_candidates


def test_it_is_served_under_its_name():
    with publish_site(SOURCE) as connect_to:
        limits = RequestLimits(user_agent="test/1", timeout_s=5, deadline_s=5, max_bytes=10**6, connect_to=connect_to)
        assert list(connect_to) == [SITE_NAME]
        start = fetch(START_URL, limits)
        assert b"gallery/1.html" in start.body
        assert fetch(START_URL + "32px/pictures/00020.png", limits).body.startswith(b"\x89PNG")
        assert b"Disallow: /members/" in fetch(START_URL + "robots.txt", limits).body


def test_a_taken_port_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        source = SourceConfig(name="emoji", kind="emoji_scenes", num_scenes=64, port=port)
        with (
            pytest.raises(ValueError, match=rf"source\.port={port}: 127\.0\.0\.1:{port} cannot be used .*choose another port, or 0"),
            publish_site(source),
        ):
            pass


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_out_of_range(port):
    with pytest.raises(ValueError, match=r"source\.port=.* must be in \[0, 65,535\]"):
        SourceConfig(port=port)
