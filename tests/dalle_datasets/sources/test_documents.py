"""Documents on disk and on the web, all the way to stored images."""

import gzip
import hashlib
import io
import json
import resource
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dalle_datasets.config import DownloadConfig, SourceConfig
from dalle_datasets.download.download_images import download_images
from dalle_datasets.sources.discover import candidates_path, discover
from dalle_datasets.sources.local_files import LocalReader
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import CANDIDATES, DROPPED_PAIRS, IMAGES
from dalle_datasets.web.failures import FetchError
from tests.parts import read_parts

LOCAL = DownloadConfig(runner="threads", allow_addresses=("127.0.0.1",), requests_per_s_per_host=0)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "data")


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()


def captions(layout):
    return sorted(read_parquet(candidates_path(layout, "web"), CANDIDATES)["caption"].to_pylist())


def test_new_documents_are_added_and_old_ones_not_read_again(tmp_path, layout):
    (tmp_path / "1.csv").write_text("url,caption\nhttp://a.example/1.png,first one\n")
    source = SourceConfig(kind="url_tables", inputs=(str(tmp_path / "*.csv"),))
    assert discover(source, LOCAL, layout).num_new == 1
    (tmp_path / "2.csv").write_text("url,caption\nhttp://a.example/1.png,first one\nhttp://a.example/2.png,second one\n")
    later = discover(source, LOCAL, layout)  # a listing is enough to notice
    assert (later.num_new, later.num_unchanged, later.num_pages, later.num_candidates) == (1, 1, 2, 2)
    assert captions(layout) == ["first one", "second one"]


def test_a_full_disk_is_not_the_fault_of_a_document(tmp_path, layout):
    """A limit on the size of files stands in for it: keeping what was found fails in the middle of a document."""
    rows = "".join(f"http://a.example/{hashlib.sha256(b'%d' % i).hexdigest()}.png,caption {i}\n" for i in range(10_000))
    (tmp_path / "1.csv").write_text(f"url,caption\n{rows}")
    source = SourceConfig(kind="url_tables", inputs=(str(tmp_path / "1.csv"),))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"could not write .*\.parquet: File too large; free some space or choose another data root"):
            discover(source, LOCAL, layout)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert discover(source, LOCAL, layout).num_candidates == 10_000


def test_documents_may_be_fetched(web, layout):
    web.put("/t.csv.gz", gzip.compress(b"url,caption\nhttp://a.example/1.png,first one\n"), "application/gzip")
    web.put("/torn.parquet", b"PAR1 not really", "application/octet-stream")
    source = SourceConfig(kind="url_tables", inputs=(web.url("/t.csv.gz"), web.url("/gone.csv"), web.url("/torn.parquet")))
    result = discover(source, LOCAL, layout)
    assert (result.num_candidates, result.dropped) == (1, {"broken_document": 1, "http_4xx": 1})
    drops = {drop["reason"]: drop["page_url"] for drop in read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist()}
    assert drops == {"broken_document": web.url("/torn.parquet"), "http_4xx": web.url("/gone.csv")}


def test_documents_of_the_web_are_fetched_again_only_if_they_changed(web, layout):
    table = {
        "/etag.csv": b"url,caption\nhttp://a.example/1.png,first one\n",
        "/date.csv": b"url,caption\nhttp://a.example/2.png,second one\n",
    }
    web.put("/plain.csv", b"url,caption\nhttp://a.example/3.png,third one\n", "text/csv")

    def answer(handler):
        validator, condition = ("ETag", "If-None-Match") if handler.path == "/etag.csv" else ("Last-Modified", "If-Modified-Since")
        value = f'"{len(table[handler.path])}"' if validator == "ETag" else "Wed, 21 Oct 2015 07:28:00 GMT"
        same = handler.headers.get(condition) == value
        handler.send_response(304 if same else 200)
        handler.send_header(validator, value)
        handler.end_headers()
        handler.wfile.write(b"" if same else table[handler.path])

    web.answers.update(dict.fromkeys(table, answer))
    inputs = tuple(web.url(path) for path in ("/etag.csv", "/date.csv", "/plain.csv"))
    source = SourceConfig(kind="url_tables", inputs=inputs)
    assert discover(source, LOCAL, layout).num_new == 3
    same = discover(source, LOCAL, layout, refresh=True)
    assert (same.num_new, same.num_unchanged, same.num_candidates) == (0, 3, 3)
    assert [web.count(path) for path in ("/etag.csv", "/date.csv", "/plain.csv")] == [2, 2, 1]
    table["/etag.csv"] += b"http://a.example/4.png,fourth one\n"
    later = discover(source, LOCAL, layout, refresh=True)
    assert (later.num_new, later.num_unchanged, later.num_candidates) == (1, 2, 4)


