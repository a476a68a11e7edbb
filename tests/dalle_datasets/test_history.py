"""What each collection brought is kept, once, to the row."""

import shutil
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.history import read_facts, record_collection
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, read_parquet
from dalle_datasets.store.schemas import COLLECTED

SOURCE = SourceConfig(name="emoji", kind="emoji_scenes", num_scenes=64, scene_size=32)
MOMENT = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)


def collect(layout, **limits):
    download = DownloadConfig(runner="threads", retry_wait_s=0.01, deadline_s=20.0)
    found = discover(SOURCE, download, layout)
    images = download_images(SOURCE, download, layout)
    return found, images, filter_pairs(SOURCE, download, FilterConfig(min_side=32, **limits), ShardsConfig(), layout)


def record(layout, was_skipped=False, moment=MOMENT):
    return record_collection(layout, "emoji", {"num_pages": 3}, moment, was_skipped)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("collected"))
    return layout, *collect(layout)


@pytest.fixture
def layout(template, tmp_path):
    """A source that was collected and not recorded; the test's own copy."""
    shutil.copytree(template[0].root, tmp_path / "data")
    return Layout(tmp_path / "data")


def test_every_candidate_has_one_outcome(layout, template):
    _, found, images, filtered = template
    path = record(layout)
    assert path == layout.collections("emoji") / "run-00001.parquet"
    rows = read_parquet(path, COLLECTED).to_pylist()
    stages = {stage: sum(row["stage"] == stage for row in rows) for stage in ("kept", "discover", "download", "filter")}
    assert stages == {
        "kept": filtered.num_pairs,
        "discover": sum(found.dropped.values()),
        "download": sum(images.dropped.values()),
        "filter": sum(filtered.dropped.values()),
    }
    assert all(row["url"] for row in rows), "a page that was left out stands for itself"
    assert [row["candidate_id"] for row in rows] == sorted(row["candidate_id"] for row in rows)


def test_a_rerun_that_had_nothing_to_do_records_nothing(layout):
    first = record(layout)
    before = first.read_bytes()
    assert record(layout, was_skipped=True) is None
    assert list_parts(layout.collections("emoji")) == [first]
    assert first.read_bytes() == before


def test_a_run_killed_before_its_record_is_made_up_for(layout):
    record(layout)
    collect(layout, min_caption_words=9)  # killed here: the filters have run, nothing is recorded
    path = record(layout, was_skipped=True)
    assert path.name == "run-00002.parquet"
    assert "caption_short" in read_parquet(path, COLLECTED)["reason"].to_pylist()
    assert record(layout, was_skipped=True) is None


def test_a_collection_that_found_nothing_new_is_recorded_too(layout):
    record(layout)
    second = record(layout, moment=MOMENT + timedelta(days=7))
    assert second.name == "run-00002.parquet"
    assert second.samefile(second.parent / "run-00001.parquet"), "a year of quiet nights takes no more room than one"
    assert read_facts(second)["finished_at"] == "2026-01-12T06:00:00"


def test_the_same_state_is_the_same_bytes_whenever_it_was_collected(layout, monkeypatch):
    first = record(layout)

    def no_links(self, target):
        raise OSError

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    second = record(layout, moment=MOMENT + timedelta(days=7))
    assert not second.samefile(first)
    assert second.read_bytes() == first.read_bytes()


def test_facts_say_when_in_utc_and_what_was_read(layout):
    facts = read_facts(record(layout, moment=MOMENT.astimezone(timezone(timedelta(hours=5)))))
    assert {name: facts[name] for name in ("source", "number", "finished_at", "num_pages")} == {
        "source": "emoji", "number": 1, "finished_at": "2026-01-05T06:00:00", "num_pages": 3,
    }  # fmt: skip


def test_facts_that_have_gone_are_named(layout):
    path = record(layout)
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"run-00001\.json: .* delete run-00001\.parquet, too, and collect again"):
        record(layout, was_skipped=True)
