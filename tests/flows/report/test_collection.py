"""The report of what was collected: what a data engineer asks on a Monday morning, safe whatever strangers' sites sent."""

import base64
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dalle_datasets.catalog import snapshot
from dalle_datasets.catalog.connection import connect
from dalle_datasets.store import schemas
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet, write_parquet
from flows.report import write_collection_report
from flows.report.collection import remarks, render_collection
from flows.report.collection_candidates import drops
from flows.report.collection_data import Cluster, Member, collect_collection
from flows.report.downloaded import find_images

SOURCE = "emoji_scenes"


@pytest.fixture(scope="module")
def data(_catalogued_template):
    return collect_collection(_catalogued_template.layout)


@pytest.fixture(scope="module")
def page(data):
    return render_collection(data)


def test_the_page_is_well_formed_and_loads_nothing(page, parse):
    parsed = parse(page)
    assert parsed.open == []
    assert {address.split(":")[0] for address in parsed.addresses if not address.startswith("#")} == {"data"}
    assert "<script" not in page
    assert re.findall(r"url\(|@import", page) == []
    assert [link.removeprefix("#") for link in parsed.links] == [
        "content", "changes", "funnel", "hosts", "left-out", "captions", "images", "duplicates", "ask",
    ]  # fmt: skip
    assert all(image["alt"] for image in parsed.images)


def test_it_counts_to_the_row(data, page):
    assert [(row["stage"], row["num_left"]) for row in data.funnel] == [
        ("found", 19), ("discover", 18), ("download", 15), ("decode", 15), ("filter", 12),
    ]  # fmt: skip
    assert "<h1>12 pairs out of 19 found on 1 host</h1>" in page
    assert "Last collected on 5 January 2026, 06:00 UTC." in page


def test_dropped_pictures_are_shown_with_meaning_and_remedy(data, page):
    assert [len([e for e in examples if e.image]) for reason, examples in data.drop_examples.items() if reason[0] == "filter"] == [1, 1, 1]
    assert all(example.image is None for reason, examples in data.drop_examples.items() if reason[0] != "filter" for example in examples)
    assert "too wide or too high; square crops would cut objects off" in page
    assert "Too many? raise filter.max_aspect_ratio." in page
    assert page.count("+1 since last time") == 3, "the filters were added after the first collection"


def test_a_cluster_stands_side_by_side_with_what_was_kept_first(data, page):
    [cluster, *_] = [cluster for cluster in data.clusters if cluster.num_kept]
    assert [member.outcome == "kept" for member in cluster.members] == [True, False]
    assert all(member.image for member in cluster.members)
    assert "2 candidates, 1 kept" in page


def test_what_changed_is_said(data, page):
    assert {(row["change"], row["outcome"]) for row in data.changes} == {
        ("new, left out", "caption_short"), ("new, left out", "duplicate_pair"), ("new, left out", "aspect_ratio"),
    }  # fmt: skip
    assert "found for the first time, and left out" in page


def test_a_first_collection_says_that_there_is_nothing_to_compare_with(data):
    page = render_collection(replace(data, changes=[], runs=data.runs[-1:]))
    assert "This is the first collection on record; the next one will say here what changed." in page
    same = render_collection(replace(data, changes=[]))
    assert "Nothing changed: the same candidates came to the same ends." in same


def change(kind, outcome, number):
    return {"source": SOURCE, "change": kind, "outcome": outcome, "was": "kept", "num_candidates": number, "example_urls": []}


def host(name, found, kept, reason):
    return {"host": name, "num_found": found, "num_kept": kept, "share_kept": kept / found, "top_reason": reason}


def test_what_stands_out_is_said_in_sentences(data):
    runs = [{"source": SOURCE, "share_kept": share} for share in (0.5, 0.9)]
    drop = {"reason": "caption_language", "num_dropped": 9}
    ill = replace(
        data,
        changes=[change("newly left out", "http_4xx", 2), change("gone", None, 1)],
        hosts=[host("bad.org", 40, 2, "robots_txt"), host("tiny.org", 3, 0, "dns"), host("good.org", 40, 39, "blank")],
        drops=[drop, {"reason": "worker_lost", "num_dropped": 1}],
        runs=runs,
    )
    assert list(remarks(ill)) == [
        "2 pairs of the last collection are left out now, most for http 4xx.",
        "1 pair of the last collection is not found any more.",
        "bad.org gave 2 pairs of 40 (5%), mostly lost to robots txt.",
        "caption language takes 47% of what was found; add to filter.languages, or leave it empty to keep all.",
        "Addresses lost with a downloading process: 1; collect again to ask for them.",
        "emoji_scenes keeps 50% of what was found; last time it was 90%.",
    ]
    assert list(remarks(replace(ill, changes=[], hosts=[], drops=[], runs=runs[:1]))) == []