def test_a_pattern_that_matches_nothing(tmp_path, layout):
    source = SourceConfig(kind="web_archives", inputs=(str(tmp_path / "*.warc.gz"),))
    with pytest.raises(ValueError, match=r"source\.inputs has '.*\*\.warc\.gz', which matches no file; check the path"):
        discover(source, LOCAL, layout)


def test_no_inputs(layout):
    with pytest.raises(
        ValueError, match=r"source\.inputs is empty, but source\.kind=url_tables reads files; give at least one path or pattern"
    ):
        discover(SourceConfig(kind="url_tables"), LOCAL, layout)


def test_inputs_of_a_kind_that_reads_none():
    with pytest.raises(ValueError, match=r"source\.inputs is set, but source\.kind=web_pages reads none; choose another kind"):
        SourceConfig(inputs=("a.csv",))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / "a.png").write_bytes(png("red"))
    (root / "a.txt").write_text("a red square\n")
    (root / "sub" / "b.PNG").write_bytes(png("blue"))
    (root / "sub" / "b.json").write_text(json.dumps({"caption": "a blue square"}))
    (root / "c.png").write_bytes(png("green"))
    (root / "metadata.csv").write_text("file_name,text\nc.png,a green square\n")
    (root / "d.png").write_bytes(png("white"))
    return root


def test_a_folder_of_captioned_images(folder, layout):
    source = SourceConfig(kind="image_folders", inputs=(str(folder),))
    result = discover(source, LOCAL, layout)
    assert (result.num_candidates, result.dropped) == (3, {"no_caption": 1})
    images = download_images(source, LOCAL, layout)
    assert images.num_images == 3
    rows = {row["caption"]: row for row in read_parts(layout.images("web"), IMAGES).to_pylist()}
    assert rows["a blue square"]["image"] == png("blue")
    assert rows["a blue square"]["image_url"] == "folder:photos/sub/b.PNG"
    assert set(rows) == {"a red square", "a blue square", "a green square"}


def test_nothing_outside_of_a_folder_is_read(folder, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    reader = LocalReader((str(folder),), 1_000)
    for address in ("folder:photos/link.png", "folder:photos/../secret.png", "folder:other/a.png", "folder:photos/none.png"):
        with pytest.raises(FetchError, match="missing_file"):
            reader.fetch_image(address)
    with pytest.raises(FetchError, match="too_many_bytes"):
        LocalReader((str(folder),), 10).fetch_image("folder:photos/a.png")


def test_captions_from_outside_of_a_folder_are_not_read(folder, tmp_path, layout):
    (tmp_path / "secret").write_text("root:x:0:0:a secret")
    (folder / "d.txt").symlink_to(tmp_path / "secret")
    (folder / "metadata.jsonl").symlink_to(tmp_path / "secret")
    source = SourceConfig(kind="image_folders", inputs=(str(folder),))
    assert discover(source, LOCAL, layout).dropped == {"no_caption": 1, "missing_file": 1}
    assert not any("secret" in caption for caption in captions(layout))


def test_broken_lines_of_metadata_cost_only_their_images(folder, layout):
    (folder / "metadata.csv").unlink()
    lines = ["{broken", "[" * 100_000, '["no object"]', json.dumps({"file_name": "c.png", "text": "a green square"})]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    result = discover(SourceConfig(kind="image_folders", inputs=(str(folder),)), LOCAL, layout)
    assert result.dropped == {"no_caption": 1, "broken_line": 3}
    assert captions(layout) == ["a blue square", "a green square", "a red square"]


def test_a_name_that_is_not_utf8(folder, layout):
    (folder / "e\udcff.png").write_bytes(png("black"))
    (folder / "e\udcff.txt").write_text("a black square")
    result = discover(SourceConfig(kind="image_folders", inputs=(str(folder),)), LOCAL, layout)
    assert result.dropped == {"bad_url": 1, "no_caption": 1}


def test_a_compressed_tar_is_refused(tmp_path, layout):
    """Images are read straight from their place in the file."""
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("0.png"))
    with pytest.raises(ValueError, match=r"broken_document 1; .*no uncompressed tar, or damaged after 0 members"):
        discover(SourceConfig(kind="webdatasets", inputs=(str(path),)), LOCAL, layout)


def test_a_picture_that_is_cut_off_in_its_tar(tmp_path):
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("0.png")
        info.size = 2_000
        tar.addfile(info, io.BytesIO(bytes(2_000)))
    path.write_bytes(path.read_bytes()[:1_000])
    with pytest.raises(FetchError, match=r"incomplete_body: 488 of 2000 bytes: shard\.tar is cut off"):
        LocalReader((str(path),), 10_000).fetch_image("tar:shard.tar/0.png")


