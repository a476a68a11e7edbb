"""Every candidate is kept with its score, rank, seed and origin; kills, bad prompts and mixed-up networks lose nothing."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle_datasets.demo.emoji_scenes import Scene, all_scenes, caption_scene, draw_scene
from dalle_datasets.prompts.read import read_prompts, text_prompts
from dalle_datasets.prompts.write import write_prompts
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, read_parquet, write_parquet
from dalle_datasets.store.schemas import DROPPED_PROMPTS, GENERATION_EMBEDDINGS, GENERATIONS, PROMPTS
from dalle_model.config.model import DVAEConfig
from dalle_model.dvae import DVAE, load_dvae, save_dvae
from dalle_model.generated import units
from dalle_model.generated.image_files import read_origin
from dalle_model.jobs import generate_images
from dalle_model.running.run_dir import execute, prepare, read_result, run_directory
from dalle_model.sampling.rerank import load_scorer, score_candidates

TEXTS = ["a red apple on white", "two blue cats on a pink background", "a small owl on the left on yellow"]


@pytest.fixture
def inputs(tmp_path, networks):
    write_parquet(tmp_path / "prompts.parquet", text_prompts(TEXTS).prompts, PROMPTS)
    return {"prompts": "prompts.parquet", "prompts_id": "1", **networks}


def rows_of(tmp_path, result):
    return read_parquet(tmp_path / result["generations"], GENERATIONS).to_pylist()


def test_every_candidate_has_score_rank_seed_and_a_picture_with_its_origin(tmp_path, inputs, make_config, run_job):
    result = run_job("generate_images", make_config(), inputs)
    rows = rows_of(tmp_path, result)
    assert (result["num_prompts"], result["num_images"], result["dropped"]) == (3, 12, {})
    assert [(row["prompt"], row["candidate_index"]) for row in rows] == [(text, i) for text in TEXTS for i in range(4)]
    assert len({row["generation_id"] for row in rows}) == len({row["seed"] for row in rows}) == 12
    dvae, clip = load_dvae(tmp_path / "dvae"), load_scorer(tmp_path / "clip")
    for text in TEXTS:
        some = [row for row in rows if row["prompt"] == text]
        assert sorted(row["rank"] for row in some) == [1, 2, 3, 4]
        scores = [row["clip_score"] for row in sorted(some, key=lambda row: row["rank"])]
        assert scores == sorted(scores, reverse=True)
        files = np.stack([np.asarray(Image.open(tmp_path / row["image_path"])) for row in some])
        expected = dvae.decode_tokens(torch.tensor([row["image_tokens"] for row in some]))
        assert np.array_equal(files, (expected * 255).round().byte().permute(0, 2, 3, 1).numpy())
        # The stored score is that of the picture as stored: whoever scores the file gets the same number.
        again = score_candidates(clip, text, [torch.from_numpy(files).permute(0, 3, 1, 2).float() / 255])
        assert again.tolist() == pytest.approx([row["clip_score"] for row in some], abs=1e-5)
    origin = read_origin(tmp_path / rows[5]["image_path"])
    assert origin["prompt"] == rows[5]["prompt"]
    assert origin["generation_id"] == rows[5]["generation_id"]
    assert origin["seed"] == rows[5]["seed"]
    assert origin["transformer_id"] == inputs["transformer_id"]
    assert origin["run_id"] == result["run_id"]


def test_a_killed_run_continues_after_its_last_part_with_the_same_rows(tmp_path, inputs, make_config, run_job, monkeypatch):
    monkeypatch.setattr(units, "PICTURES_PER_PART", 4)  # a part for each prompt
    result = run_job("generate_images", make_config(), inputs)
    run_dir = Layout(tmp_path).run(result["run_id"])
    parts = list_parts(run_dir / "generations")
    assert len(parts) == 3
    whole, kept = (tmp_path / result["generations"]).read_bytes(), [part.stat().st_mtime_ns for part in parts[:2]]
    for lost in (parts[2], run_dir / "generations.parquet", run_dir / "result.json"):
        lost.unlink()  # killed while it made the third part
    again = run_job("generate_images", make_config(), inputs)
    assert (tmp_path / again["generations"]).read_bytes() == whole
    assert [part.stat().st_mtime_ns for part in parts[:2]] == kept


def test_a_damaged_part_is_made_again(tmp_path, inputs, make_config, run_job):
    result = run_job("generate_images", make_config(), inputs)
    run_dir = Layout(tmp_path).run(result["run_id"])
    whole = (tmp_path / result["generations"]).read_bytes()
    (part,) = list_parts(run_dir / "generations")
    part.write_bytes(part.read_bytes()[:-100])
    (run_dir / "result.json").unlink()
    assert (tmp_path / run_job("generate_images", make_config(), inputs)["generations"]).read_bytes() == whole


@pytest.mark.parametrize("pictures", [3, 1])
def test_more_candidates_than_a_part_holds_are_spread_over_parts_with_the_same_rows(
    tmp_path, inputs, make_config, run_job, monkeypatch, pictures
):
    together = run_job("generate_images", make_config(), inputs)
    rows, embeddings = rows_of(tmp_path, together), (tmp_path / together["image_embeddings"])
    vectors = read_parquet(embeddings, GENERATION_EMBEDDINGS).to_pylist()
    shutil.rmtree(Layout(tmp_path).run(together["run_id"]))
    monkeypatch.setattr(units, "PICTURES_PER_PART", pictures)
    apart = run_job("generate_images", make_config(), inputs)
    parts = list_parts(Layout(tmp_path).run(apart["run_id"]) / "generations")
    assert len(parts) == 3 * -(-4 // pictures)
    found = rows_of(tmp_path, apart)
    for expected, row in zip(rows, found, strict=True):
        assert (tmp_path / row.pop("image_path")).is_file()
        del expected["image_path"]  # the folder is named after the part
        assert row.pop("clip_score") == pytest.approx(expected.pop("clip_score"), abs=1e-6)  # the size of a batch decides the last digit
        assert row == expected
    again = read_parquet(embeddings, GENERATION_EMBEDDINGS).to_pylist()
    assert [row["generation_id"] for row in again] == [row["generation_id"] for row in vectors]
    sheets = sorted(Layout(tmp_path).run(apart["run_id"]).glob("contact_sheets/*.html"))
    assert [sheet.read_text().count("<img") for sheet in sheets] == [pictures, 1] * 3 if pictures == 3 else [1] * 12


def test_what_clip_saw_in_each_picture_is_kept(tmp_path, inputs, make_config, run_job):
    """Two bytes a number: enough for cosines that are as good as those of the pictures themselves."""
    result = run_job("generate_images", make_config(), inputs)
    clip, rows = load_scorer(tmp_path / "clip"), rows_of(tmp_path, result)
    kept = read_parquet(tmp_path / result["image_embeddings"], GENERATION_EMBEDDINGS)
    assert kept["generation_id"].to_pylist() == [row["generation_id"] for row in rows]
    assert set(kept["clip_id"].to_pylist()) == {inputs["clip_id"]}
    pixels = np.stack([np.asarray(Image.open(tmp_path / row["image_path"])) for row in rows])
    expected = clip.encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255).numpy()
    found = np.array(kept["image_embedding"].to_pylist(), np.float32)
    assert np.abs(found - expected).max() < 1e-3
    assert (found * expected).sum(1) == pytest.approx(1, abs=1e-3)


def test_rows_of_a_file_that_were_no_prompts_stand_beside_the_prompts_that_cannot_be_used(tmp_path, inputs, make_config, run_job):
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "a red apple on white"}\n{"prompt": 5}\n{"prompt": "a r\n{"prompt": "a red apple on white"}\n'
    )
    found = read_prompts(str(tmp_path / "p.jsonl"))
    named = write_prompts(Layout(tmp_path), found.prompts, found.dropped)
    result = run_job("generate_images", make_config(), {**inputs, **named})
    assert result["num_prompts"] == 1
    assert result["dropped"] == {"duplicate": 1, "malformed": 1, "not_text": 1}
    dropped = read_parquet(tmp_path / result["dropped_prompts"], DROPPED_PROMPTS).to_pylist()
    assert [row["detail"].split(":")[0] for row in dropped] == [
        "line 2",
        "line 3 cannot be read",
        "the same prompt stands further up",
    ]


def test_workers_side_by_side_make_every_part_once_and_the_same_rows(tmp_path, inputs, make_config, run_job, monkeypatch):
    monkeypatch.setattr(units, "PICTURES_PER_PART", 4)  # a part for each prompt
    whole = (tmp_path / run_job("generate_images", make_config(), inputs)["generations"]).read_bytes()
    run_dir = run_directory("generate_images", make_config(), inputs)
    shutil.rmtree(run_dir)
    prepare("generate_images", make_config(), inputs)
    make_part, made, everybody_works = generate_images.make_part, [], threading.Barrier(3, timeout=30)

    def slowly(run, networks, unit, report):
        made.append(unit.name)
        everybody_works.wait()
        return make_part(run, networks, unit, report)

    monkeypatch.setattr(generate_images, "make_part", slowly)
    with ThreadPoolExecutor(3) as threads:
        results = list(threads.map(lambda _: execute("generate_images", run_dir), range(3)))
    assert sorted(made) == ["part-00000", "part-00001", "part-00002"]
    assert results == [read_result(run_dir)] * 3
    assert (tmp_path / results[0]["generations"]).read_bytes() == whole


def test_a_picture_does_not_depend_on_the_other_prompts_or_on_batches(tmp_path, inputs, make_config, run_job):
    together = rows_of(tmp_path, run_job("generate_images", make_config({"sampling.batch_size": 12}), inputs))
    write_parquet(tmp_path / "one.parquet", text_prompts(TEXTS[1:2]).prompts, PROMPTS)
    alone = rows_of(tmp_path, run_job("generate_images", make_config({"sampling.batch_size": 3}), {**inputs, "prompts": "one.parquet"}))
    assert [row["image_tokens"] for row in alone] == [row["image_tokens"] for row in together if row["prompt"] == TEXTS[1]]


def test_precision_is_that_of_the_products(tmp_path, inputs, make_config, run_job, monkeypatch):
    used, sample = [], generate_images.sample_image_tokens
    monkeypatch.setattr(
        generate_images, "sample_image_tokens", lambda model, *rest: used.append(model.blocks[0].qkv.weight.dtype) or sample(model, *rest)
    )
    exact = rows_of(tmp_path, run_job("generate_images", make_config(), inputs))
    rounded = rows_of(tmp_path, run_job("generate_images", make_config({"sampling.precision": "bf16"}), inputs))
    assert list(dict.fromkeys(used)) == [torch.float32, torch.bfloat16]
    assert [row["seed"] for row in rounded] == [row["seed"] for row in exact]
    assert all(0 <= token < 16 for row in rounded for token in row["image_tokens"])


def test_bad_prompts_become_reason_rows_and_the_rest_goes_on(tmp_path, inputs, make_config, run_job):
    table = text_prompts([TEXTS[0], " ".join(["a red apple"] * 20), TEXTS[1]]).prompts.to_pylist()
    bad = [*table, {**table[0]}, {"prompt_id": "e", "prompt": " \t", "prompt_set": "own", "expected": None}]
    write_parquet(tmp_path / "prompts.parquet", text_prompts(TEXTS).prompts.from_pylist(bad, PROMPTS.with_metadata(None)), PROMPTS)
    result = run_job("generate_images", make_config(), inputs)
    assert result["num_prompts"] == 2
    assert result["dropped"] == {"duplicate": 1, "empty": 1, "too_long": 1}
    dropped = {row["reason"]: row for row in read_parquet(tmp_path / result["dropped_prompts"], DROPPED_PROMPTS).to_pylist()}
    assert "but the transformer reads 16; shorten it or set sampling.truncate_prompts=true" in dropped["too_long"]["detail"]
    assert dropped["empty"]["prompt_id"] == "e"
    truncated = run_job("generate_images", make_config({"sampling.truncate_prompts": True}), inputs)
    assert truncated["num_prompts"] == 3


def test_no_usable_prompt_is_an_error(tmp_path, inputs, make_config, run_job):
    write_parquet(tmp_path / "prompts.parquet", text_prompts([" ".join(["a red apple"] * 20)]).prompts, PROMPTS)
    with pytest.raises(ValueError, match=r"none of the 1 prompts can be used; the first is 'a red apple .*: \d+ tokens, but"):
        run_job("generate_images", make_config(), inputs)
    write_parquet(tmp_path / "prompts.parquet", PROMPTS.empty_table(), PROMPTS)
    with pytest.raises(ValueError, match=r"prompts\.parquet holds no prompts; give some"):
        run_job("generate_images", make_config(), inputs)


def test_networks_that_do_not_belong_together_are_an_error(tmp_path, inputs, make_config, run_job):
    """Tokens of one codebook decoded by another give pictures that look merely bad."""
    torch.manual_seed(5)
    config = json.loads((tmp_path / "dvae" / "config.json").read_text())["config"]["dvae"]
    other = save_dvae(tmp_path / "other", DVAE(DVAEConfig(**config)))
    with pytest.raises(ValueError, match=r"was trained with dvae_id=\w+, but dvae_id=\w+ is given: its tokens would mean something else"):
        run_job("generate_images", make_config(), {**inputs, "dvae": "other", "dvae_id": other})
    with pytest.raises(ValueError, match=r"other is dvae \w+, but the run asks for dvae \w+; correct the path or the id"):
        run_job("generate_images", make_config(), {**inputs, "dvae": "other"})


def test_without_clip_there_are_no_pictures(tmp_path, inputs, make_config, run_job):
    (tmp_path / "clip" / "model.safetensors").unlink()
    config = make_config()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing; train or import the clip again"):
        run_job("generate_images", config, inputs)
    assert not (run_directory("generate_images", config, inputs) / "images").exists()


@pytest.mark.parametrize("image_format", ["webp", "jpeg"])
def test_other_formats(tmp_path, inputs, make_config, run_job, image_format):
    rows = rows_of(tmp_path, run_job("generate_images", make_config({"sampling.image_format": image_format}), inputs))
    assert read_origin(tmp_path / rows[0]["image_path"])["prompt"] == TEXTS[0]


def test_each_part_has_a_contact_sheet_whose_pictures_exist(tmp_path, inputs, make_config, run_job, monkeypatch):
    monkeypatch.setattr(units, "PICTURES_PER_PART", 8)  # two prompts, then one
    texts = ["<b>cat & owl", *TEXTS[1:]]
    write_parquet(tmp_path / "prompts.parquet", text_prompts(texts).prompts, PROMPTS)
    result = run_job("generate_images", make_config(), inputs)
    first = tmp_path / result["contact_sheet"]
    page = first.read_text()
    assert "&lt;b&gt;cat &amp; owl" in page
    assert "<b>" not in page
    sources = re.findall(r'src="([^"]+)"', page)
    assert len(sources) == 8
    assert all((first.parent / source).is_file() for source in sources)
    rows = {row["rank"]: row for row in rows_of(tmp_path, result) if row["prompt"] == texts[0]}
    assert [Path(source).name for source in sources[:4]] == [Path(rows[rank]["image_path"]).name for rank in (1, 2, 3, 4)]
    (following,) = re.findall(r'href="([^"]+)">next', page)
    assert len(re.findall("<img", (first.parent / following).read_text())) == 4


def test_a_picture_is_completed_from_its_upper_rows(tmp_path, inputs, make_config, run_job):
    Image.fromarray(draw_scene(Scene("owl", "blue", "pink", "big"), 64)).save(tmp_path / "owl.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (tmp_path / "p.csv").write_text("prompt,image\na red apple,owl.png\na red apple,\na red apple,broken.png\n")
    write_parquet(tmp_path / "prompts.parquet", read_prompts(str(tmp_path / "p.csv")).prompts, PROMPTS)
    result = run_job("generate_images", make_config({"sampling.image_prompt_share": 0.5}), inputs)
    assert result["dropped"] == {"bad_image": 1}
    tokens = np.array([row["image_tokens"] for row in rows_of(tmp_path, result)]).reshape(2, 4, 64)
    pixels = torch.tensor(draw_scene(Scene("owl", "blue", "pink", "big"), 64)).float().view(32, 2, 32, 2, 3).mean((1, 3)).round()
    (expected,) = load_dvae(tmp_path / "dvae").tokenize(pixels.permute(2, 0, 1)[None] / 255)
    assert (tokens[0, :, :32] == expected[:32].numpy()).all()
    assert (tokens[0, :, 32:] != expected[32:].numpy()).any()
    assert (tokens[1, :, :32] != expected[:32].numpy()).any()


@pytest.mark.slow
def test_a_batch_of_80_prompts_killed_at_random_ends_with_the_same_rows(tmp_path, inputs, make_config, run_job):
    """kill -9 at any moment: between parts, inside a part, while pictures are half written."""
    from flows.runtime.jobs import commands_of  # here, because the other tests need no flows
    from flows.runtime.processes import stream_together

    scenes = random.Random(3).sample(all_scenes(), 80)
    write_parquet(
        tmp_path / "prompts.parquet", text_prompts([caption_scene(s, random.Random(i)) for i, s in enumerate(scenes)]).prompts, PROMPTS
    )
    config = make_config({"sampling.num_images": 8, "sampling.truncate_prompts": True})
    result = run_job("generate_images", config, inputs)
    run_dir = Layout(tmp_path).run(result["run_id"])
    undisturbed = (run_dir / "generations.parquet").read_bytes()
    pictures = {path.name: path.read_bytes() for path in run_dir.glob("images/*/*")}
    assert len(pictures) == result["num_images"]
    for path in run_dir.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    killed: set[int] = set()
    while read_result(run_dir) is None:
        num_parts = len(list_parts(run_dir / "generations"))

        def kill_after_a_part(_number, _line, num_parts=num_parts):
            if len(killed) < 2 and len(list_parts(run_dir / "generations")) > num_parts:
                pid = json.loads((run_dir / "job.json").read_text())["pid"]
                if pid not in killed:  # else these are its last words
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)

        (failure,) = stream_together(commands_of("generate_images", run_dir, 1), kill_after_a_part)
        assert failure is None or "SIGKILL" in failure.reason
    assert len(killed) == 2
    assert (run_dir / "generations.parquet").read_bytes() == undisturbed
    assert {path.name: path.read_bytes() for path in run_dir.glob("images/*/*")} == pictures


def start(run_dir, max_file_size=None):
    """The job as a process of its own, to which a file of more than `max_file_size` bytes is a full disk."""
    command = [sys.executable, "-m", "dalle_model.jobs", "generate_images", str(run_dir)]
    if max_file_size is not None:
        command = ["bash", "-c", f'ulimit -f {max_file_size // 1_024}; exec "$@"', "bash", *command]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
def test_a_full_disk_is_named_and_two_runs_at_once_then_finish_the_batch_together(tmp_path, inputs, make_config, run_job):
    config = make_config({"sampling.num_images": 64})
    result = run_job("generate_images", config, inputs)
    whole = (tmp_path / result["generations"]).read_bytes()
    run_dir = prepare("generate_images", config, inputs)
    shutil.rmtree(run_dir)
    prepare("generate_images", config, inputs)
    full = start(run_dir, max_file_size=8 * 1_024)  # pictures fit, a part does not
    _, said = full.communicate(timeout=300)
    assert full.returncode == 1
    assert re.search(r"could not write .*part-00000\.parquet: File too large; free some space or choose another data root", said)
    assert (run_dir / "status").read_text() == "failed"
    assert len(list(run_dir.glob("images/*/*.png"))) == 192
    both = [start(run_dir), start(run_dir)]
    assert [process.wait(timeout=300) for process in both] == [0, 0], [process.stderr.read() for process in both]
    assert (tmp_path / result["generations"]).read_bytes() == whole
    assert (run_dir / "status").read_text() == "done"
