"""Pairs leave with their bytes and come back as the same pairs; a killed export goes on; what was forgotten leaves it."""

import json
import random
import shutil
import tarfile
from io import BytesIO

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dalle_datasets.catalog import pair_exports
from dalle_datasets.catalog.connection import connect
from dalle_datasets.catalog.forget import Request, forget, plan_forgetting
from dalle_datasets.catalog.ingest import ingest_source
from dalle_datasets.catalog.pair_exports import export_pairs
from dalle_datasets.catalog.pair_shards import ABOUT, FORMS, SUFFIXES, open_shard, suffix_of
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.config import DownloadConfig, FilterConfig, ShardsConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.filters.filter_pairs import filter_pairs
from dalle_datasets.sources.discover import candidates_path, discover
from dalle_datasets.sources.local_files import LocalReader
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import CANDIDATES, PAIRS
from dalle_datasets.texts.captions import captions_in, clean_caption
from tests.parts import read_parts

LENIENT = FilterConfig(min_caption_words=1, min_caption_letters=0, languages=(), min_side=1, fit="pad", validation_share=0.3)


def collect(root, kind, inputs):
    """The pairs of files, through all three stages."""
    layout, source, download = Layout(root), SourceConfig(name="mine", kind=kind, inputs=inputs), DownloadConfig(runner="threads")
    discover(source, download, layout)
    download_images(source, download, layout)
    filter_pairs(source, download, LENIENT, ShardsConfig(rows_per_part=5, row_group_size=3), layout)
    return layout, {row["pair_id"]: row for row in read_parts(layout.pairs("mine"), PAIRS).to_pylist()}


def catalogue(layout):
    with connect(layout.catalog) as con:
        ingest_source(con, layout, "mine")
    publish(layout)


def names_in(path):
    with tarfile.open(path) as tar:
        return tar.getnames()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tar", ".parquet")}


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Eleven plain pictures, one with a palette and transparency, and a wide one that is padded."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = random.Random(0)
    for number in range(13):
        size = (24, 16) if number == 12 else (16, 16)
        image = Image.frombytes("RGB", size, draw.randbytes(3 * size[0] * size[1]))
        image = image.convert("P") if number == 11 else image
        form = ("PNG", "JPEG", "WEBP")[number % 3] if number < 11 else ("GIF", "PNG")[number - 11]
        image.save(folder / f"{number:02d}.{form.lower()}", form, **({"transparency": 3} if form == "GIF" else {}))
        caption = f"picture {number}: “{'x' * (number + 1)}”, 100 % & more"
        if number % 2:
            about = {"caption": caption, "license": "CC0-1.0", "page_url": f"https://example.org/{number}"}
            (folder / f"{number:02d}.json").write_text(json.dumps(about))
        else:
            (folder / f"{number:02d}.txt").write_text(caption)
    layout, pairs = collect(tmp_path_factory.mktemp("collected"), "image_folders", (str(folder),))
    catalogue(layout)
    assert len(pairs) == 13
    return layout, pairs


@pytest.mark.parametrize("form", FORMS)
def test_pairs_come_back_as_the_same_pairs(collected, form, tmp_path, traces):
    layout, pairs = collected
    made = export_pairs(layout, tmp_path / "out", form=form, rows_per_shard=4)
    assert (made.num_pairs, made.splits, made.licences) == (13, ["train", "validation"], [("", 7), ("CC0-1.0", 6)])
    num_validation = sum(pair["split"] == "validation" for pair in pairs.values())
    assert made.num_shards == -(-num_validation // 4) + -(-(13 - num_validation) // 4)
    kind = "webdatasets" if form == "webdataset" else "url_tables"
    _, again = collect(tmp_path / "root", kind, (str(tmp_path / "out" / f"*{SUFFIXES[form]}"),))
    remade = {key for key, pair in pairs.items() if pair["image_url"].endswith(("11.gif", "12.png"))}
    for key in pairs.keys() - remade:
        same = ("caption", "image", "split", "sha256", "pixel_sha256", "width", "licence", *(["page_url"] if pairs[key]["licence"] else []))
        assert {name: again[key][name] for name in same} == {name: pairs[key][name] for name in same}
    assert len(again) == 13
    # a picture that was made plain or padded has the id of bytes that are not here; that id goes along as a column or a name
    assert {pair["caption"]: pair["image"] for pair in again.values()} == {pair["caption"]: pair["image"] for pair in pairs.values()}
    if form == "webdataset":
        names = [name for path in (tmp_path / "out").glob("*.tar") for name in names_in(path)]
        assert {int(name.partition(".")[0]) for name in names} == set(pairs)
        assert not traces(tmp_path / "out", {str(layout.root.parent)}, set())
    else:
        tables = [pq.read_table(path) for path in (tmp_path / "out").glob("*.parquet")]
        assert {key for table in tables for key in table["pair_id"].to_pylist()} == set(pairs)
        assert sum(table["page_url"].null_count for table in tables) == 7  # no path of this machine goes along
    if form == "hf":
        features = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]["features"]
        assert features["image"] == {"_type": "Image"}
        assert features["clip_score"] == {"dtype": "float32", "_type": "Value"}
        assert list(features) == tables[0].column_names


