"""Backups are whole or not there, small when little has changed, and restored byte by byte into an empty root."""

import json
import shutil

import pytest

from dalle_datasets.store.backup import BackupPlace, known_backups
from dalle_datasets.store.layout import Layout


@pytest.fixture
def layout(tmp_path):
    layout = Layout(tmp_path / "data")
    for name, content in {"pairs/web/part-0.parquet": b"a" * 1_000, "runs/r/result.json": b"{}", "settings.toml": b"x = 1"}.items():
        path = layout.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for passing in ("catalog/catalog.duckdb", "pairs/web/x.partial", "runs/r/lock", "runs/r/claims/0"):
        path = layout.root / passing
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"passing")
    return layout


def files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_backup_comes_back_byte_by_byte_and_the_second_copies_what_changed(layout, tmp_path):
    place = BackupPlace(str(tmp_path / "backups"))
    first = place.save(layout)
    assert (first.num_files, first.num_copied) == (3, 3)
    (layout.root / "settings.toml").write_bytes(b"x = 2")
    (layout.root / "runs/r/result.json").unlink()
    second = place.save(layout)
    assert (second.num_files, second.num_copied) == (2, 1)
    assert place.names() == [first.name, second.name]
    restored = Layout(tmp_path / "restored")
    place.restore(restored)
    assert files(restored.root) == {"pairs/web/part-0.parquet": b"a" * 1_000, "settings.toml": b"x = 2"}
    earlier = Layout(tmp_path / "earlier")
    place.restore(earlier, first.name)
    assert files(earlier.root)["settings.toml"] == b"x = 1"
    assert place.restore(earlier, first.name).num_copied == 0, "an interrupted restore goes on where it was"


def test_a_root_with_other_files_is_not_overwritten(layout, tmp_path):
    place = BackupPlace(str(tmp_path / "backups"))
    place.save(layout)
    (layout.root / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"data holds mine\.txt, which is not in the backup; restore into an empty folder"):
        place.restore(layout)


def manifest(tmp_path, place):
    return tmp_path / "backups" / "backups" / f"{place.names()[-1]}.json"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda said: {**said, "version": 2}, r"is of version 2, but this code reads version 1; restore it with the code that wrote it"),
        (lambda said: {}, r"is damaged \(KeyError"),
        (lambda said: [], r"is damaged \(TypeError"),
        (lambda said: {**said, "files": {"x": {}}}, r"is damaged \(a file without hash or size\)"),
        (lambda said: {**said, "files": {"../../evil": said["files"]["settings.toml"]}}, r"names '\.\./\.\./evil', which is no path of a"),
        (lambda said: {**said, "files": {"/etc/evil": said["files"]["settings.toml"]}}, r"names '/etc/evil', which is no path"),
    ],
)
def test_a_backup_that_is_not_ours_is_refused(layout, tmp_path, edit, message):
    place = BackupPlace(str(tmp_path / "backups"))
    place.save(layout)
    path = manifest(tmp_path, place)
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=message):
        place.restore(Layout(tmp_path / "restored"))
    assert not (tmp_path / "restored").exists()


def test_damaged_content_is_not_restored(layout, tmp_path):
    place = BackupPlace(str(tmp_path / "backups"))
    place.save(layout)
    for path in (tmp_path / "backups" / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(ValueError, match=r"the content of .*settings\.toml is damaged \([0-9a-f]{64}\); name another backup"):
        place.restore(Layout(tmp_path / "restored"))
    assert files(tmp_path / "restored") == {}
    shutil.rmtree(tmp_path / "backups" / "objects")
    with pytest.raises(ValueError, match="is gone"):
        place.restore(Layout(tmp_path / "restored"))


def test_no_backup_there(tmp_path):
    place = BackupPlace(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="none holds no backup ; it has: none"):
        place.restore(Layout(tmp_path / "restored"))
    with pytest.raises(ValueError, match="cannot hold a backup"):
        BackupPlace("gopher://x")


def test_a_data_root_knows_its_backups_but_no_key(layout, tmp_path):
    place = BackupPlace(str(tmp_path / "backups"))
    first, second = place.save(layout), place.save(layout)
    assert known_backups(layout) == [{"place": str(tmp_path / "backups"), "name": backup.name} for backup in (first, second)]
    place._place = "s3://key:secret@bucket/folder"  # as an address of a bucket may be written
    place.save(layout)
    assert known_backups(layout)[-1]["place"] == "s3://bucket/folder"
    layout.backups.write_text("{")
    with pytest.raises(ValueError, match="is damaged .*; mend the line"):
        known_backups(layout)
