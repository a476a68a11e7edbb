"""Which settings decide a result is said at the field, once, and read by every stage."""

from dataclasses import replace

from dalle_datasets.config import DownloadConfig, FilterConfig, SourceConfig
from dalle_datasets.store.identity import deciding, fingerprint, identity


def test_inputs_are_told_apart():
    assert fingerprint("discover", SourceConfig(max_pages=2)) != fingerprint("discover", SourceConfig(max_pages=3))
    assert fingerprint(1, ["a"]) == fingerprint(1, ["a"])


def test_how_the_work_is_done_does_not_count():
    for section, other in (
        (SourceConfig(), SourceConfig(port=8_080)),
        (DownloadConfig(), DownloadConfig(num_threads=3, runner="threads", distributor="ray", ray_address="auto")),
        (FilterConfig(), FilterConfig(num_processes=4)),
    ):
        assert fingerprint(section) == fingerprint(other)
        assert deciding(section) == deciding(other)
        assert deciding(section).keys() < identity(section).keys()  # old ids were made with them at their defaults


def test_a_setting_that_came_later_counts_once_it_is_used():
    source = SourceConfig()
    assert "caption_lines" not in identity(source)
    assert fingerprint(replace(source, caption_lines="joined")) != fingerprint(source)


def test_what_decides_a_download():
    assert list(deciding(DownloadConfig())) == ["timeout_s", "deadline_s", "max_bytes", "max_pixels", "allow_addresses", "retries"]
