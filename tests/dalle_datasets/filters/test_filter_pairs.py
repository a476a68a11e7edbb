"""The filter stage over stored images."""

import hashlib
import io
import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.filters import filter_pairs as filtering
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.store.ids import candidate_id, pair_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, write_parquet, write_parts
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, IMAGES, PAIRS
from tests.parts import read_parts

SOURCE, DOWNLOAD, SHARDS = SourceConfig(), DownloadConfig(), ShardsConfig(rows_per_part=3, row_group_size=2)
LIMITS = FilterConfig(min_side=8)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def png(seed, width=16, height=16, **options):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def put_images(layout, *finds, failed=(), licences=MappingProxyType({})):
    """Images and candidates as the earlier stages would have left them."""
    rows = [
        {
            "candidate_id": candidate_id(f"http://x/{i}", caption),
            "image_url": f"http://x/{i}",
            "caption": caption,
            "page_url": "http://x/",
            "source": "web",
            "status": "ok",
            "error": None,
            "sha256": hashlib.sha256(image).hexdigest(),
            "image": image,
            "position": i,
            "found_in": "img alt",
            "licence": licences.get(caption),
            "document": "crawl.warc.gz",
        }
        for i, (caption, image) in enumerate(finds)
    ]
    rows += [
        {**row, "candidate_id": f"{i:016x}", "status": code, "sha256": None, "image": None}
        for i, code in enumerate(failed)
        for row in rows[:1]
    ]
    rows.sort(key=lambda row: row["candidate_id"])
    pick = lambda schema: pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)  # noqa: E731
    write_parts(layout.images("web"), pick(IMAGES), IMAGES, rows_per_part=4, row_group_size=4)
    write_parquet(candidates_path(layout, "web"), pick(CANDIDATES), CANDIDATES)
    for stage in ("discover", "download"):
        drops = [
            {**dict.fromkeys(DROPPED_PAIRS.names, "x"), "stage": stage, "reason": row["status"]}
            for row in rows
            if stage == "download" and row["status"] != "ok"
        ]
        write_parquet(layout.dropped("web") / f"{stage}.parquet", pa.Table.from_pylist(drops, schema=DROPPED_PAIRS), DROPPED_PAIRS)


def run(layout, limits=LIMITS, shards=SHARDS, **options):
    return filter_pairs(SOURCE, DOWNLOAD, limits, shards, layout, **options)


GOOD = [
    (f"a picture of {name} on a table", png(i)) for i, name in enumerate(["apples", "pears", "plums", "bread", "cheese", "butter", "honey"])
]


def test_good_finds_become_pairs(layout):
    put_images(layout, *GOOD)
    result = run(layout)
    assert (result.num_pairs, result.dropped) == (7, {})
    assert result.num_train + result.num_validation == 7
    assert len(list_parts(layout.pairs("web"))) == 3
    rows = {row["caption"]: row for row in read_parts(layout.pairs("web"), PAIRS).to_pylist()}
    for caption, image in GOOD:
        row = rows[caption]
        assert row["image"] == image
        assert row["pair_id"] == pair_id(hashlib.sha256(image).hexdigest(), caption)
        assert (row["width"], row["height"], row["language"], row["num_caption_words"], row["aspect_ratio"]) == (16, 16, "en", 7, 1.0)


def test_every_reason(layout):
    torn = png(99)[:-200]
    bad = {
        "caption_file_name": ("IMG_2041.jpg", png(50)),
        "caption_short": ("red car", png(51)),
        "caption_boilerplate": ("photographed on 3 May 2014", png(52)),
        "caption_language": ("ein roter Apfel liegt auf dem Tisch", png(53)),
        "not_an_image": ("a page instead of a picture", b"<html>"),
        "decode_error": ("a picture that is torn", torn),
        "too_small": ("a very small picture of bread", png(54, 7, 9)),
        "aspect_ratio": ("a long strip of colours", png(55, 17, 8)),
        "too_many_pixels": ("a picture of everything there is", png(56, 300, 200)),
    }
    put_images(layout, *GOOD, *bad.values(), failed=["http_4xx"])
    result = filter_pairs(SOURCE, replace(DOWNLOAD, max_pixels=10_000), LIMITS, SHARDS, layout)
    assert result.dropped == dict.fromkeys(sorted(bad), 1)
    assert result.num_pairs == 7
    assert result.dropped_by_stage == {"discover": {}, "download": {"http_4xx": 1}, "filter": result.dropped}
    drops = read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist()
    assert {drop["reason"]: drop["caption"] for drop in drops if drop["stage"] == "filter"} == {
        reason: caption for reason, (caption, _) in bad.items()
    }
    assert all(drop["detail"] for drop in drops)


