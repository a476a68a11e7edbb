"""Image tokens: one row per pair and crop, the same on every run, bad pictures left out with a reason."""

import hashlib
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import SchemaError, list_parts, read_parquet, write_parquet
from dalle_datasets.store.schemas import CODEBOOK_USAGE, DROPPED_PAIRS, IMAGE_TOKENS, PAIRS
from dalle_model.config.model import DVAEConfig
from dalle_model.config.presets import preset
from dalle_model.config.tokenizing import TokenizeImagesConfig
from dalle_model.dvae import DVAE, save_dvae
from dalle_model.dvae.image_tokenizer import ImageTokenizer, bytes_per_picture
from dalle_model.dvae.pixels import as_floats, as_tensor
from dalle_model.jobs import tokenize_images
from dalle_model.running.run_dir import execute, open_run, prepare, read_result
from tests.parts import read_parts

TINY = {"dvae.codebook_size": 16, "dvae.hidden_width": 8, "dvae.codebook_width": 8}


@pytest.fixture
def inputs(make_config, pairs, tmp_path):
    """Inputs of the job: the small world's pairs and an untrained dVAE."""
    torch.manual_seed(0)
    dvae_id = save_dvae(tmp_path / "dvae", DVAE(make_config(TINY).dvae))
    return {**pairs, "dvae": "dvae", "dvae_id": dvae_id}


def hashes(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.rglob("*.parquet")}


def spoil(tmp_path, row: int) -> None:
    """Replace the picture of one row of the first part by bytes that are none."""
    path = list_parts(Layout(tmp_path).pairs("emoji"))[0]
    table = read_parquet(path, PAIRS)
    images = table["image"].to_pylist()
    images[row] = b"<html>gone</html>"
    write_parquet(path, table.set_column(table.schema.get_field_index("image"), "image", pa.array(images, pa.binary())), PAIRS)


def test_every_pair_gets_the_tokens_of_its_picture(make_config, inputs, run_job, tmp_path):
    result = run_job("tokenize_images", make_config(TINY), inputs)
    tokens = read_parts(tmp_path / result["image_tokens"], IMAGE_TOKENS)
    rows = read_parts(Layout(tmp_path).pairs("emoji"), PAIRS)
    assert result["image_tokens"] == f"image_tokens/dvae={inputs['dvae_id']}"
    assert result["num_images"] == 60
    assert tokens["pair_id"].to_pylist() == rows["pair_id"].to_pylist()
    assert {len(row) for row in tokens["image_tokens"].to_pylist()} == {64}
    model = tokenize_images.load_dvae(tmp_path / "dvae")
    pixels = np.asarray(tokenize_images.decode_image(rows["image"][41].as_py(), 10**6))
    assert tokens["image_tokens"][41].as_py() == model.tokenize(as_floats(as_tensor(pixels[None])))[0].tolist()


def test_usage_counts_every_token(make_config, inputs, run_job, tmp_path):
    result = run_job("tokenize_images", make_config(TINY), inputs)
    usage = read_parquet(tmp_path / result["codebook_usage"], CODEBOOK_USAGE)
    tokens = np.concatenate(read_parts(tmp_path / result["image_tokens"], IMAGE_TOKENS)["image_tokens"].to_pylist())
    assert usage["occurrences"].to_pylist() == np.bincount(tokens, minlength=16).tolist()
    assert result["codes_used"] == len(set(tokens))


def test_another_number_of_workers_writes_the_same_bytes(make_config, inputs, run_job, tmp_path):
    directory = Layout(tmp_path).image_tokens(inputs["dvae_id"])
    run_job("tokenize_images", make_config({**TINY, "tokenize_images.random_crops": 2, "tokenize_images.decode_threads": 1}), inputs)
    first = hashes(directory)
    for path in directory.iterdir():
        path.unlink()
    run_job("tokenize_images", make_config({**TINY, "tokenize_images.random_crops": 2, "tokenize_images.decode_threads": 4}), inputs)
    assert hashes(directory) == first


