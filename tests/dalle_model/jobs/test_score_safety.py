"""Safety scores come from a CLIP that has weights, part by part, and only when they are asked for."""

import json

import pytest
import torch
from safetensors.torch import save_file

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts, write_parquet
from dalle_datasets.store.schemas import CLIP_SCORES, SAFETY_SCORES
from dalle_model.clip import build_clip, save_clip
from dalle_model.config.model import ClipConfig, TokenizerConfig
from dalle_model.config.safety import SafetyConfig
from dalle_model.safety import Head, ZeroShot, load_classifier
from dalle_model.sampling.rerank import load_scorer
from dalle_model.text import BpeTokenizer
from tests.parts import read_parts

ZERO_SHOT = {"safety.classifier": "zero_shot"}


@pytest.fixture
def inputs(tmp_path, pairs):
    torch.manual_seed(0)
    tokenizer = BpeTokenizer.train(["a red apple on white"], TokenizerConfig(vocab_size=270, max_text_tokens=40))
    config = ClipConfig(image_size=32, patch_size=8, embed_width=32, width=32, head_width=16, vision_layers=1, text_layers=1)
    return {**pairs, "clip": "clip", "clip_id": save_clip(tmp_path / "clip", build_clip(config, tokenizer))}


@pytest.fixture
def published(tmp_path):
    """An open_clip model in its own format, as somebody would have saved a published one."""
    import open_clip

    torch.manual_seed(1)
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "layers": 1, "width": 32, "heads": 2},
    }
    network = open_clip.CLIP(**model_cfg)
    folder = tmp_path / "published"
    folder.mkdir()
    preprocess_cfg = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}))
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def test_scores_are_softmaxes_of_cosines(tmp_path, inputs, make_config, run_job):
    config = make_config({**ZERO_SHOT, "safety.neutral_prompts": ("a picture", "a drawing")})
    run_job("score_pairs", config, inputs)
    result = run_job("score_safety", config, inputs)
    rows = {row["pair_id"]: row for row in read_parts(tmp_path / result["safety_scores"], SAFETY_SCORES).to_pylist()}
    assert result["num_scores"] == len(rows) == 60
    clip = load_scorer(tmp_path / "clip")
    scale = float(clip.network.logit_scale.exp())

    for seen in read_parts(Layout(tmp_path).clip_scores(clip.id), CLIP_SCORES).to_pylist()[:5]:
        image = torch.nn.functional.normalize(torch.tensor(seen["image_embedding"]), dim=0)
        for kind in ("nsfw", "watermark"):
            of_kind, neutral = (
                (scale * clip.encode_texts(list(prompts)) @ image).exp().mean()
                for prompts in (getattr(config.safety, f"{kind}_prompts"), config.safety.neutral_prompts)
            )
            assert rows[seen["pair_id"]][f"{kind}_score"] == pytest.approx(float(of_kind / (of_kind + neutral)), abs=1e-4)
    assert result["mean_nsfw_score"] == pytest.approx(sum(row["nsfw_score"] for row in rows.values()) / 60, abs=1e-5)


def test_a_picture_like_the_prompts_scores_high_and_one_like_the_neutral_ones_low(tmp_path, inputs):
    clip = load_scorer(tmp_path / inputs["clip"])
    config = SafetyConfig(classifier="zero_shot", nsfw_prompts=("xxx",), watermark_prompts=("(c) stock",), neutral_prompts=("a red apple",))
    classifier = ZeroShot(clip, config)
    scores = classifier.score(clip.encode_texts(["xxx", "(c) stock", "a red apple"]))
    assert (scores > 0.5).tolist() == [[True, scores[0, 1] > 0.5], [scores[1, 0] > 0.5, True], [False, False]]
    assert ((scores >= 0) & (scores <= 1)).all()


def test_an_open_clip_model_from_a_folder(tmp_path, pairs, published, make_config, run_job):
    """The way of published weights: import, score pairs, score safety; no network connection."""
    config = make_config({"clip.pretrained": f"local-dir:{published}"})
    clip = run_job("train_clip", config, pairs)
    inputs = {**pairs, "clip": clip["checkpoint"], "clip_id": clip["clip_id"]}
    run_job("score_pairs", config, inputs)
    result = run_job("score_safety", config, inputs)
    rows = read_parts(tmp_path / result["safety_scores"], SAFETY_SCORES).to_pylist()
    assert len({row["nsfw_score"] for row in rows}) > 30
    assert all(0 <= row["watermark_score"] <= 1 for row in rows)