def test_two_folders_of_one_name(folder, tmp_path):
    other = tmp_path / "elsewhere" / "photos"
    other.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"source\.inputs: .* and .* have the same name; give one of them another"):
        LocalReader((str(folder), str(other)), 10)


def test_a_webdataset(tmp_path, layout):
    path = tmp_path / "shard-000.tar"
    with tarfile.open(path, "w") as tar:
        members = {
            "0001.png": png("red"), "0001.txt": b"a red square",
            "0001.json": b'{"caption": "not this", "License": "CC0-1.0", "page_url": "https://example.org/p"}',
            "0002.json": b'{"text": "a blue square", "license": ' + b"[" * 900 + b"]" * 900 + b"}",
            "0002.png": png("blue"), "x/0003.png": png("green"),
        }  # fmt: skip
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = SourceConfig(kind="webdatasets", inputs=(str(path),))
    assert discover(source, LOCAL, layout).dropped == {"no_caption": 1}
    assert download_images(source, LOCAL, layout).num_images == 2
    rows = {row["caption"]: row for row in read_parts(layout.images("web"), IMAGES).to_pylist()}
    assert {caption: row["image"] for caption, row in rows.items()} == {"a red square": png("red"), "a blue square": png("blue")}
    assert rows["a red square"]["image_url"] == "tar:shard-000.tar/0001.png"
    found = {row["caption"]: row for row in read_parquet(candidates_path(layout, "web"), CANDIDATES).to_pylist()}
    assert (found["a red square"]["licence"], found["a red square"]["page_url"]) == ("CC0-1.0", "https://example.org/p")
    assert (found["a blue square"]["licence"], found["a blue square"]["page_url"]) == (None, str(path))


