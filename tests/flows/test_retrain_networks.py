"""When a network is due for training again: by hand always, on a schedule once the pairs have grown by a share."""

import pytest

from dalle_datasets.store.layout import Layout
from dalle_datasets.store.manifest import commit, invalidate
from dalle_model.config.presets import preset
from dalle_model.running.networks import register
from dalle_model.running.run_dir import prepare
from flows.retrain_networks import is_due


def collect(layout, pairs_id, num_pairs):
    folder = layout.pairs("emoji_scenes")
    invalidate(folder)
    commit(folder, pairs_id, {"pairs_id": pairs_id, "num_pairs": num_pairs})


def train(config, layout, pairs_id):
    inputs = {"pairs": "pairs/emoji_scenes", "pairs_id": pairs_id}
    run_dir = prepare("train_dvae", config, inputs)
    register(layout, "train_dvae", config, inputs, run_dir.name, {"dvae_id": f"vae-{pairs_id}", "checkpoint": f"runs/{run_dir.name}/dvae"})


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path)


def settings(layout, **overrides):
    return preset("demo", {"paths.data_root": str(layout.root), **{name.replace("__", "."): value for name, value in overrides.items()}})


def test_by_hand_it_is_always_due(layout):
    collect(layout, "pairs0", 100)
    train(settings(layout), layout, "pairs0")
    assert is_due(layout, "dvae", settings(layout))


def test_on_a_schedule_it_is_due_once_the_pairs_have_grown(layout):
    config = settings(layout, networks__retrain_growth=0.2)
    collect(layout, "pairs0", 100)
    assert is_due(layout, "dvae", config), "the first"
    train(config, layout, "pairs0")
    assert not is_due(layout, "dvae", config)
    collect(layout, "pairs1", 119)
    assert not is_due(layout, "dvae", config)
    assert is_due(layout, "dvae", settings(layout, networks__retrain_growth=0.2, train_dvae__max_steps=7)), "none of these settings yet"
    collect(layout, "pairs2", 120)
    assert is_due(layout, "dvae", config)


def test_a_network_that_did_not_take_over_is_not_trained_again_every_night(layout):
    config = settings(layout, networks__retrain_growth=0.2, networks__policy="manual")
    collect(layout, "pairs0", 100)
    train(config, layout, "pairs0")
    collect(layout, "pairs1", 150)
    train(config, layout, "pairs1")
    collect(layout, "pairs2", 160)
    assert not is_due(layout, "dvae", config)


def test_pairs_of_an_unknown_number_count_as_grown(layout):
    config = settings(layout, networks__retrain_growth=0.2)
    train(config, layout, "pairs0")
    collect(layout, "pairs1", 100)
    assert is_due(layout, "dvae", config)
