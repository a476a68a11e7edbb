"""Text tokens are stored without padding, cut where the stream ends, and a killed run continues."""

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts
from dalle_datasets.store.schemas import PAIRS, TEXT_TOKENS
from dalle_model.running.run_dir import prepare
from dalle_model.text import BpeTokenizer
from tests.parts import read_parts


def inputs_of(config, pairs, run_job):
    bpe = run_job("train_bpe", config, pairs)
    return {**pairs, "tokenizer": bpe["tokenizer"], "tokenizer_id": bpe["tokenizer_id"]}


def test_every_caption_gets_its_tokens(tmp_path, pairs, make_config, run_job):
    config = make_config({"tokenizer.vocab_size": 400, "tokenizer.max_text_tokens": 10})
    inputs = inputs_of(config, pairs, run_job)
    result = run_job("tokenize_captions", config, inputs)
    tokenizer = BpeTokenizer.load(tmp_path / inputs["tokenizer"])
    rows = {row["pair_id"]: row for row in read_parts(tmp_path / result["text_tokens"], TEXT_TOKENS).to_pylist()}
    captions = read_parts(tmp_path / "pairs" / "emoji", PAIRS, ["pair_id", "caption"]).to_pylist()
    assert result["num_captions"] == len(captions) == len(rows) == 60
    assert 0 < result["num_truncated"] == sum(row["is_truncated"] for row in rows.values()) < 60
    for pair in captions:
        (ids,) = tokenizer.encode([pair["caption"]])
        row = rows[pair["pair_id"]]
        assert row["text_tokens"] == ids[:10]
        assert row["num_text_tokens"] == min(10, len(ids))
        assert row["is_truncated"] == (len(ids) > 10)


def test_an_interrupted_run_keeps_the_parts_it_finished(tmp_path, pairs, make_config, run_job):
    config = make_config()
    inputs = inputs_of(config, pairs, run_job)
    result = run_job("tokenize_captions", config, inputs)
    parts = list_parts(tmp_path / result["text_tokens"])
    before = [(part.read_bytes(), part.stat().st_mtime_ns) for part in parts]
    parts[2].unlink()  # as if the job had been killed before its last part …
    (Layout(tmp_path).run(result["run_id"]) / "result.json").unlink()  # … and so before its result
    again = run_job("tokenize_captions", config, inputs)
    after = [(part.read_bytes(), part.stat().st_mtime_ns) for part in parts]
    assert [content for content, _ in after] == [content for content, _ in before]
    assert after[:2] == before[:2]
    assert again["num_captions"] == 60


def test_another_tokenizer_writes_another_folder(tmp_path, pairs, make_config, run_job):
    config = make_config()
    shorter = make_config({"tokenizer.max_text_tokens": 5})
    paths = [run_job("tokenize_captions", c, inputs_of(c, pairs, run_job))["text_tokens"] for c in (config, shorter)]
    assert len(set(paths)) == 2
    assert prepare("tokenize_captions", config, inputs_of(config, pairs, run_job)) != prepare(
        "tokenize_captions", shorter, inputs_of(shorter, pairs, run_job)
    )


def test_new_pairs_replace_what_was_made_from_the_old_ones(tmp_path, pairs, make_config, run_job):
    """A catalog that read old and new parts of one source together would count pairs twice."""
    config = make_config()
    inputs = inputs_of(config, pairs, run_job)
    result = run_job("tokenize_captions", config, inputs)
    list_parts(tmp_path / "pairs" / "emoji")[2].unlink()
    other = tmp_path / result["text_tokens"] / "elsewhere-part-00009.parquet"
    other.write_bytes(b"another source's part")
    again = run_job("tokenize_captions", config, {**inputs, "pairs_id": "d4e5f6"})
    other.unlink()
    assert again["num_captions"] == 40
    rows = read_parts(tmp_path / again["text_tokens"], TEXT_TOKENS).num_rows
    assert rows == 40


def test_a_damaged_part_is_made_again(tmp_path, pairs, make_config, run_job):
    config = make_config()
    inputs = inputs_of(config, pairs, run_job)
    result = run_job("tokenize_captions", config, inputs)
    part = list_parts(tmp_path / result["text_tokens"])[1]
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 2])
    (Layout(tmp_path).run(result["run_id"]) / "result.json").unlink()
    run_job("tokenize_captions", config, inputs)
    assert part.read_bytes() == whole
