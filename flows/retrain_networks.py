"""Flow: train networks anew on the pairs of today. Whether they take over is `networks.policy`'s decision."""

from typing import Any

from prefect import flow

from dalle_datasets.store.layout import Layout, open_data_root
from dalle_model.config.networks import ROLES
from dalle_model.config.tree import Config
from dalle_model.running.networks import history, num_pairs_now, settings_id
from dalle_model.running.registry import MADE_BY
from flows.runtime.artifacts import raise_codebook_alarm, show_training
from flows.runtime.deployed import announce, crash_without_server, no_catching_up
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.progress import note
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import inputs_of
from flows.score_pairs import score_pairs
from flows.tokenize_pairs import tokenize_pairs
from flows.train_transformer import train_transformer


@flow(name="retrain-networks", flow_run_name=run_name)
@crash_without_server
@no_catching_up
def retrain_networks(preset: Preset = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Train the roles of `networks.retrain` whose pairs have grown by `networks.retrain_growth` since their last training.

    Before the transformer, pairs that lack tokens or scores of the networks that are current by then get them.
    Returns the results of what was due.
    """
    config = config_from_parameters(preset, overrides)
    layout = open_data_root(config.paths.data_root)
    results: dict[str, Any] = {}
    for role in (role for role in ROLES if role in config.networks.retrain and is_due(layout, role, config)):
        if role == "transformer":
            results |= tokenize_pairs(preset, overrides)
            results |= score_pairs(preset, overrides)
            results |= train_transformer(preset, overrides)
            continue
        job = MADE_BY[role][0]
        results[job] = run_stage(job, config, inputs_of(job, config))
        if role == "dvae":
            raise_codebook_alarm(layout, results[job])
        catalogue(config, results[job])
        if role != "tokenizer":
            show_training(config, results[job])
    announce("transformer", preset, overrides)
    return results


def is_due(layout: Layout, role: str, config: Config) -> bool:
    """Whether the pairs have grown enough since a network was last trained for these settings; says so when they have not."""
    asked_by = settings_id(role, config)
    trained = [known for known in history(layout, role) if known.settings_id == asked_by]
    pairs_id, num_pairs = num_pairs_now(layout, config.source.name)
    if not config.networks.retrain_growth or not trained or num_pairs is None:
        return True
    last = trained[-1]
    num_then = num_pairs if last.pairs_id == pairs_id else last.num_pairs
    if not num_then or num_pairs - num_then >= config.networks.retrain_growth * num_then:
        return True
    note(
        f"{role}: {num_pairs:,} pairs, {num_pairs / num_then - 1:.1%} more than when {last.network_id} was trained; "
        f"trained anew from networks.retrain_growth={config.networks.retrain_growth:g} on"
    )
    return False
