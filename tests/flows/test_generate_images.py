"""Where the prompts of a batch come from."""

import pytest

from dalle_datasets.parquet import read_parquet
from dalle_datasets.schemas import PROMPTS
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
    with pytest.raises(ValueError, match="prompts and prompts_file are both given; choose one"):
        prompts_of(tmp_path, ["an owl"], "mine.txt")
