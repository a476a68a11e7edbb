"""Where the prompts of a batch come from."""

import pytest

from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import DROPPED_PROMPTS, PROMPTS
from dalle_model.config.presets import preset
from flows.generate_images import choose_prompts


def prompts_of(tmp_path, *arguments):
    chosen = choose_prompts.fn(preset("demo", {"paths.data_root": str(tmp_path)}), *arguments)
    return read_parquet(tmp_path / chosen["prompts"], PROMPTS).to_pylist()


def test_prompts_come_from_a_list_a_file_or_the_source(tmp_path):
    (tmp_path / "mine.txt").write_text("an owl\na cat\n")
    assert [row["prompt"] for row in prompts_of(tmp_path, ["an owl"])] == ["an owl"]
    assert [row["prompt"] for row in prompts_of(tmp_path, None, str(tmp_path / "mine.txt"))] == ["an owl", "a cat"]
    assert {row["prompt_set"] for row in prompts_of(tmp_path, None)} == {"training", "unseen_scene", "held_out_pair"}


def test_two_places_at_once_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="prompts and prompts_file are given; choose one"):
        prompts_of(tmp_path, ["an owl"], "mine.txt")


def test_one_bad_prompt_of_a_list_is_left_out_with_a_reason(tmp_path):
    chosen = choose_prompts.fn(preset("demo", {"paths.data_root": str(tmp_path)}), ["an owl", " "])
    assert read_parquet(tmp_path / chosen["prompts"], PROMPTS)["prompt"].to_pylist() == ["an owl"]
    assert read_parquet(tmp_path / chosen["dropped_prompts"], DROPPED_PROMPTS)["detail"].to_pylist() == ["prompt 2: it has no text"]
    with pytest.raises(ValueError, match="prompts given: none of its 1 rows can be used; the first: prompt 1: it has no text"):
        prompts_of(tmp_path, [""])


def test_a_query_on_the_catalog_gives_prompts_and_stays_with_them(catalogued_root, tmp_path):
    root = catalogued_root.layout.root
    query = "select caption, split as prompt_set from pairs order by pair_id limit 3"
    config = preset("demo", {"paths.data_root": str(root)})
    chosen = choose_prompts.fn(config, prompts_query=query)
    rows = read_parquet(root / chosen["prompts"], PROMPTS).to_pylist()
    assert [row["prompt"] for row in rows] == [pair["caption"] for pair in sorted(catalogued_root.pairs, key=lambda p: p["pair_id"])[:3]]
    assert {row["prompt_set"] for row in rows} <= {"train", "validation"}
    (tmp_path / "three.sql").write_text(query)
    assert choose_prompts.fn(config, prompts_file=str(tmp_path / "three.sql")) == chosen
    with pytest.raises(ValueError, match="the query cannot be run: .*nowhere"):
        choose_prompts.fn(config, prompts_query="select caption from nowhere")
    with pytest.raises(ValueError, match="prompts the query: holds no prompts; give at least one"):
        choose_prompts.fn(config, prompts_query="select caption from pairs where false")
    with pytest.raises(ValueError, match=r"prompts .*gone\.sql: cannot be read \(No such file or directory\); correct the path"):
        choose_prompts.fn(config, prompts_file=str(tmp_path / "gone.sql"))