def test_an_interrupted_run_keeps_its_finished_parts_and_ends_with_the_same_bytes(make_config, inputs, run_job, tmp_path, monkeypatch):
    directory, config = Layout(tmp_path).image_tokens(inputs["dvae_id"]), make_config(TINY)
    run_job("tokenize_images", config, inputs)
    undisturbed = hashes(directory)
    for path in directory.iterdir():
        path.unlink()
    other = make_config({**TINY, "tokenize_images.batch_size": 32})  # another run directory, as after the kill of a first
    tokenize_pairs, parts = tokenize_images.tokenize_pairs, []

    def dies_in_the_second_part(run, tokenizer, part, progress):
        parts.append(part.name)
        if len(parts) == 2:
            raise KeyboardInterrupt
        return tokenize_pairs(run, tokenizer, part, progress)

    monkeypatch.setattr(tokenize_images, "tokenize_pairs", dies_in_the_second_part)
    with pytest.raises(KeyboardInterrupt):
        run_job("tokenize_images", other, inputs)
    run_job("tokenize_images", other, inputs)
    assert parts == ["part-00000.parquet", "part-00001.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert hashes(directory) == undisturbed


def test_several_crops_are_rows_of_their_own(make_config, inputs, run_job, tmp_path):
    run_job("tokenize_images", make_config(TINY), inputs)
    result = run_job("tokenize_images", make_config({**TINY, "tokenize_images.random_crops": 3}), inputs)
    tokens = read_parts(tmp_path / result["image_tokens"], IMAGE_TOKENS)
    assert result["num_images"] == 180, "parts made with other crops are made again"
    assert tokens["crop"].to_pylist()[:4] == [0, 1, 2, 0]


def test_a_picture_that_cannot_be_decoded_leaves_a_reason_and_the_others_their_tokens(make_config, inputs, run_job, tmp_path):
    spoil(tmp_path, row=3)
    result = run_job("tokenize_images", make_config(TINY), inputs)
    assert result["dropped"] == {"not_an_image": 1}
    assert result["num_images"] == 59
    dropped = read_parquet(next((tmp_path / result["image_tokens"] / "dropped").iterdir()), DROPPED_PAIRS).to_pylist()
    assert [(row["stage"], row["reason"], row["candidate_id"]) for row in dropped] == [("tokenize", "not_an_image", f"{3:016x}")]


def test_workers_side_by_side_make_every_part_once_to_the_same_bytes_and_return_one_result(
    make_config, inputs, run_job, tmp_path, monkeypatch
):
    directory = Layout(tmp_path).image_tokens(inputs["dvae_id"])
    result = run_job("tokenize_images", make_config(TINY), inputs)
    alone = hashes(directory)
    for path in directory.iterdir():
        path.unlink()
    run_dir = prepare("tokenize_images", make_config({**TINY, "tokenize_images.batch_size": 32}), inputs)  # another run directory
    tokenize_pairs, made_by, everybody_works = tokenize_images.tokenize_pairs, {}, threading.Barrier(3, timeout=120)

    def slowly(run, tokenizer, source, progress):
        made_by.setdefault(source.name, []).append(threading.get_ident())
        everybody_works.wait()
        return tokenize_pairs(run, tokenizer, source, progress)

    monkeypatch.setattr(tokenize_images, "tokenize_pairs", slowly)
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda _: execute("tokenize_images", run_dir), range(3)))
    assert {name: len(makers) for name, makers in made_by.items()} == {f"part-0000{i}.parquet": 1 for i in range(3)}
    assert len({maker for makers in made_by.values() for maker in makers}) == 3
    assert results == [read_result(run_dir)] * 3
    assert hashes(directory) == alone
    assert {name: results[0][name] for name in ("num_images", "codes_used", "perplexity", "dropped")} == {
        name: result[name] for name in ("num_images", "codes_used", "perplexity", "dropped")
    }


def test_a_summary_of_missing_shards_says_which(make_config, inputs, tmp_path):
    run = open_run("tokenize_images", prepare("tokenize_images", make_config(TINY), inputs))
    with pytest.raises(SchemaError, match=r"emoji-part-00000\.parquet is not a readable Parquet file"):
        tokenize_images.finish(run, {})


def test_reasons_of_parts_that_are_gone_go_too(make_config, inputs, run_job, tmp_path):
    spoil(tmp_path, row=3)
    result = run_job("tokenize_images", make_config(TINY), inputs)
    assert result["dropped"]
    list_parts(Layout(tmp_path).pairs("emoji"))[0].unlink()
    result = run_job("tokenize_images", make_config(TINY), {**inputs, "pairs_id": "other"})
    assert result["dropped"] == {}
    assert not list((tmp_path / result["image_tokens"] / "dropped").iterdir())


