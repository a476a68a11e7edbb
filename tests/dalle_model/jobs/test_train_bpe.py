"""The vocabulary is learned from training captions and published whole under its id."""

import pytest

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.store.schemas import PAIRS
from dalle_model.running.run_dir import prepare, read_result
from dalle_model.text import BpeTokenizer

SMALL = {"tokenizer.vocab_size": 400, "tokenizer.max_text_tokens": 10}


def test_it_publishes_a_vocabulary_and_counts_how_captions_fit(tmp_path, pairs, make_config, run_job):
    result = run_job("train_bpe", make_config(SMALL), pairs)
    tokenizer = BpeTokenizer.load(tmp_path / result["tokenizer"])
    assert tokenizer.id == result["tokenizer_id"] == (tmp_path / result["tokenizer"]).name
    assert 256 < result["vocab_size"] <= 400
    assert result["num_captions"] == 54  # six of the sixty pairs are in the validation split
    assert result["longest_caption_tokens"] > 10
    assert 0 < result["truncated_share"] < 1


def test_running_it_again_changes_nothing(tmp_path, pairs, make_config, run_job):
    first = run_job("train_bpe", make_config(SMALL), pairs)
    (Layout(tmp_path).run(first["run_id"]) / "result.json").unlink()
    again = run_job("train_bpe", make_config(SMALL), pairs)
    assert {k: again[k] for k in ("run_id", "tokenizer_id")} == {k: first[k] for k in ("run_id", "tokenizer_id")}
    assert [path.name for path in (tmp_path / "tokenizers").iterdir()] == [first["tokenizer_id"]]


def test_a_damaged_vocabulary_of_the_same_id_is_not_passed_on(tmp_path, pairs, make_config, run_job):
    first = run_job("train_bpe", make_config(SMALL), pairs)
    (tmp_path / first["tokenizer"] / "vocabulary.json").write_text("{}")
    (Layout(tmp_path).run(first["run_id"]) / "result.json").unlink()
    with pytest.raises(ValueError, match=r"holds no readable tokenizer .*; delete the folder and run train_bpe again"):
        run_job("train_bpe", make_config(SMALL), pairs)


def test_no_pairs_is_an_error_and_leaves_no_result(tmp_path, make_config, run_job):
    write_parquet(Layout(tmp_path).pairs("none") / "part-00000.parquet", PAIRS.empty_table(), PAIRS)
    inputs, config = {"pairs": "pairs/none", "pairs_id": "0"}, make_config(SMALL)
    with pytest.raises(ValueError, match="needs captions to learn from, but there are none"):
        run_job("train_bpe", config, inputs)
    run_dir = prepare("train_bpe", config, inputs)
    assert read_result(run_dir) is None
    assert (run_dir / "status").read_text() == "failed"
