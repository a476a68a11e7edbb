"""Settings as a file: what a data root remembers, what is read back, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from dalle_model.config.presets import PRESETS, preset
from dalle_model.config.settings_file import overrides_of, read_settings, render_settings, write_settings
from flows.cli.demo import remember_settings
from flows.cli.main import main
from flows.runtime.parameters import config_from_parameters, find_config


def dalle(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.mark.parametrize("name", PRESETS)
def test_a_file_is_read_back_as_it_was_written(name, tmp_path):
    config = preset(
        name, {"source.kind": "webdatasets", "source.inputs": ['a "b".tar', "ü\n\x7f"], "train_dvae.min_log_scale": None, "seed": 7}
    )
    write_settings(tmp_path / "settings.toml", config)
    assert read_settings(tmp_path / "settings.toml") == replace(config, paths=preset(name).paths)


def test_shown_settings_are_read_back(tmp_path, capsys):
    changed = ("--set", "transformer.num_layers=3", "--set", "train_dvae.min_log_scale=none", "--set", "filter.languages=")
    assert dalle("config", "show", "--preset", "small", *changed) == 0
    (tmp_path / "mine.toml").write_text(capsys.readouterr().out)
    expected = preset("small", {"transformer.num_layers": 3, "train_dvae.min_log_scale": None, "filter.languages": ()})
    assert find_config(config_file=tmp_path / "mine.toml") == expected
    assert dalle("config", "show", "--preset", "small", "--set", "transformer.num_layers=3", "--section", "transformer") == 0
    (tmp_path / "part.toml").write_text(capsys.readouterr().out)
    assert find_config(config_file=tmp_path / "part.toml") == preset("small", {"transformer.num_layers": 3})


def test_a_data_root_remembers_and_set_wins(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DALLE_DATA_ROOT", str(tmp_path / "root"))
    assert find_config() == preset("demo")
    remember_settings(preset("small", {"transformer.num_layers": 3, "source.kind": "webdatasets", "source.inputs": "a,b"}))
    assert capsys.readouterr().err == ""
    assert find_config() == preset("small", {"transformer.num_layers": 3, "source.kind": "webdatasets", "source.inputs": "a,b"})
    assert find_config(overrides={"transformer.num_layers": "5"}).transformer.num_layers == 5
    assert find_config("demo") == preset("demo")
    remember_settings(find_config(overrides={"transformer.num_layers": "5"}))
    assert "settings changed since the last run: transformer.num_layers: 3 -> 5" in capsys.readouterr().err
    assert find_config().transformer.num_layers == 5
    assert find_config().source.inputs == ("a", "b")


def test_a_flow_gets_what_the_file_says(tmp_path):
    config = preset(
        "small", {"transformer.num_layers": 3, "source.kind": "webdatasets", "source.inputs": "a,b", "paths.data_root": str(tmp_path)}
    )
    assert config_from_parameters(config.preset, overrides_of(config)) == config


def test_a_moved_data_root_keeps_its_settings(tmp_path, monkeypatch):
    monkeypatch.delenv("DALLE_DATA_ROOT", raising=False)
    remember_settings(preset("small", {"paths.data_root": str(tmp_path / "here")}))
    (tmp_path / "here").rename(tmp_path / "there")
    assert find_config(overrides={"paths.data_root": str(tmp_path / "there")}).preset == "small"
    (tmp_path / "there" / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "there")  # the root one stands in
    config = find_config()
    assert (config.preset, Path(config.paths.data_root).resolve()) == ("small", (tmp_path / "there").resolve())


def test_another_file_is_named_with_config(tmp_path, monkeypatch):
    monkeypatch.setenv("DALLE_DATA_ROOT", str(tmp_path / "root"))
    remember_settings(preset("small"))
    write_settings(tmp_path / "other.toml", preset("medium"))
    assert find_config(config_file=tmp_path / "other.toml") == preset("medium")
    assert dalle("config", "diff", str(tmp_path / "other.toml"), "medium") == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 2", "version = 2 of the settings file, and this open-dalle reads up to 1; update open-dalle"),
        ("[transformer]\nnum_layer = 3", "transformer.num_layer: no such setting; did you mean 'transformer.num_layers'?"),
        ("[transformers]\nnum_layers = 3", "transformers.num_layers: no such setting; did you mean 'transformer.num_layers'?"),
        ("[transformer]\nnum_layers = true", "transformer.num_layers: True is not of type int"),
        ('preset = "smal"', "preset 'smal' does not exist; did you mean 'small'?"),
        ("transformer = 3", "transformer is a group of settings; set one of its fields"),
        ("num_layers 3", "not a readable settings file"),
        ("\udce4", "not a readable settings file"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(text, message, tmp_path, capsys):
    (tmp_path / "settings.toml").write_bytes(text.encode(errors="surrogateescape"))
    for arguments in (["--config", str(tmp_path / "settings.toml")], ["--set", f"paths.data_root={tmp_path}"]):
        assert dalle("status", *arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"dalle: {tmp_path / 'settings.toml'}: ")
        assert message in said


def test_what_cannot_be_meant_is_refused(tmp_path, capsys):
    assert dalle("status", "--config", str(tmp_path / "none.toml")) == 2
    assert "none.toml: the settings file cannot be read (No such file or directory); correct the path" in capsys.readouterr().err
    assert dalle("status", "--config", str(tmp_path / "none.toml"), "--preset", "small") == 2
    assert "both say where settings start" in capsys.readouterr().err
    with pytest.raises(ValueError, match="section 'transfomer' does not exist; choose one of source, download"):
        render_settings(preset("demo"), "transfomer")