def test_a_trained_head(tmp_path, inputs, make_config, run_job):
    """Rows of the weight: NSFW, watermark. This one looks at the first number of the embedding only."""
    weight = torch.zeros(2, 32)
    weight[0, 0] = 10
    save_file({"weight": weight, "bias": torch.tensor([0.0, -20.0])}, tmp_path / "head.safetensors")
    config = make_config({"safety.classifier": "head", "safety.head": str(tmp_path / "head.safetensors")})
    run_job("score_pairs", config, inputs)
    result = run_job("score_safety", config, inputs)
    rows = {row["pair_id"]: row for row in read_parts(tmp_path / result["safety_scores"], SAFETY_SCORES).to_pylist()}
    for seen in read_parts(tmp_path / "clip_scores" / f"clip={inputs['clip_id']}", CLIP_SCORES).to_pylist():
        row = rows[seen["pair_id"]]
        assert (row["nsfw_score"] > 0.5) == (seen["image_embedding"][0] > 0)
        assert row["watermark_score"] < 1e-6


def test_a_head_for_another_clip_is_an_error(tmp_path, inputs):
    clip = load_scorer(tmp_path / inputs["clip"])
    path = tmp_path / "head.safetensors"
    save_file({"weight": torch.zeros(2, 512), "bias": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"weight \[2, 512\] and bias \[2\], but this CLIP's embeddings need \[2, 32\] and \[2\]; train"):
        Head(clip, path)
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"safety\.head=.* is no safetensors file with `weight` and `bias` \(.*\); correct the path"):
        Head(clip, path)


def test_another_question_is_another_classifier(tmp_path, inputs):
    clip = load_scorer(tmp_path / inputs["clip"])
    ids = {ZeroShot(clip, SafetyConfig(classifier="zero_shot", neutral_prompts=prompts)).id for prompts in (("a",), ("b",), ("a", "b"))}
    assert len(ids) == 3
    with pytest.raises(ValueError, match=r"safety\.classifier gives no scores: it is none, or auto while .*; choose zero_shot or head"):
        load_classifier("none", SafetyConfig(), clip)


def test_published_weights_are_asked_by_default_and_our_own_are_not(make_config):
    """A CLIP that learned from a few thousand harmless pictures cannot know what is not safe for work."""
    assert make_config().safety_classifier == "none"
    assert make_config({"clip.pretrained": "ViT-B-32/openai"}).safety_classifier == "zero_shot"
    assert make_config({"clip.pretrained": "ViT-B-32/openai", "safety.classifier": "none"}).safety_classifier == "none"


def test_a_clip_without_weights_is_an_error_never_a_score(tmp_path, inputs, make_config, run_job):
    config = make_config(ZERO_SHOT)
    run_job("score_pairs", config, inputs)
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing; train or import the clip again"):
        run_job("score_safety", config, inputs)
    assert not (tmp_path / "safety_scores").exists()


@pytest.mark.parametrize("how", ["missing", "of other pairs"])
def test_embeddings_that_are_not_of_these_pairs_are_an_error(tmp_path, inputs, make_config, run_job, how):
    config = make_config(ZERO_SHOT)
    run_job("score_pairs", config, inputs)
    part = list_parts(tmp_path / "clip_scores" / f"clip={inputs['clip_id']}")[1]
    if how == "missing":
        part.unlink()
    else:
        write_parquet(part, CLIP_SCORES.empty_table(), CLIP_SCORES, metadata={"pairs_id": "others"})
    with pytest.raises(ValueError, match=r"part-00001\.parquet by CLIP \w+; run score_pairs first"):
        run_job("score_safety", config, inputs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nsfw_prompts": ()}, r"safety\.nsfw_prompts is empty; give at least one prompt"),
        ({"classifier": "head"}, r"safety\.classifier=head and safety\.head='' do not fit together"),
        ({"head": "x.safetensors"}, r"safety\.classifier=auto and safety\.head='x\.safetensors' do not fit together"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        SafetyConfig(**settings)