def test_the_same_picture_again(layout):
    caption, image = GOOD[0]
    put_images(layout, (caption, image), (caption, png(0, compress_level=0)), ("some fruit on a wooden table", image))
    assert run(layout).num_pairs == 1
    result = run(layout, replace(LIMITS, captions_per_image=2))
    assert (result.num_pairs, result.dropped) == (2, {"duplicate_pair": 1})


def test_a_second_run_does_nothing(layout):
    put_images(layout, *GOOD)
    first = run(layout)
    again = run(layout)
    assert (again.skipped, again.pairs_id) == (True, first.pairs_id)


def test_new_thresholds_do_not_decode_again(layout, monkeypatch):
    put_images(layout, *GOOD, ("a wide picture of bread", png(70, 24, 9)))
    assert run(layout).dropped == {"aspect_ratio": 1}
    monkeypatch.setattr("dalle_datasets.filters.measure.decode_and_check", None)
    assert run(layout, replace(LIMITS, max_aspect_ratio=3)).num_pairs == 8


def test_the_id_of_a_set_of_pairs_does_not_depend_on_its_parts(layout):
    put_images(layout, *GOOD)
    first = run(layout, shards=ShardsConfig(rows_per_part=100))
    assert len(list_parts(layout.pairs("web"))) == 1
    assert run(layout).pairs_id == first.pairs_id
    assert len(list_parts(layout.pairs("web"))) == 3
    assert run(layout, replace(LIMITS, validation_share=0.9)).pairs_id != first.pairs_id
    put_images(layout, *GOOD[1:])
    assert run(layout).pairs_id != first.pairs_id


def test_a_killed_run_ends_with_the_same_pairs(layout, monkeypatch):
    put_images(layout, *GOOD)

    def killed(*_, **__):
        raise KeyboardInterrupt

    for where in ("_judge", "_write_drops", "write_pairs", "commit"):
        with monkeypatch.context() as patch:
            patch.setattr(filtering, where, killed)
            with pytest.raises(KeyboardInterrupt):
                run(layout)
    result = run(layout)
    assert (result.num_pairs, result.skipped) == (7, False)
    assert not list(layout.root.rglob("*.partial"))


def test_candidates_that_are_gone_give_no_pairs(layout):
    put_images(layout, *GOOD)
    table = pa.Table.from_pylist(read_parts(layout.source("web"), CANDIDATES).to_pylist()[:3], schema=CANDIDATES)
    write_parquet(candidates_path(layout, "web"), table, CANDIDATES)
    assert run(layout).num_pairs == 3


def test_no_pairs_left(layout):
    put_images(layout, ("red car", png(1)), ("blue car", png(2)), ("IMG_2041.jpg", png(3)), failed=["http_4xx"])
    with pytest.raises(
        ValueError,
        match=r"source 'web': no pairs left after filtering 4 candidates \(caption_short 2, http_4xx 1, caption_file_name 1\); "
        r"most are caption_short: too few words or letters; lower filter\.min_caption_words or filter\.min_caption_letters",
    ):
        run(layout)
    assert len(read_parts(layout.dropped("web"), DROPPED_PAIRS)) == 4  # to look at


def test_nothing_was_downloaded(layout):
    put_images(layout, GOOD[0], failed=["http_5xx", "http_5xx"])
    write_parquet(candidates_path(layout, "web"), pa.Table.from_pylist([], schema=CANDIDATES), CANDIDATES)
    with pytest.raises(
        ValueError, match=r"no pairs left after filtering 2 candidates \(http_5xx 2\); most are http_5xx: the server failed; see dropped/"
    ):
        run(layout)


def test_no_images_yet(layout):
    with pytest.raises(ValueError, match=r"holds no images; run download_images for source 'web' first"):
        run(layout)


def test_progress_is_reported(layout):
    put_images(layout, *GOOD)
    reports = []
    run(layout, report=lambda done, total, unit, **_: reports.append((done, total, unit)))
    assert reports == [(4, 7, "candidates"), (7, 7, "candidates"), (4, 7, "pairs"), (7, 7, "pairs")]


