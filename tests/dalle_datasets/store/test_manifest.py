"""A manifest says "finished" for the same inputs only."""

from dalle_datasets.store.manifest import commit, invalidate, load_if_current


def test_a_stage_is_finished_for_its_inputs_until_it_begins_again(tmp_path):
    assert load_if_current(tmp_path, "a") is None
    commit(tmp_path, "a", {"rows": 3})
    assert load_if_current(tmp_path, "a") == {"rows": 3}
    assert load_if_current(tmp_path, "b") is None
    invalidate(tmp_path)
    assert load_if_current(tmp_path, "a") is None


def test_a_torn_manifest_is_no_manifest(tmp_path):
    commit(tmp_path, "a", {})
    (tmp_path / "manifest.json").write_text('{"inputs_id": "a", "res')
    assert load_if_current(tmp_path, "a") is None


def test_a_stage_whose_part_was_deleted_or_cut_short_runs_again(tmp_path):
    """The remedy for a broken part is to delete it and run the stage again, so the manifest must not say "finished" then."""
    invalidate(tmp_path)
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(b"PAR1 ... PAR1")
    commit(tmp_path, "a", {"answer": 42})
    assert load_if_current(tmp_path, "a") == {"answer": 42}
    part.write_bytes(b"PAR1")
    assert load_if_current(tmp_path, "a") is None
    part.unlink()
    assert load_if_current(tmp_path, "a") is None