@pytest.mark.long
def test_two_processes_under_torchrun_write_the_same_bytes(make_config, inputs, run_job, tmp_path):
    directory = Layout(tmp_path).image_tokens(inputs["dvae_id"])
    run_job("tokenize_images", make_config(TINY), inputs)
    alone = hashes(directory)
    for path in directory.iterdir():
        path.unlink()
    run_dir = prepare("tokenize_images", make_config({**TINY, "tokenize_images.batch_size": 32}), inputs)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "dalle_model.jobs"]
    command = [sys.executable, *launcher, "tokenize_images", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert hashes(directory) == alone
    assert read_result(run_dir)["num_images"] == 60


def test_parts_name_their_dvae_and_pairs(make_config, inputs, run_job, tmp_path):
    result = run_job("tokenize_images", make_config(TINY), inputs)
    metadata = [pq.read_schema(part).metadata for part in list_parts(tmp_path / result["image_tokens"])]
    assert {each[b"dvae_id"] for each in metadata} == {inputs["dvae_id"].encode()}
    assert len({each[b"part_id"] for each in metadata}) == len(metadata) == 3


def test_bf16_tokens_are_made_anew_and_nearly_the_same(make_config, inputs, run_job, tmp_path):
    result = run_job("tokenize_images", make_config(TINY), inputs)
    exact = np.concatenate(read_parts(tmp_path / result["image_tokens"], IMAGE_TOKENS)["image_tokens"].to_pylist())
    result = run_job("tokenize_images", make_config({**TINY, "tokenize_images.precision": "bf16"}), inputs)
    rounded = np.concatenate(read_parts(tmp_path / result["image_tokens"], IMAGE_TOKENS)["image_tokens"].to_pylist())
    assert pq.read_schema(list_parts(tmp_path / result["image_tokens"])[0]).metadata[b"precision"] == b"bf16"
    assert 0.9 < (exact == rounded).mean() < 1, "rounding changes some tokens, else it was not done"


def test_each_part_of_the_work_reports_its_rate(make_config, inputs, run_job):
    result = run_job("tokenize_images", make_config(TINY), inputs)
    assert result["decode_images_per_s"] > 0
    assert result["network_images_per_s"] > result["images_per_s"] > 0


def test_the_next_batch_is_decoded_while_the_network_works(make_config, inputs, run_job, monkeypatch):
    decode, tokenize, seen = tokenize_images.decode_image, DVAE.tokenize, []
    is_ahead = threading.Event()

    def counted(data, max_pixels):
        seen.append(data)
        if len(seen) > 10:
            is_ahead.set()
        return decode(data, max_pixels)

    def waits_for_the_next_batch(model, images):
        assert is_ahead.wait(10), "nothing was decoded while the network had the first batch"
        return tokenize(model, images)

    monkeypatch.setattr(tokenize_images, "decode_image", counted)
    monkeypatch.setattr(DVAE, "tokenize", waits_for_the_next_batch)
    run_job("tokenize_images", make_config({**TINY, "tokenize_images.batch_size": 10}), inputs)


def test_batches_fit_into_memory(make_config, inputs, run_job, monkeypatch):
    settings = TokenizeImagesConfig()
    assert tokenize_images.largest_batch(DVAEConfig(image_size=32, hidden_width=8), settings) == 64
    assert tokenize_images.largest_batch(DVAEConfig(), settings) == 14, "four activations of 256 x 256 x 256 in fp32 take 268 MB"
    assert tokenize_images.largest_batch(DVAEConfig(), replace(settings, batch_memory_gb=0.01)) == 1
    tokenize, sizes = DVAE.tokenize, []
    monkeypatch.setattr(DVAE, "tokenize", lambda model, images: sizes.append(len(images)) or tokenize(model, images))
    run_job("tokenize_images", make_config({**TINY, "tokenize_images.batch_size": 12, "tokenize_images.random_crops": 5}), inputs)
    assert max(sizes) == 10, "two pictures of five crops"
    sizes.clear()
    run_job("tokenize_images", make_config({**TINY, "tokenize_images.batch_size": 4, "tokenize_images.random_crops": 6}), inputs)
    assert set(sizes) == {4, 2}, "the crops of one picture may be more than a batch"


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        (DVAEConfig(image_size=64, hidden_width=32, codebook_size=512), "fp32"),
        pytest.param(
            DVAEConfig(image_size=64, hidden_width=32, codebook_size=512),
            "bf16",
            marks=pytest.mark.skipif(
                torch.__version__ < (2, 12) or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
                reason="bf16 convolutions are widened on a CPU without AVX-512, and by torch 2.11",
            ),
        ),
        (preset("demo").dvae, "fp32"),
        (DVAEConfig(image_size=64, hidden_width=4, codebook_width=8), "fp32"),
    ],
    ids=["wide", "wide in bf16", "demo", "large codebook"],
)
def test_the_memory_of_a_pass_is_what_was_estimated(config, precision, tmp_path):
    torch.manual_seed(0)
    tokenizer = ImageTokenizer(DVAE(config).eval().requires_grad_(False), precision, batch_size=8)
    images = np.zeros((8, config.image_size, config.image_size, 3), np.uint8)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        list(tokenizer.stream([images]))
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    events = [event for event in json.loads((tmp_path / "trace.json").read_text())["traceEvents"] if event.get("name") == "[memory]"]
    sizes = [event["args"]["Total Allocated"] for event in sorted(events, key=lambda event: event["ts"])]
    used = (max(sizes) - sizes[0]) / 8
    assert 0.8 < used / bytes_per_picture(config, precision) < 1.25


def test_a_wrong_memory_is_refused():
    with pytest.raises(ValueError, match=r"tokenize_images\.batch_memory_gb=0 must be in"):
        TokenizeImagesConfig(batch_memory_gb=0)


@pytest.mark.parametrize("found", ["fp32", "bf16"])
def test_auto_takes_the_precision_that_is_faster(found, make_config, inputs, run_job, monkeypatch):
    tried = []

    def measure(run, device):
        for precision in ("fp32", "bf16"):
            tried.append(len(run(precision)))
        return found

    monkeypatch.setattr(tokenize_images, "faster_precision", measure)
    used, tokenizer = [], tokenize_images.ImageTokenizer
    monkeypatch.setattr(
        tokenize_images, "ImageTokenizer", lambda model, precision, size: used.append(precision) or tokenizer(model, precision, size)
    )
    run_job("tokenize_images", make_config({**TINY, "tokenize_images.precision": "auto"}), inputs)
    assert (tried, used) == ([1, 1], ["fp32", "bf16", found])