def test_the_looks_of_pictures(layout, tmp_path):
    """Near duplicates and pictures of an evaluation set, in other files and sizes."""
    grids = np.random.default_rng(3).integers(0, 256, (2, 5, 5, 3)).astype(np.uint8)
    first, second = (Image.fromarray(grid).resize((96, 96), Image.Resampling.BICUBIC) for grid in grids)

    def packed(image, kind, **options):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    put_images(
        layout,
        ("a cloth of many colours", packed(first, "PNG")),
        ("a colourful piece of cloth", packed(first.resize((48, 48), Image.Resampling.LANCZOS), "PNG")),
        ("the same cloth once more", packed(first, "JPEG", quality=60)),
        ("another cloth of many colours", packed(second, "PNG")),
        ("a plain piece of cloth", packed(Image.new("RGB", (64, 64), "red"), "PNG")),
    )
    assert run(layout).dropped == {"blank": 1}
    result = run(layout, replace(LIMITS, near_duplicates=True))
    assert result.dropped == {"blank": 1, "near_duplicate": 2}
    kept = {row["caption"] for row in read_parts(layout.pairs("web"), PAIRS).to_pylist()}
    assert "another cloth of many colours" in kept
    assert "a colourful piece of cloth" not in kept  # the larger one stays

    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "cloth.jpg").write_bytes(packed(second, "JPEG", quality=50))
    result = run(layout, replace(LIMITS, evaluation_images=(str(evaluation),)))
    assert result.dropped == {"blank": 1, "evaluation_overlap": 1}
    drops = read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist()
    (overlap,) = [drop for drop in drops if drop["reason"] == "evaluation_overlap"]
    assert (overlap["caption"], overlap["detail"]) == ("another cloth of many colours", "looks like cloth.jpg")


def test_pairs_with_a_caption_of_an_evaluation_set_are_dropped(layout, tmp_path):
    put_images(layout, *GOOD)
    before = run(layout)
    asked = tmp_path / "asked.txt"
    asked.write_text(GOOD[1][0].upper() + " !\n")
    limits = replace(LIMITS, evaluation_captions=(str(asked),))
    result = run(layout, limits)
    assert result.num_pairs == before.num_pairs - 1
    (found,) = [drop for drop in read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist() if drop["reason"] == "evaluation_caption"]
    assert (found["caption"], found["detail"]) == (GOOD[1][0], "an evaluation set has the same caption")
    asked.write_text("nothing of the kind, whatever it says\n")
    assert run(layout, limits).num_pairs == before.num_pairs, "the file is looked at again"


def test_an_evaluation_set_that_changed_is_looked_at_again(layout, tmp_path):
    """The path in the settings is the same; what lies there is not."""
    put_images(layout, *GOOD)
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "a.png").write_bytes(png(500))
    limits = replace(LIMITS, evaluation_images=(str(evaluation),))
    assert run(layout, limits).dropped == {}
    assert run(layout, limits).skipped
    (evaluation / "b.png").write_bytes(GOOD[0][1])
    assert run(layout, limits).dropped == {"evaluation_overlap": 1}
    (evaluation / "b.png").write_bytes(GOOD[1][1])  # as many files under the same names
    os.utime(evaluation / "b.png", (1, 1))
    result = run(layout, limits)
    assert (result.skipped, result.dropped) == (False, {"evaluation_overlap": 1})
    assert run(layout, limits).skipped


def test_an_evaluation_set_without_pictures(layout, tmp_path):
    put_images(layout, *GOOD)
    with pytest.raises(
        ValueError, match=r"filter\.evaluation_images has '.*nowhere', which holds no picture; give a folder of images or a Parquet file"
    ):
        run(layout, replace(LIMITS, evaluation_images=(str(tmp_path / "nowhere"),)))


def test_an_evaluation_set_in_parquet(layout):
    """The pairs of another source, for example."""
    put_images(layout, *GOOD)
    run(layout)
    held_out = layout.root / "held_out.parquet"
    write_parquet(held_out, read_parts(layout.pairs("web"), PAIRS).slice(0, 2), PAIRS)
    assert run(layout, replace(LIMITS, evaluation_images=(str(held_out),))).dropped == {"evaluation_overlap": 2}


