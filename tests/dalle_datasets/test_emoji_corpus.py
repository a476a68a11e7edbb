"""The example corpus of emoji: its rules for names and captions, and settings that are read."""

import importlib.util

import pytest

from dalle_datasets.catalog.sql_files import list_sql, sql_root
from dalle_model.config.settings_file import read_settings

EXAMPLE = sql_root().parent / "examples" / "emoji_styles"


@pytest.fixture(scope="module")
def build_corpus():
    spec = importlib.util.spec_from_file_location("build_corpus", EXAMPLE / "build_corpus.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_gesture_keeps_one_skin_tone_and_things_are_kept(build_corpus):
    tones = [f"{gesture} {tone} skin tone" for gesture in ("ok hand", "waving hand") for tone in build_corpus.TONES]
    assert [sum(map(build_corpus.is_chosen_tone, some)) for some in (tones[:5], tones[5:])] == [1, 1]
    assert build_corpus.is_chosen_tone("red panda")
    assert not build_corpus.is_chosen_tone("handshake dark skin tone light skin tone")


def test_captions_name_the_style_in_several_phrasings(build_corpus):
    captions = [build_corpus.caption_of(name, "3d") for name in ("red panda", "owl", "grapes", *(f"thing {i}" for i in range(40)))]
    assert all("3d style" in caption for caption in captions)
    assert len({caption.replace(f"thing {i - 3}", "X") for i, caption in enumerate(captions) if i >= 3}) == 4
    assert build_corpus.caption_of("owl", "3d") in ("an owl, 3d style", "owl, 3d style", "owl in 3d style", "3d style owl")
    assert not any(caption.startswith(("a grapes", "an grapes")) for caption in captions)


def test_a_package_that_is_not_the_one_that_was_used_is_refused(build_corpus, tmp_path):
    (tmp_path / "iconify-json-noto-1.2.9.tgz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"noto-1\.2\.9\.tgz has integrity sha512-.*, expected sha512-DQiu.*; delete it and run again"):
        build_corpus.fetch("noto", *build_corpus.PACKS["noto"][:2], tmp_path)


def test_the_settings_are_read_and_name_a_recipe():
    config = read_settings(EXAMPLE / "settings.toml")
    assert config.catalog.training_set in {file.name for file in list_sql("training_sets")}
    assert (config.dvae.image_grid_size, config.dvae.codebook_init, config.train_transformer.keep_weights) == (16, "fixed_patches", "best")
