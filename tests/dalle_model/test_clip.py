"""CLIP scores mean something: right pooling, right preprocessing, right weights, or an error."""

import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dalle_datasets.demo.emoji_scenes import Scene, caption_scene, draw_scene
from dalle_model.clip import build_clip, contrastive_loss, cosine, import_pretrained, load_clip, save_clip
from dalle_model.config.model import ClipConfig, TokenizerConfig
from dalle_model.text import BpeTokenizer

TINY = ClipConfig(image_size=32, patch_size=8, embed_width=32, width=32, head_width=16, vision_layers=1, text_layers=1)
SCENES = [
    Scene("apple", "red", "white", "big"),
    Scene("owl", "blue", "pink", "big"),
    Scene("car", "green", "yellow", "big"),
    Scene("star", "purple", "blue", "big"),
]
CAPTIONS = [caption_scene(scene, random.Random(0)) for scene in SCENES]
IMAGES = torch.from_numpy(np.stack([draw_scene(scene, 32) for scene in SCENES])).permute(0, 3, 1, 2) / 255


@pytest.fixture(scope="module")
def tokenizer() -> BpeTokenizer:
    return BpeTokenizer.train(CAPTIONS, TokenizerConfig(vocab_size=300, max_text_tokens=12))


@pytest.fixture
def clip(tokenizer):
    torch.manual_seed(0)
    built = build_clip(TINY, tokenizer)
    built.network.eval()
    return built


def test_end_of_text_is_the_highest_id_of_every_caption(clip, tokenizer):
    """open_clip reads the caption's embedding at the largest id: another order would quietly read some other token."""
    tokens = clip.tokenize([*CAPTIONS, "", "one two three four five six seven eight nine ten eleven twelve"])
    end = tokenizer.vocab_size + 1
    assert tokens.shape == (6, 13)
    assert (tokens.max(1).values == end).all()
    assert ((tokens == end).sum(1) == 1).all()
    (ids,) = tokenizer.encode(CAPTIONS[:1])
    assert tokens[0].tolist() == [*(i + 1 for i in ids), end] + [0] * (12 - len(ids))
    assert tokens[4].tolist() == [end] + [0] * 12
    assert tokens[5, 12] == end  # cut, and still ended


def test_the_pooled_token_is_the_end_of_text(clip):
    tokens = clip.tokenize(CAPTIONS[:1])
    end = int(tokens.argmax())
    changed = tokens.clone()
    changed[0, end + 1 :] = 5  # what comes after the end must not matter, since text attends to the past only
    with torch.no_grad():
        assert torch.equal(clip.network.encode_text(tokens), clip.network.encode_text(changed))


def test_embeddings_have_unit_length_and_cosine_is_raw(clip):
    images, texts = clip.encode_images(IMAGES), clip.encode_texts(CAPTIONS)
    assert images.shape == texts.shape == (4, 32)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(cosine(images[:, None], texts[None]), images @ texts.T)
    torch.testing.assert_close(cosine(images, images), torch.ones(4))


def test_pictures_are_squared_resized_and_normalised(clip):
    wide = torch.cat([torch.zeros(1, 3, 64, 10), torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 10)], 3)
    assert torch.equal(clip.prepare_images(wide), torch.ones(1, 3, 32, 32))  # only the white middle, as 1 = (1 - 0.5) / 0.5
    assert clip.prepare_images(torch.zeros(1, 3, 32, 32)).unique().tolist() == [-1]


def test_the_loss_is_open_clip_s(clip):
    import open_clip

    images, texts = clip.prepare_images(IMAGES), clip.tokenize(CAPTIONS)
    ours = contrastive_loss(clip.network, images, texts)
    theirs = open_clip.ClipLoss()(*clip.network(images, texts)[:3])
    torch.testing.assert_close(ours["loss"], theirs)
    assert ours["loss"].item() == pytest.approx(np.log(4), abs=0.8)  # untrained: close to guessing among four


def test_four_pairs_can_be_learned(clip):
    images, texts = clip.prepare_images(IMAGES), clip.tokenize(CAPTIONS)
    optimizer = torch.optim.AdamW(clip.network.parameters(), 3e-3)
    clip.network.train()
    for _ in range(40):
        losses = contrastive_loss(clip.network, images, texts)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    assert float(losses["loss"]) < 0.05
    assert float(losses["batch_accuracy"]) == 1
    assert clip.encode_images(IMAGES).matmul(clip.encode_texts(CAPTIONS).T).argmax(1).tolist() == [0, 1, 2, 3]


