"""Settings fail at once, with the dotted path, the rule and a suggestion."""

import dataclasses

import pytest

from dalle_datasets.store.identity import fingerprint, identity
from dalle_model.config.parsing import from_dict, to_dict
from dalle_model.config.presets import PRESETS, preset
from dalle_model.config.tree import Config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_a_round_trip(name: str) -> None:
    config = preset(name)
    assert from_dict(Config, to_dict(config)) == config
    assert config.preset == name


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("transformer.num_layer", 8, r"transformer.num_layer: no such setting; did you mean 'transformer.num_layers'\?"),
        ("transfomer.num_layers", 8, r"did you mean 'transformer.num_layers'\?"),
        ("transformer", 8, "transformer is a group of settings; set one of its fields"),
        ("transformer.attention", "dense", "'dense' is not one of 'sparse', 'full'"),
        ("transformer.num_layers", "four", "'four' is not a whole number"),
        ("transformer.num_layers", True, "True is not of type int"),
        ("transformer.d_model", 130, r"transformer\.d_model=130 .*num_heads=6; choose a multiple of 6"),
        ("sampling.temperature", "0", "sampling.temperature=0.0 must be positive"),
        ("train_dvae.random_flip", "maybe", "'maybe' is not true or false"),
        ("dvae.downsample", 5, "dvae.downsample=5 must be 4, 8 or 16"),
        ("transformer.conv_kernel_size", 31, "wider than the token grid"),
        ("sampling.guidance", 3, "set train_transformer.caption_dropout"),
        ("clip.image_size", 64, "larger than dvae.image_size"),
    ],
)
def test_a_bad_setting_is_explained(setting: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preset("demo", {setting: value})


def test_text_as_typed_on_a_command_line_becomes_typed_values() -> None:
    config = preset("demo", {"seed": "3", "train_dvae.min_log_scale": "none", "filter.languages": "en,de", "sampling.top_p": "0.9"})
    assert (config.seed, config.train_dvae.min_log_scale, config.filter.languages, config.sampling.top_p) == (3, None, ("en", "de"), 0.9)


def test_an_unknown_preset_is_suggested() -> None:
    with pytest.raises(ValueError, match=r"preset 'dmeo' does not exist; did you mean 'demo'\?"):
        preset("dmeo")


def test_the_data_root_comes_from_the_environment_unless_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DALLE_DATA_ROOT", "elsewhere")
    assert preset("demo").paths.data_root == "elsewhere"
    assert preset("demo", {"paths.data_root": "here"}).paths.data_root == "here"


def test_the_paper_preset_has_the_papers_numbers() -> None:
    config = preset("dalle-12b")
    assert (config.transformer.num_layers, config.transformer.num_heads, config.transformer.d_head) == (64, 62, 64)
    assert config.stream.num_positions == 1_280
    assert (config.stream.text_vocab_size, config.stream.codebook_size) == (16_384, 8_192)
    assert config.train_transformer.text_loss_weight == 1 / 8


def test_fingerprints_depend_on_values_and_nothing_else() -> None:
    demo = preset("demo")
    assert fingerprint(demo) == fingerprint(preset("demo"))
    assert fingerprint(demo) != fingerprint(dataclasses.replace(demo, seed=1))


def test_only_web_pages_can_be_read() -> None:
    with pytest.raises(ValueError, match="only http:// and https:// pages can be read"):
        preset("dalle-12b", {"source.start_urls": "ftp://example.org"})


def test_a_setting_that_came_later_leaves_ids_alone_until_it_is_used() -> None:
    settings = preset("demo").train_transformer
    assert "sharding" in to_dict(settings)
    assert not {"sharding", "powersgd_rank", "skip_spikes"} & set(identity(settings))
    assert identity(dataclasses.replace(settings, sharding="full"))["sharding"] == "full"
    assert "clip_norm" in identity(dataclasses.replace(settings, clip_norm=0.0))
