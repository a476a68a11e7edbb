"""New pairs cost what new pairs cost: tokens and scores of the others stay, those of withdrawn pairs go."""

import random

import pytest
import torch

from dalle_datasets.demo.emoji_scenes import all_scenes
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, read_parquet, write_parquet
from dalle_datasets.store.schemas import CLIP_SCORES, DROPPED_PAIRS, IMAGE_TOKENS, PAIRS, TEXT_TOKENS
from dalle_model.jobs import score_pairs, tokenize_captions, tokenize_images
from tests.dalle_model.jobs.conftest import TINY, pairs_table
from tests.parts import read_parts

WORK = {
    "tokenize_images": (tokenize_images, "decode_image", lambda data, *rest: 1, IMAGE_TOKENS, "image_tokens"),
    "tokenize_captions": (tokenize_captions, "encode_pairs", lambda tokenizer, pairs: pairs.num_rows, TEXT_TOKENS, "text_tokens"),
    "score_pairs": (score_pairs, "centre", lambda *arguments: 1, CLIP_SCORES, "clip_scores"),
}
"""Job -> its module, the function there that handles pairs, how many a call of it handles, and what it makes."""


@pytest.fixture
def count(monkeypatch):
    """Counts the pairs that a job works on, as a dict of one number."""

    def watch(job):
        module, name, size, _, _ = WORK[job]
        real, done = getattr(module, name), {"pairs": 0}

        def counted(*arguments, **named):
            done["pairs"] += size(*arguments, **named)
            return real(*arguments, **named)

        monkeypatch.setattr(module, name, counted)
        return done

    return watch


def grow(root, inputs):
    """Withdraw the sixth pair of the second part, and add a part of seven new pairs."""
    folder = Layout(root).pairs("emoji")
    part = folder / "part-00001.parquet"
    table = read_parquet(part, PAIRS)
    write_parquet(part, table.take([i for i in range(20) if i != 5]), PAIRS, 10)
    new = random.Random(1).sample(all_scenes(), 7)
    write_parquet(folder / "part-00003.parquet", pairs_table(new), PAIRS, 10)
    return {**inputs, "pairs_id": "grown"}


@pytest.mark.parametrize("job", WORK)
def test_only_new_pairs_are_worked_on(job, tmp_path, pairs, networks, make_config, run_job, count):
    inputs, config = {**pairs, **networks}, make_config(TINY)
    _, _, _, schema, key = WORK[job]
    done = count(job)
    first = run_job(job, config, inputs)
    assert done["pairs"] == 60
    parts = list_parts(tmp_path / first[key])
    before = {part.name: part.stat().st_mtime_ns for part in parts}
    grown = grow(tmp_path, inputs)
    done["pairs"] = 0
    second = run_job(job, config, grown)
    assert second["run_id"] != first["run_id"]
    assert done["pairs"] == 7
    made = read_parts(tmp_path / second[key], schema)
    ids = read_parts(Layout(tmp_path).pairs("emoji"), PAIRS, ["pair_id"])["pair_id"]
    assert made["pair_id"].to_pylist() == ids.to_pylist(), "a row for each pair, in their order, and none for the withdrawn one"
    after = {part.name: part.stat().st_mtime_ns for part in list_parts(tmp_path / second[key])}
    assert [name for name in before if after[name] != before[name]] == ["emoji-part-00001.parquet"]
    fresh = run_job(job, config, {**grown, "pairs_id": "made at once"})
    assert done["pairs"] == 7
    for part in list_parts(tmp_path / fresh[key]):
        part.unlink()
    run_job(job, config, {**grown, "pairs_id": "made again"})
    again = read_parts(tmp_path / fresh[key], schema)
    assert done["pairs"] == 7 + len(ids)
    if job == "score_pairs":
        assert torch.tensor(again["clip_score"].to_pylist()).allclose(torch.tensor(made["clip_score"].to_pylist()), atol=1e-5)
    else:
        assert again.equals(made)


@pytest.mark.parametrize("crops", [0, 2])
def test_crops_and_pictures_that_cannot_be_decoded_keep_their_places(crops, tmp_path, pairs, networks, make_config, run_job, count):
    inputs, config = {**pairs, **networks}, make_config({**TINY, "tokenize_images.random_crops": crops})
    folder = Layout(tmp_path).pairs("emoji")
    table = read_parquet(folder / "part-00001.parquet", PAIRS)
    images = table["image"].to_pylist()
    images[3] = images[5] = b"no picture"
    place = table.schema.get_field_index("image")
    write_parquet(folder / "part-00001.parquet", table.set_column(place, "image", [images]), PAIRS, 10)
    first = run_job("tokenize_images", config, inputs)
    assert first["dropped"] == {"not_an_image": 2}
    done = count("tokenize_images")
    second = run_job("tokenize_images", config, grow(tmp_path, inputs))
    assert done["pairs"] == 7 + 1, "the new ones, and the picture that could not be decoded before"
    assert second["dropped"] == {"not_an_image": 1}
    (dropped,) = list_parts(tmp_path / second["image_tokens"] / "dropped")
    assert read_parquet(dropped, DROPPED_PAIRS).num_rows == 1
    part = read_parquet(tmp_path / second["image_tokens"] / "emoji-part-00001.parquet", IMAGE_TOKENS)
    kept = [pair_id for i, pair_id in enumerate(table["pair_id"].to_pylist()) if i not in (3, 5)]
    assert part["pair_id"].to_pylist() == [pair_id for pair_id in kept for _ in range(max(1, crops))]
    assert part["crop"].to_pylist() == list(range(max(1, crops))) * len(kept)


def test_parts_of_an_earlier_edition_serve_on(tmp_path, pairs, networks, make_config, run_job, count):
    """They named the set of pairs that they were made from, not the pairs in the part."""
    inputs, config = {**pairs, **networks}, make_config(TINY)
    first = run_job("score_pairs", config, inputs)
    for part in list_parts(tmp_path / first["clip_scores"]):
        write_parquet(part, read_parquet(part, CLIP_SCORES), CLIP_SCORES, metadata={"pairs_id": inputs["pairs_id"]})
    before = [part.read_bytes() for part in list_parts(tmp_path / first["clip_scores"])]
    done = count("score_pairs")
    (Layout(tmp_path).run(first["run_id"]) / "result.json").unlink()
    run_job("score_pairs", config, inputs)
    assert [part.read_bytes() for part in list_parts(tmp_path / first["clip_scores"])] == before
    run_job("score_pairs", config, grow(tmp_path, inputs))
    assert done["pairs"] == 7