def test_the_softmax_never_gets_sharper_than_clip_s(clip):
    with torch.no_grad():
        clip.network.logit_scale.fill_(9.0)
    contrastive_loss(clip.network, clip.prepare_images(IMAGES), clip.tokenize(CAPTIONS))
    assert float(clip.network.logit_scale.exp()) == pytest.approx(100)


def test_saved_and_loaded_it_scores_the_same(clip, tmp_path):
    clip_id = save_clip(tmp_path / "clip", clip)
    loaded = load_clip(tmp_path / "clip", BpeTokenizer.load)
    assert loaded.id == clip_id
    torch.testing.assert_close(loaded.encode_images(IMAGES), clip.encode_images(IMAGES))
    torch.testing.assert_close(loaded.encode_texts(CAPTIONS), clip.encode_texts(CAPTIONS))


def test_a_clip_without_its_weights_or_tokenizer_is_an_error(clip, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="holds no clip checkpoint"):
        load_clip(tmp_path / "clip", BpeTokenizer.load)
    save_clip(tmp_path / "clip", clip)
    BpeTokenizer.train(["other words"], TokenizerConfig(vocab_size=300, max_text_tokens=12)).save(tmp_path / "clip" / "tokenizer")
    with pytest.raises(ValueError, match=r"is tokenizer \w+, but this CLIP was trained with \w+; train or import the CLIP again"):
        load_clip(tmp_path / "clip", BpeTokenizer.load)
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        load_clip(tmp_path / "clip", BpeTokenizer.load)


@pytest.fixture
def published(tmp_path):
    """A folder as people publish open_clip models, with its own size, mean and deviation."""
    import open_clip

    torch.manual_seed(1)
    vision = {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16}
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": vision,
        "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    network = open_clip.CLIP(**json.loads(json.dumps(model_cfg))).eval()
    folder = tmp_path / "published"
    folder.mkdir()
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.9, 0.8, 0.7]}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    return folder, network


def test_a_published_model_keeps_its_weights_preprocessing_and_tokenizer(published, tmp_path):
    import open_clip

    folder, network = published
    clip_id = save_clip(tmp_path / "clip", import_pretrained(f"local-dir:{folder}"))
    clip = load_clip(tmp_path / "clip", BpeTokenizer.load)
    assert clip.id == clip_id
    resized = F.interpolate(IMAGES, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    prepared = (resized - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.9, 0.8, 0.7])[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_images(IMAGES), network.encode_image(prepared, normalize=True))
        texts = network.encode_text(open_clip.SimpleTokenizer(context_length=20)(CAPTIONS), normalize=True)
    torch.testing.assert_close(clip.encode_texts(CAPTIONS), texts)


def test_a_published_model_without_weights_is_an_error_never_a_random_ranking(published):
    """open_clip itself only logs a warning and returns random weights."""
    folder, _ = published
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"clip\.pretrained='local-dir:.*': its weights could not be loaded"):
        import_pretrained(f"local-dir:{folder}")


def test_a_published_model_with_another_tokenizer_is_an_error(published):
    folder, _ = published
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["vocab_size"] = 2048
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"does not use open_clip's own tokenizer \(49408 ids\)"):
        import_pretrained(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("pretrained", "message"),
    [
        ("ViT-B-32", r"is not MODEL/TAG of open_clip"),
        ("ViT-Z-99/openai", r"is not MODEL/TAG of open_clip"),
        ("ViT-B-32/no_such_tag", r"ViT-B-32 has no weights 'no_such_tag'; choose one of openai"),
        ("local-dir:/nowhere", r"open_clip_config\.json is not a readable open_clip configuration"),
    ],
)
def test_names_that_mean_no_model_are_errors(pretrained, message):
    with pytest.raises(ValueError, match=message):
        import_pretrained(pretrained)


def test_embeddings_that_are_no_numbers_are_refused(clip):
    with torch.no_grad():
        clip.network.visual.proj.fill_(torch.nan)
        clip.network.text_projection.fill_(torch.nan)
    for encode in (lambda: clip.encode_images(IMAGES), lambda: clip.encode_texts(CAPTIONS)):
        with pytest.raises(ValueError, match=r"CLIP in training gave an embedding that is not a number .* train or import the CLIP again"):
            encode()
