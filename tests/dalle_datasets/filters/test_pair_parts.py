"""Parts of pairs outlive collections: what is not concerned by a change keeps its bytes."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dalle_datasets.config import ShardsConfig
from dalle_datasets.sources.discover import candidates_path
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, read_parquet, write_parquet
from dalle_datasets.store.schemas import CANDIDATES, PAIRS
from tests.dalle_datasets.filters.test_filter_pairs import SHARDS, put_images, run
from tests.parts import read_parts

FINDS = [f"a picture of thing number {i}" for i in range(8)]
BIG = ShardsConfig(rows_per_part=100, row_group_size=50)


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def put(layout, *seeds, **options):
    from tests.dalle_datasets.filters.test_filter_pairs import png

    put_images(layout, *((FINDS[seed] if seed < 8 else f"a later picture of thing {seed}", png(seed)) for seed in seeds), **options)


def parts(layout):
    """Name -> (bytes, time of writing)."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in list_parts(layout.pairs("web"))}


def captions(layout):
    return sorted(read_parts(layout.pairs("web"), PAIRS, ["caption"])["caption"].to_pylist())


def test_new_pairs_become_new_parts_and_the_others_are_not_touched(layout):
    put(layout, *range(8))
    first = run(layout)
    before = parts(layout)
    assert list(before) == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    put(layout, *range(12))
    second = run(layout)
    after = parts(layout)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == ["part-00003.parquet", "part-00004.parquet"]
    assert (first.num_pairs, second.num_pairs) == (8, 12)
    assert second.pairs_id != first.pairs_id
    assert len(set(captions(layout))) == 12


def test_the_id_of_the_pairs_does_not_depend_on_when_they_came(layout, tmp_path):
    put(layout, *range(5))
    run(layout)
    put(layout, *range(11))
    grown = run(layout)
    fresh = Layout(tmp_path / "fresh")
    put(fresh, *range(11))
    assert run(fresh).pairs_id == grown.pairs_id
    assert captions(fresh) == captions(layout)


def test_a_withdrawn_pair_changes_its_own_part_only(layout):
    put(layout, *range(8))
    run(layout)
    before = parts(layout)
    gone = read_parquet(layout.pairs("web") / "part-00001.parquet", PAIRS).to_pylist()[1]
    path = candidates_path(layout, "web")
    found = read_parquet(path, CANDIDATES)
    write_parquet(path, found.filter(pc.not_equal(found["candidate_id"], gone["candidate_id"])), CANDIDATES)
    result = run(layout)
    after = parts(layout)
    assert result.num_pairs == 7
    assert gone["caption"] not in captions(layout)
    assert gone["image"] not in after["part-00001.parquet"][0]
    assert [name for name in before if after[name] != before[name]] == ["part-00001.parquet"]
    write_parquet(path, found, CANDIDATES)
    run(layout)
    back = parts(layout)
    assert {name: back[name] for name in after} == after, "it comes back in a part of its own"
    assert gone["caption"] in captions(layout)


def test_a_part_that_lost_all_its_pairs_goes_and_its_number_is_not_mixed_up(layout):
    put(layout, *range(8))
    run(layout)
    before = parts(layout)
    lost = read_parquet(layout.pairs("web") / "part-00001.parquet", PAIRS, ["candidate_id"])["candidate_id"].combine_chunks()
    path = candidates_path(layout, "web")
    found = read_parquet(path, CANDIDATES)
    write_parquet(path, found.filter(pc.invert(pc.is_in(found["candidate_id"], lost))), CANDIDATES)
    run(layout)
    assert parts(layout) == {name: before[name] for name in ("part-00000.parquet", "part-00002.parquet")}


def test_what_is_said_of_a_pair_changes_in_its_place(layout):
    put(layout, *range(8))
    first = run(layout)
    before = parts(layout)
    about = read_parquet(layout.pairs("web") / "part-00000.parquet", PAIRS)
    caption = about["caption"].to_pylist()[2]
    path = candidates_path(layout, "web")
    found = read_parquet(path, CANDIDATES)
    licences = pa.array(["CC BY 4.0" if each == caption else None for each in found["caption"].to_pylist()], pa.string())
    place = found.schema.get_field_index("licence")
    write_parquet(path, found.set_column(place, "licence", licences), CANDIDATES)
    second = run(layout)
    after = parts(layout)
    assert second.pairs_id == first.pairs_id
    assert [name for name in before if after[name] != before[name]] == ["part-00000.parquet"]
    changed = read_parquet(layout.pairs("web") / "part-00000.parquet", PAIRS)
    assert changed["licence"].to_pylist() == [None, None, "CC BY 4.0"]
    assert changed.drop_columns("licence").equals(about.drop_columns("licence"))


def test_parts_larger_than_asked_for_and_damaged_ones_are_all_written_anew(layout):
    put(layout, *range(8))
    run(layout, shards=BIG)
    assert list(parts(layout)) == ["part-00000.parquet"]
    run(layout, shards=SHARDS)
    at_once = parts(layout)
    assert len(at_once) == 3
    (layout.pairs("web") / "part-00001.parquet").write_bytes(b"PAR1")
    run(layout)
    assert {name: data for name, (data, _) in parts(layout).items()} == {name: data for name, (data, _) in at_once.items()}


def test_a_killed_run_goes_on_with_the_parts_it_wrote(layout, monkeypatch):
    from dalle_datasets.filters import pair_parts

    put(layout, *range(8))
    run(layout)
    whole = {name: data for name, (data, _) in parts(layout).items()}
    for name in ("part-00001.parquet", "part-00002.parquet", "manifest.json"):
        (layout.pairs("web") / name).unlink()
    run(layout)
    assert {name: data for name, (data, _) in parts(layout).items()} == whole
    put(layout, *range(12))

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(pair_parts, "count_pairs", stop)
    with pytest.raises(KeyboardInterrupt):
        run(layout)
    monkeypatch.undo()
    written = parts(layout)
    run(layout)
    assert parts(layout) == written
    assert len(captions(layout)) == 12