def test_text_from_the_web_is_escaped(catalogued_root, parse):
    layout, nasty = catalogued_root.layout, '<script>alert("x")</script> & "quotes"'
    with connect(layout.catalog) as con:
        con.execute("update dropped_pairs set caption = $nasty, detail = $nasty, reason = $nasty, source = $nasty", {"nasty": nasty})
        con.execute("update dropped_pairs set image_url = 'http://' || $nasty", {"nasty": nasty})
        con.execute("update pairs set caption = $nasty", {"nasty": nasty})
    snapshot.publish(layout)
    page = render_collection(collect_collection(layout))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert parse(page).open == []


def hostile_png():
    """A picture with a message beside its pixels, and after its end."""
    buffer = BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue() + b"<script>alert(1)</script>"


@pytest.mark.parametrize("content", [b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", b"GIF89a", b"", hostile_png()])
def test_pictures_are_re_encoded_or_left_out(catalogued_root, content, parse):
    layout = catalogued_root.layout
    part = layout.images(SOURCE) / "part-00000.parquet"
    rows = [row | {"image": content} for row in read_parquet(part, schemas.IMAGES).to_pylist()]
    write_parquet(part, pa.Table.from_pylist(rows, schemas.IMAGES.with_metadata(None)), schemas.IMAGES)
    page = render_collection(collect_collection(layout))
    shown = [base64.b64decode(image["src"].partition("base64,")[2]) for image in parse(page).images]
    assert all(b"script" not in picture and b"onload" not in picture for picture in shown)
    assert bool(shown) == content.startswith(b"\x89PNG")


def test_images_are_found_in_any_part_and_only_where_there_are_bytes(catalogued_root):
    layout = catalogued_root.layout
    rows = read_parquet(layout.images(SOURCE) / "part-00000.parquet", schemas.IMAGES).to_pylist()
    moved, gone = {**rows[0], "candidate_id": "moved"}, {**rows[0], "candidate_id": "gone", "image": None}
    path = layout.images(SOURCE) / "part-00001.parquet"
    write_parquet(path, pa.Table.from_pylist([gone, moved], schemas.IMAGES.with_metadata(None)), schemas.IMAGES, row_group_size=1)
    assert find_images(layout, {SOURCE: {"moved", "gone", "nowhere"}, "no such source": {"x"}}) == {"moved": rows[0]["image"]}


def test_without_measures_there_are_no_histograms(catalogued_root):
    for part in catalogued_root.layout.measures(SOURCE).glob("*"):
        part.unlink()
    page = render_collection(collect_collection(catalogued_root.layout))
    assert 'id="funnel"' in page
    assert 'id="captions"' not in page
    assert 'id="duplicates"' not in page


def test_many_hosts_are_summed_up(data):
    hosts = [data.hosts[0] | {"host": f"h{i}.org", "num_found": 3} for i in range(22)]
    page = render_collection(replace(data, hosts=hosts))
    assert "h19.org" in page
    assert "h20.org" not in page
    assert "And 2 hosts with 6 candidates." in page


def test_large_clusters_say_how_many_are_not_shown(data):
    cluster = Cluster(24, 0, [Member(None, "a caption", "http://a.org/1.png", "placeholder")])
    assert "24 candidates, 0 kept; 23 more not shown" in render_collection(replace(data, clusters=[cluster]))


def test_codes_nobody_explains_are_shown_all_the_same(data):
    row = {"stage": "filter", "reason": "new_rule", "num_dropped": 1, "share": 0.001, "example": "seen"}
    shown = drops(replace(data, drops=[row], drop_examples={}))
    assert "<b>new rule</b>" in shown
    assert "under 1%" in shown


def test_the_file_is_written_whole_and_small(catalogued_root):
    path = write_collection_report(catalogued_root.layout)
    assert path == catalogued_root.layout.collection_report
    assert path.stat().st_size < 1_500_000
    first = path.read_bytes()
    assert write_collection_report(catalogued_root.layout).read_bytes() == first
    assert str(catalogued_root.layout.root).encode() not in first


def test_nothing_collected_or_published_yet(tmp_path):
    with pytest.raises(ValueError, match="no catalog has been published yet"):
        write_collection_report(Layout(tmp_path))
    snapshot.publish(Layout(tmp_path))
    with pytest.raises(ValueError, match=r"holds no candidates yet; run `dalle run collect_pairs` first"):
        write_collection_report(Layout(tmp_path))