@settings(max_examples=9)
@given(
    captions=st.lists(
        st.text(max_size=30).map(clean_caption).filter(lambda text: captions_in(text) == [text]), min_size=1, max_size=40, unique=True
    ),
    form=st.sampled_from(FORMS),
)
def test_any_caption_comes_back(captions, form, tmp_path_factory):
    folder, buffer = tmp_path_factory.mktemp("any"), BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    ordinary = {name: 0 if name in ("width", "height", "clip_score") else "x" for name in ABOUT}
    with open_shard(folder / f"train-00000{SUFFIXES[form]}", form) as shard:
        for number, caption in enumerate(captions):
            shard.append({**ordinary, "pair_id": number, "caption": caption, "image": buffer.getvalue() + bytes([number])})
    kind = "webdatasets" if form == "webdataset" else "url_tables"
    inputs = (str(folder / f"train-00000{SUFFIXES[form]}"),)
    discover(SourceConfig(name="mine", kind=kind, inputs=inputs), DownloadConfig(), Layout(folder / "root"))
    found = read_parquet(candidates_path(Layout(folder / "root"), "mine"), CANDIDATES).to_pylist()
    reader = LocalReader(inputs, 1_000)
    assert {(row["caption"], reader.fetch_image(row["image_url"])[-1]) for row in found} == {(text, i) for i, text in enumerate(captions)}


def test_a_killed_export_goes_on_behind_its_whole_shards(collected, tmp_path, monkeypatch):
    layout, _ = collected
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    first = export_pairs(layout, undisturbed, form="webdataset", rows_per_shard=2)

    def die(done, total, unit, **numbers):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_pairs(layout, disturbed, form="webdataset", rows_per_shard=2, report=die)
    whole = {path.name: path.stat().st_ino for path in disturbed.glob("*.tar")}
    assert len(whole) >= 2
    assert not (disturbed / "export.json").exists()
    assert not list(disturbed.glob("*.partial"))
    asked = []
    made = export_pairs(layout, disturbed, form="webdataset", rows_per_shard=2, report=lambda done, *_, **__: asked.append(done))
    assert (made.export_id, len(asked)) == (first.export_id, 13 - 2 * len(whole))
    assert contents(disturbed) == contents(undisturbed)
    assert whole.items() <= {path.name: path.stat().st_ino for path in disturbed.glob("*.tar")}.items()
    monkeypatch.setattr(pair_exports, "_rows", None)
    assert export_pairs(layout, disturbed, form="webdataset", rows_per_shard=2).was_there


def test_what_was_forgotten_and_other_settings_leave_nothing_behind(collected, tmp_path, traces):
    shutil.copytree(collected[0].root, tmp_path / "root")
    layout, folder = Layout(tmp_path / "root"), tmp_path / "out"
    export_pairs(layout, folder, form="parquet", rows_per_shard=2)
    gone = min(collected[1].values(), key=lambda pair: pair["pair_id"])
    assert traces(folder, {gone["caption"]}, {gone["image"]})
    forget(layout, plan_forgetting(layout, [Request("pair", str(gone["pair_id"]))]))
    made = export_pairs(layout, folder, form="webdataset", rows_per_shard=50)
    assert (made.num_pairs, len(contents(folder))) == (12, 2)
    assert not traces(folder, {gone["caption"]}, {gone["image"]})


def test_recipes_choose_by_their_parameters(catalogued_root, tmp_path):
    layout = catalogued_root.layout
    every = export_pairs(layout, tmp_path / "all", form="parquet")
    assert every.num_pairs == len(catalogued_root.pairs)
    scores = [row for path in (tmp_path / "all").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["clip_id"] for row in scores} == {"clip0"}
    median = sorted(row["clip_score"] for row in scores)[6]
    some = export_pairs(layout, tmp_path / "some", form="parquet", params={"min_clip_score": str(median)})
    assert some.num_pairs == sum(row["clip_score"] >= median for row in scores)
    small = export_pairs(layout, tmp_path / "small", form="hf", params={"split": "validation"}, max_shard_bytes=1)
    assert (small.splits, small.num_shards) == (["validation"], small.num_pairs)
    export_pairs(layout, tmp_path / "set", form="parquet", recipe="pairs_of_training_set")
    of_set = [key for path in (tmp_path / "set").glob("*.parquet") for key in pq.read_table(path)["pair_id"].to_pylist()]
    folder = next(layout.training_set("x").parent.iterdir())
    assert set(of_set) == {key for path in folder.glob("*.parquet") for key in pq.read_table(path)["pair_id"].to_pylist()}
    assert len(of_set) == len(set(of_set))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "captioned_pairs"}, r"captioned_pairs is a recipe of training sets; make one with `dalle run build_training_set"),
        ({"recipe": "all"}, r"there is no sql/pair_sets/all\.sql; known here: collected_pairs, pairs_of_training_set"),
        ({"params": {"licence": "CC0"}}, r"no parameter 'licence'; did you mean 'licences'\?"),
        ({"params": {"min_clip_score": "high"}}, r"min_clip_score='high' is not a number"),
        ({"params": {"clip_id": "clip9"}}, r"the published catalog has no clip_id 'clip9'; the most like it: clip0"),
        ({"params": {"licences": "MIT"}}, r"chooses no pairs with these parameters; loosen them"),
        ({"params": {"root": "/"}}, r"root of a recipe is the data root"),
        (
            {"recipe": "pairs_of_training_set", "params": {"training_set_id": "none"}},
            r"the published catalog has no training_set_id 'none'",
        ),
        ({"folder": "holiday"}, r"holiday holds other things \(letter\.txt\); give a new or empty folder"),
        ({"folder": "holiday/letter.txt"}, r"letter\.txt is a file; give a folder"),
        ({"folder": "data/out"}, r"data/out lies in the data root"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_what_cannot_be_exported_is_said_and_leaves_nothing(catalogued_root, tmp_path, changes, message):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "letter.txt").write_text("dear all")
    folder = tmp_path / changes.get("folder", "out")
    with pytest.raises(ValueError, match=message):
        export_pairs(catalogued_root.layout, folder, form="parquet", **{key: value for key, value in changes.items() if key != "folder"})
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "holiday").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_pictures_get_the_suffix_of_their_format(form):
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    assert Image.registered_extensions()[suffix_of(buffer.getvalue())] == form