def test_placeholders_and_captions_of_everything(layout):
    gone = png(1000)
    put_images(
        layout,
        *GOOD,
        *((f"a picture of thing number {i} here", gone) for i in range(4)),
        *(("my holiday picture again", png(60 + i)) for i in range(3)),
    )
    assert run(layout).dropped == {"duplicate_image": 3}
    assert run(layout, replace(LIMITS, max_captions_per_image=3)).dropped == {"placeholder": 4}
    assert run(layout, replace(LIMITS, max_images_per_caption=2)).dropped == {"caption_repeated": 3, "duplicate_image": 3}


def test_markup_and_personal_data(layout):
    put_images(
        layout,
        *GOOD,
        ("visit www.example.com for more pictures", png(80)),
        ("a <b>very</b> red apple", png(81)),
        ("write to jane.doe@example.org about it", png(82)),
    )
    assert run(layout).dropped == {"caption_markup": 2 + 1}  # the host of an e-mail address is an address too
    assert run(layout, replace(LIMITS, drop_markup=False, drop_personal=True)).dropped == {"caption_personal": 1}
    assert run(layout, replace(LIMITS, drop_markup=False)).dropped == {}


def test_licence_and_document_go_along(layout):
    put_images(layout, *GOOD, licences={GOOD[0][0]: "CC BY 4.0"})
    first = run(layout)
    rows = {row["caption"]: row for row in read_parts(layout.pairs("web"), PAIRS).to_pylist()}
    assert [rows[caption]["licence"] for caption, _ in GOOD[:2]] == ["CC BY 4.0", None]
    assert {row["document"] for row in rows.values()} == {"crawl.warc.gz"}
    put_images(layout, *GOOD, licences={GOOD[0][0]: "CC0"})
    again = run(layout)
    assert (again.skipped, again.pairs_id) == (False, first.pairs_id), "the same pairs, told anew what is known of them"
    assert {row["licence"] for row in read_parts(layout.pairs("web"), PAIRS).to_pylist()} == {"CC0", None}


def test_several_processes_measure_the_same(layout):
    put_images(layout, *GOOD, ("a wide picture of bread", png(70, 24, 9)))
    alone = run(layout)
    measured = [part.read_bytes() for part in list_parts(layout.measures("web"))]
    assert run(layout, replace(LIMITS, num_processes=2)).skipped
    shutil.rmtree(layout.pairs("web"))
    shutil.rmtree(layout.measures("web"))
    together = run(layout, replace(LIMITS, num_processes=2))
    assert replace(together, skipped=alone.skipped) == alone
    assert [part.read_bytes() for part in list_parts(layout.measures("web"))] == measured


def test_a_process_that_is_ended_is_an_error_with_a_remedy(layout, monkeypatch):
    put_images(layout, *GOOD)

    def broken(*_, **__):
        raise BrokenProcessPool

    monkeypatch.setattr(filtering.ProcessPoolExecutor, "map", broken)
    with pytest.raises(RuntimeError, match=r"a process that measured pictures of web was ended, .*; lower filter\.num_processes or"):
        run(layout, replace(LIMITS, num_processes=2))


def test_a_picture_is_padded_instead_of_cropped_and_becomes_another_pair(layout):
    wide, square = png(1, width=20, height=10), png(2)
    put_images(layout, ("a long train in the hills", wide), ("a small house in the hills", square))
    cropped = filter_pairs(SOURCE, DOWNLOAD, LIMITS, SHARDS, layout)
    before = {row["caption"]: row for row in read_parts(layout.pairs("web"), PAIRS).to_pylist()}
    padded = filter_pairs(SOURCE, DOWNLOAD, replace(LIMITS, fit="pad"), SHARDS, layout)
    after = {row["caption"]: row for row in read_parts(layout.pairs("web"), PAIRS).to_pylist()}
    assert padded.pairs_id != cropped.pairs_id
    assert after["a small house in the hills"] == before["a small house in the hills"]
    train = after["a long train in the hills"]
    assert (train["width"], train["height"], train["aspect_ratio"]) == (20, 20, 1.0)
    assert train["pair_id"] != before["a long train in the hills"]["pair_id"]
    pixels = np.asarray(Image.open(io.BytesIO(train["image"])))
    assert np.array_equal(pixels[5:15], np.asarray(Image.open(io.BytesIO(wide))))
    assert (pixels[:5] == 255).all()
    assert (pixels[15:] == 255).all()
    assert filter_pairs(SOURCE, DOWNLOAD, LIMITS, SHARDS, layout).pairs_id == cropped.pairs_id
