"""`dalle networks`: what serves is listed, a switch is one command, and a wrong one is a sentence."""

import pytest

from dalle_datasets.store.layout import Layout
from dalle_model.config.presets import preset
from dalle_model.running.networks import register
from dalle_model.running.run_dir import prepare
from flows.cli.main import main


@pytest.fixture
def layout(tmp_path):
    """A data root with a dVAE of the demo's settings and one that was trained for longer."""
    for network_id, max_steps in (("vae0", 500), ("vae1", 900)):
        config = preset("demo", {"paths.data_root": str(tmp_path), "train_dvae.max_steps": max_steps})
        run_dir = prepare("train_dvae", config, {"pairs": "pairs/x", "pairs_id": "pairs0"})
        (run_dir / "dvae").mkdir()
        made = {"dvae_id": network_id, "checkpoint": f"runs/{run_dir.name}/dvae", "psnr": 20.5}
        register(Layout(tmp_path), "train_dvae", config, {"pairs_id": "pairs0"}, run_dir.name, made)
    return Layout(tmp_path)


def dalle(layout, *words):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--set", f"paths.data_root={layout.root}"])
    return ended.value.code


def listed(layout, capsys):
    assert dalle(layout, "networks") == 0
    return {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.split()[0] == "dvae"}


def test_networks_are_listed_and_switched(layout, capsys):
    before = listed(layout, capsys)
    assert "current" in before["vae0"]
    assert "psnr 20.5" in before["vae0"]
    assert "of other settings" in before["vae1"]
    assert dalle(layout, "networks", "use", "dvae", "vae1") == 0
    assert capsys.readouterr().out.startswith("dvae vae1 is current since 20")
    after = listed(layout, capsys)
    assert "current" in after["vae1"]
    assert "chosen by hand" in after["vae1"]
    assert "current" not in after["vae0"]


def test_an_unknown_network_and_an_unknown_role_are_sentences(layout, capsys):
    assert dalle(layout, "networks", "use", "dvae", "vae9") == 2
    assert "dvae vae9 is not registered in" in capsys.readouterr().err
    assert dalle(layout, "networks", "use", "vae", "vae0") == 2
    assert "role 'vae' does not exist; choose one of tokenizer, dvae, clip, transformer" in capsys.readouterr().err


def test_a_network_of_one_command_is_looked_up(layout, capsys):
    assert dalle(layout, "run", "tokenize_pairs", "--with", "dvae") == 2
    assert "networks.use has 'dvae'; say ROLE=ID" in capsys.readouterr().err
