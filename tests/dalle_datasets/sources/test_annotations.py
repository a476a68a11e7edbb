"""COCO, CUB and Conceptual Captions as they are published: beside pictures, as tables of addresses, and as captions to stay away from."""

import gzip
import json

import pytest

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.filters.evaluation import captions_id, fold_caption, read_evaluation_captions
from dalle_datasets.sources.discover import discover
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS

COCO = {
    "info": {"description": "COCO 2014 Dataset", "year": 2014},
    "images": [
        {
            "license": 3, "file_name": "COCO_val2014_000000391895.jpg", "coco_url": "http://images.cocodataset.org/val2014/391895.jpg",
            "height": 360, "width": 640, "date_captured": "2013-11-14 11:18:45", "flickr_url": "http://farm9.example/a.jpg", "id": 391895,
        },
        {"license": 1, "file_name": "COCO_val2014_000000522418.jpg", "flickr_url": "http://farm4.example/b.jpg", "id": 522418},
        {"file_name": "COCO_val2014_000000000003.jpg", "coco_url": "http://images.cocodataset.org/3.jpg", "id": 3},
    ],
    "licenses": [{"url": "http://creativecommons.org/licenses/by-nc-nd/2.0/", "id": 3, "name": "Attribution"}],
    "annotations": [
        {"image_id": 391895, "id": 770337, "caption": "A man with a red helmet on a small moped."},
        {"image_id": 522418, "id": 681330, "caption": "A woman wearing a net cutting a cake. "},
        {"image_id": 391895, "id": 771687, "caption": "Man riding a motor bike on a dirt road."},
        {"image_id": 7, "id": 1, "caption": "of no picture"},
        {"image_id": 522418, "id": 2, "caption": None},
    ],
}  # fmt: skip


def collect(tmp_path, kind, *inputs):
    """(image address -> captions, licences of each, drops of the first stage)."""
    layout = Layout(tmp_path / "data")
    discover(SourceConfig(kind=kind, name="x", inputs=tuple(map(str, inputs))), DownloadConfig(), layout)
    rows = read_parquet(layout.source("x") / "candidates.parquet", CANDIDATES).to_pylist()
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["image_url"], set()).add(row["caption"])
    drops = read_parquet(layout.dropped("x") / "discover.parquet", DROPPED_PAIRS).to_pylist()
    return found, {row["image_url"]: row["licence"] for row in rows}, [(row["reason"], row["detail"]) for row in drops]


@pytest.mark.parametrize("name", ["captions_val2014.json", "captions_val2014.json.gz"])
def test_coco_is_a_table_of_addresses(tmp_path, name):
    data = json.dumps(COCO).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found, licences, drops = collect(tmp_path, "url_tables", tmp_path / name)
    assert found == {
        "http://images.cocodataset.org/val2014/391895.jpg": {
            "A man with a red helmet on a small moped.", "Man riding a motor bike on a dirt road.",
        },
        "http://farm4.example/b.jpg": {"A woman wearing a net cutting a cake."},
    }  # fmt: skip
    assert licences["http://images.cocodataset.org/val2014/391895.jpg"] == "http://creativecommons.org/licenses/by-nc-nd/2.0/"
    assert drops == [("no_caption", "row 2 has no caption")]


def test_coco_annotations_caption_the_pictures_of_a_folder(tmp_path):
    root = tmp_path / "coco"
    for name in ("val2014/COCO_val2014_000000391895.jpg", "val2014/COCO_val2014_000000522418.jpg", "val2014/other.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"picture")
    (root / "annotations").mkdir()
    (root / "annotations/captions_val2014.json").write_text(json.dumps(COCO))
    (root / "annotations/captions_train2014.json").write_text('{"images": [{"id": 1}')
    found, licences, drops = collect(tmp_path, "image_folders", root)
    first = "folder:coco/val2014/COCO_val2014_000000391895.jpg"
    assert found[first] == {"A man with a red helmet on a small moped.", "Man riding a motor bike on a dirt road."}
    assert licences[first] == "http://creativecommons.org/licenses/by-nc-nd/2.0/"
    assert len(found) == 2
    assert ("no_caption", "no caption file or entry") in drops
    (broken,) = [detail for reason, detail in drops if reason == "broken_document"]
    assert "captions_train2014.json: not valid JSON" in broken


def test_cub_has_ten_captions_a_picture_in_a_folder_of_their_own(tmp_path):
    root, bird = tmp_path / "cub", "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18"
    for name, content in {
        f"CUB_200_2011/images/{bird}.jpg": b"picture",
        f"cvpr2016_cub/text_c10/{bird}.txt": "\n".join(f"a bird with a wing of kind {i} ." for i in range(10)).encode(),
        "CUB_200_2011/README": b"about",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    found, _, drops = collect(tmp_path, "image_folders", root)
    assert {len(captions) for captions in found.values()} == {10}
    assert list(found) == [f"folder:cub/CUB_200_2011/images/{bird}.jpg"]
    assert drops == [], "the texts have their pictures"


def test_conceptual_captions_are_caption_and_address_without_a_header(tmp_path):
    rows = [("a very typical bus station", "http://lh6.example/a.jpg?x=1"), ("sierra looked stunning in this top", "http://b.example/b")]
    (tmp_path / "Train_GCC-training.tsv").write_text("".join(f"{caption}\t{url}\n" for caption, url in rows))
    found, _, drops = collect(tmp_path, "url_tables", tmp_path / "Train_GCC-training.tsv")
    assert found == {url: {caption} for caption, url in rows}
    assert drops == []


def test_captions_of_evaluation_sets_are_read_from_every_form(tmp_path):
    (tmp_path / "captions_val2014.json").write_text(json.dumps(COCO))
    (tmp_path / "text_c10/001.A").mkdir(parents=True)
    (tmp_path / "text_c10/001.A/a.txt").write_text("a bird .\na gray bird\n")
    (tmp_path / "mine.txt").write_text("An  OWL, asleep!\n")
    (tmp_path / "gcc.tsv").write_text("a bus\thttp://a.example/a.jpg\n")
    places = tuple(str(tmp_path / name) for name in ("captions_val2014.json", "text_c10", "mine.txt", "gcc.tsv"))
    found = read_evaluation_captions(places)
    assert {"a woman wearing a net cutting a cake", "a bird", "a gray bird", "an owl asleep", "a bus"} <= found
    assert fold_caption("A bird.") == "a bird"
    before = captions_id(places)
    (tmp_path / "text_c10/001.A/a.txt").write_text("a bird .\na grey bird.\n")
    assert captions_id(places) != before
    with pytest.raises(ValueError, match=r"filter.evaluation_captions has .*none.txt', which cannot be read"):
        read_evaluation_captions((str(tmp_path / "none.txt"),))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"holds no caption; give a captions_\*.json"):
        read_evaluation_captions((str(tmp_path / "empty.txt"),))
