"""Flow: the two vocabularies, one for captions (BPE) and one for pictures (the discrete VAE's codebook)."""

from typing import Any

from prefect import flow

from dalle_datasets.store.layout import open_data_root
from flows.runtime.artifacts import raise_codebook_alarm, show_training
from flows.runtime.deployed import crash_without_server
from flows.runtime.flow_parameters import Overrides, Preset
from flows.runtime.names import run_name
from flows.runtime.parameters import config_from_parameters
from flows.runtime.tasks import catalogue, run_stage
from flows.runtime.upstream import inputs_of


@flow(name="train-tokenizers", flow_run_name=run_name)
@crash_without_server
def train_tokenizers(preset: Preset = "demo", overrides: Overrides | None = None) -> dict[str, Any]:
    """Train BPE and dVAE on the collected pairs. Returns both results."""
    config = config_from_parameters(preset, overrides)
    bpe = run_stage("train_bpe", config, inputs_of("train_bpe", config))
    dvae = run_stage("train_dvae", config, inputs_of("train_dvae", config))
    raise_codebook_alarm(open_data_root(config.paths.data_root), dvae)
    catalogue(config, bpe, dvae)
    show_training(config, dvae)
    return {"train_bpe": bpe, "train_dvae": dvae}
