"""CLIP learns to match pairs, sees reconstructions with wrong tokens, resumes exactly, and can be a published model."""

import json

import pytest
import torch

from dalle_datasets.loading.image_batches import ImageBatches
from dalle_datasets.store.layout import Layout
from dalle_model.config.model import DVAEConfig
from dalle_model.dvae import DVAE, save_dvae
from dalle_model.jobs.train_clip import Reconstructions, equal_batches, replace_tokens
from dalle_model.running.networks import history
from dalle_model.running.run_dir import prepare
from dalle_model.sampling.rerank import load_scorer
from dalle_model.training.metrics import read_metrics

TINY = {
    "train_clip.batch_size": 16, "train_clip.max_steps": 8, "train_clip.warmup_steps": 1, "train_clip.learning_rate": 3e-3,
    "train_clip.checkpoint_every": 4, "train_clip.log_every": 2, "train_clip.validate_every": 4, "train_clip.max_replaced_tokens": 0.5,
}  # fmt: skip
TINY_DVAE = DVAEConfig(
    image_size=32, downsample=4, codebook_size=16, hidden_width=8, num_groups=2, blocks_per_group=1, codebook_width=8, stem_patch_size=2
)  # fmt: skip


@pytest.fixture
def inputs(tmp_path, pairs, make_config, run_job):
    torch.manual_seed(0)
    dvae_id = save_dvae(tmp_path / "dvae", DVAE(TINY_DVAE))
    bpe = run_job("train_bpe", make_config(TINY), pairs)
    return {**pairs, "tokenizer": bpe["tokenizer"], "tokenizer_id": bpe["tokenizer_id"], "dvae": "dvae", "dvae_id": dvae_id}


def test_it_learns_and_publishes_a_scorer(tmp_path, inputs, make_config, run_job):
    result = run_job("train_clip", make_config({**TINY, "train_clip.max_steps": 60, "train_clip.max_replaced_tokens": 0.0}), inputs)
    scorer = load_scorer(tmp_path / result["checkpoint"])
    assert scorer.id == result["clip_id"]
    logged = [line for line in read_metrics(Layout(tmp_path).run(result["run_id"]) / "metrics.jsonl") if line["split"] == "train"]
    assert result["loss"] < 0.8 * logged[0]["loss"]
    assert result["batch_accuracy"] > 3 / 16
    assert result["validation_loss"] > 0


def test_the_same_seed_gives_the_same_network_killed_or_not(tmp_path, inputs, make_config, run_job):
    config = make_config(TINY)
    undisturbed = run_job("train_clip", config, inputs)
    run_dir = prepare("train_clip", config, inputs)
    assert (run_dir / "checkpoints" / "step-000004").exists()
    (run_dir / "result.json").unlink()  # killed after the checkpoint of step 4
    assert run_job("train_clip", config, inputs)["clip_id"] == undisturbed["clip_id"]
    evaluator = run_job("train_clip", config, {**inputs, "role": "evaluator"})
    assert evaluator["evaluator_id"] not in (undisturbed["clip_id"], "")
    assert load_scorer(tmp_path / evaluator["checkpoint"]).id == evaluator["evaluator_id"]
    assert [known.network_id for known in history(Layout(tmp_path), "clip")] == [undisturbed["clip_id"]], "an evaluator never serves"


def test_reconstructions_and_their_wrong_tokens_change_what_is_learned(inputs, make_config, run_job):
    def clip_id(**settings):
        return run_job("train_clip", make_config({**TINY, **{f"train_clip.{k}": v for k, v in settings.items()}}), inputs)["clip_id"]

    settings = [
        {"reconstruction_share": 0.0, "max_replaced_tokens": 0.0},
        {"reconstruction_share": 1.0, "max_replaced_tokens": 0.0},
        {"reconstruction_share": 1.0, "max_replaced_tokens": 0.5},
    ]
    assert len({clip_id(max_steps=2, **some) for some in settings}) == 3


def test_remembered_tokens_are_those_of_the_dvae():
    torch.manual_seed(0)
    dvae = DVAE(TINY_DVAE).eval()
    images, ids = torch.rand(4, 3, 32, 32), torch.tensor([7, 8, 9, 10])
    reconstructions = Reconstructions(dvae)
    expected = dvae.tokenize(images)
    assert torch.equal(reconstructions.tokens(ids[:3], images[:3]), expected[:3])
    assert torch.equal(reconstructions.tokens(ids.flip(0), images.flip(0)), expected.flip(0))


def test_replaced_tokens_come_from_the_same_places_of_another_picture():
    torch.manual_seed(1)
    tokens = torch.arange(200)[:, None] * 100 + torch.arange(100)
    replaced = replace_tokens(tokens, 0.4)
    is_own, is_next = replaced == tokens, replaced == tokens.roll(1, 0)
    assert (is_own | is_next).all()
    shares = is_next.float().mean(1)
    assert float(shares.mean()) == pytest.approx(0.2, abs=0.03)  # each picture's own share is uniform in [0, 0.4]
    assert float(shares.std()) > 0.1
    assert float(shares.max()) < 0.6
    assert torch.equal(replace_tokens(tokens, 0.0), tokens)


def test_a_published_clip_is_imported_as_it_is(tmp_path, inputs, make_config, run_job):
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}}))
    config = make_config({**TINY, "clip.pretrained": f"local-dir:{folder}"})
    with pytest.raises(ValueError, match=r"clip\.pretrained='local-dir:.*its weights could not be loaded"):
        run_job("train_clip", config, inputs)
    save_file(open_clip.CLIP(16, vision, text).state_dict(), folder / "open_clip_model.safetensors")
    result = run_job("train_clip", config, inputs)
    assert result["loss"] is None
    assert load_scorer(tmp_path / result["checkpoint"]).encode_texts(["a cat"]).shape == (1, 16)


def test_validation_batches_have_one_size(tmp_path, pairs):
    """Guessing among fewer pairs is easier, so a small last batch would flatter the loss."""
    validation = ImageBatches(tmp_path / "pairs" / "emoji", "validation", 32)
    assert [len(batch) for batch in equal_batches(validation, 4)] == [4]  # of six
    assert [len(batch) for batch in equal_batches(validation, 100)] == [6]  # all there is