def make_folder(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def outcome(root, layout, **settings):
    """(caption by address, (reason, address) of the drops) of a folder."""
    result = discover(SourceConfig(kind="image_folders", inputs=(str(root),), **settings), LOCAL, layout)
    rows = read_parquet(candidates_path(layout, "web"), CANDIDATES).to_pylist()
    drops = read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist()
    assert result.num_candidates == len(rows)
    found = {}
    for row in rows:
        found.setdefault(row["image_url"].partition("/")[2], []).append(row["caption"])
    return found, {drop["image_url"].partition("/")[2]: drop["reason"] for drop in drops}


def test_the_habits_of_folders(tmp_path, layout):
    """Any letter case, more suffixes, several dots, and whatever is not read has a reason."""
    files = {
        "a.JFIF": b"x", "a.TXT": "one", "b.jpe": b"x", "b.caption": "two", "c.v2.png": b"x", "c.v2.txt": "three", "c.png": b"x",
        "c.txt": "four", "d.png": b"x", "d.png.txt": "five", "e.heic": b"x", "e.txt": "six", "f.txt": "no picture",
        "README.txt": "about", "g.png": b"x",
        "g.txt": "caf\u00e9".encode("utf-16"), "h.png": b"x", "h.json": '{"Captions": ["seven", "eight"]}', "i.tga": b"x",
        "notes.npy": b"x",
    }  # fmt: skip
    found, drops = outcome(make_folder(tmp_path / "habits", files), layout)
    assert {name: captions for name, (captions) in found.items() if name != "h.png"} == {
        "a.JFIF": ["one"], "b.jpe": ["two"], "c.v2.png": ["three"], "c.png": ["four"], "d.png": ["five"], "g.png": ["café"],
    }  # fmt: skip
    assert sorted(found["h.png"]) == ["eight", "seven"]
    assert drops == {"e.heic": "unread_format", "i.tga": "unread_format", "f": "no_picture"}


def test_names_in_another_spelling(tmp_path, layout):
    """Macs take accents apart, spreadsheets and cameras change the letter case; what is exactly so called comes first."""
    files = {"B.JPG": b"x", "b2.png": b"x", "C.png": b"x", "é.png": b"x", "ö.png": b"x", "D.TXT": "a dog", "d.png": b"x", "Z.png": b"x"}
    files |= {"e\u0301.txt": "a cat", "c.png": b"x", "c.txt": "small", "z.png": b"x"}
    files["metadata.csv"] = "file_name,text\nb.jpg,a car\no\u0308.png,an owl\nz.png,zebra\n"
    found, drops = outcome(make_folder(tmp_path / "f", files), layout)
    assert {name: caption for name, (caption,) in found.items()} == {
        "B.JPG": "a car", "c.png": "small", "d.png": "a dog", "z.png": "zebra", "é.png": "a cat", "ö.png": "an owl",
    }  # fmt: skip
    assert drops == {"C.png": "no_caption", "Z.png": "no_caption", "b2.png": "no_caption"}


def test_every_line_of_a_caption_file_is_a_caption(tmp_path, layout):
    root = make_folder(tmp_path / "lines", {"a.png": b"x", "a.txt": "a red cat\n\na cat that is red\r\n"})
    assert sorted(outcome(root, layout)[0]["a.png"]) == ["a cat that is red", "a red cat"]
    assert outcome(root, layout, caption_lines="joined")[0] == {"a.png": ["a red cat a cat that is red"]}


def test_folders_of_hugging_face(tmp_path, layout):
    """A folder for each split with its own metadata, names with folders and either slash, saved by a spreadsheet, or as Parquet."""
    files = {
        "train/metadata.csv": "\ufeffFile_Name;Text\r\n1.png;a goose\r\npics\\2.png;a duck\r\n", "train/1.png": b"x",
        "train/pics/2.png": b"x",
        "test/metadata.jsonl": '{"file_name": "1.png", "captions": ["an owl", "a bird"]}\n', "test/1.png": b"x", "val/1.png": b"x",
        "metadata.csv": "file_name,text\nval/1.png,a hen\nval/gone.png,a cock\n",
    }  # fmt: skip
    root = make_folder(tmp_path / "splits", files)
    (root / "more").mkdir()
    pq.write_table(pa.table({"file_name": ["3.png"], "text": ["a swan"]}), root / "more" / "metadata.parquet")
    (root / "more" / "3.png").write_bytes(b"x")
    found, drops = outcome(root, layout)
    assert sorted(found.pop("test/1.png")) == ["a bird", "an owl"]
    assert found == {"train/1.png": ["a goose"], "train/pics/2.png": ["a duck"], "val/1.png": ["a hen"], "more/3.png": ["a swan"]}
    assert drops == {"val/gone.png": "missing_file"}


def test_links_within_a_hub_cache_are_followed_and_others_named(tmp_path, layout):
    cache = tmp_path / "datasets--org--name"
    snapshot = make_folder(cache / "snapshots" / "abc", {"a.txt": "a red cat", "b.txt": "a dog"})
    make_folder(cache, {"blobs/123": png("red")})
    (tmp_path / "secret.png").write_bytes(png("blue"))
    (tmp_path / "outside").mkdir()
    (snapshot / "a.png").symlink_to("../../blobs/123")
    (snapshot / "b.png").symlink_to(tmp_path / "secret.png")
    (snapshot / "c.png").symlink_to("c.png")
    (snapshot / "linked").symlink_to(tmp_path / "outside")
    found, drops = outcome(snapshot, layout)
    assert found == {"a.png": ["a red cat"]}
    assert drops == {"b.png": "missing_file", "c.png": "missing_file", "linked": "missing_file"}
    assert LocalReader((str(snapshot),), 1_000).fetch_image("folder:abc/a.png") == png("red")
    with pytest.raises(FetchError, match="missing_file: b.png lies outside of abc"):
        LocalReader((str(snapshot),), 1_000).fetch_image("folder:abc/b.png")


def test_a_name_with_brackets_is_no_pattern(tmp_path, layout):
    found, _ = outcome(make_folder(tmp_path / "birds [2021], 'a' *", {"a.png": b"x", "a.txt": "a bird"}), layout)
    assert found == {"a.png": ["a bird"]}


def test_members_of_a_tar_with_several_dots(tmp_path, layout):
    path = tmp_path / "shard.tar"
    members = {
        "0.left.png": b"x", "0.right.PNG": b"y", "0.txt": b"both", "1.v2.png": b"x", "1.v2.txt": b"one", "2.jpg": b"x", "2.png": b"y",
        "2.json": b'["two", "zwei"]', "3.heic": b"x", "3.txt": b"three",
    }  # fmt: skip
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found, drops = {}, {}
    discover(SourceConfig(kind="webdatasets", inputs=(str(path),)), LOCAL, layout)
    for row in read_parquet(candidates_path(layout, "web"), CANDIDATES).to_pylist():
        found.setdefault(row["image_url"].partition("/")[2], set()).add(row["caption"])
    for row in read_parts(layout.dropped("web"), DROPPED_PAIRS).to_pylist():
        drops[row["image_url"].partition("/")[2]] = row["reason"]
    two = {"two", "zwei"}
    assert found == {"0.left.png": {"both"}, "0.right.PNG": {"both"}, "1.v2.png": {"one"}, "2.jpg": two, "2.png": two}
    assert drops == {"3.heic": "unread_format"}
