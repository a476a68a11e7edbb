"""`--from`: a model folder, or a run of the data root, as the settings of a warm start."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalle_datasets.store.layout import RUN_RESULT, Layout, open_data_root
from dalle_model.config.networks import ROLES
from dalle_model.config.parsing import with_overrides
from dalle_model.config.settings_file import values_of
from dalle_model.config.tree import Config
from dalle_model.running.networks import inputs_of_run
from dalle_model.running.starts import find_weights, networks_in
from flows.runtime.run import catalogue, execute_job

if TYPE_CHECKING:
    from dalle_model.model_folder import ModelFolder

NONE = "none"
"""Instead of a folder: begin from random weights again."""


def import_networks(model: "ModelFolder", config: Config) -> dict[str, Any]:
    """Copy the networks of a model folder to the data root; returns the result of the import. Nothing becomes current by that.

    Raises `JobFailed` when a part is damaged, swapped or does not belong to the others.
    """
    return execute_job("import_model", config, {"folder": str(model.folder), "model_id": model.id})


def start_settings(where: str, config: Config, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that begin from a model folder, which is brought into the data root, or from a run there: ids, sizes, what is frozen.

    A run brings the vocabularies that it was trained with along. `given` are settings of the command line, which win; `config` need not
    hold them yet. Raises `ValueError` when `where` is neither, or a folder with a part missing, and as `import_networks` does.
    """
    if where == NONE:
        return {f"start.{role}": "" for role in ROLES}
    layout = open_data_root(config.paths.data_root)
    if (folder := Path(where).expanduser()).is_dir():
        from dalle_model.model_folder import read_model_folder  # imports torch

        made = import_networks(read_model_folder(folder.absolute()), config)
        networks = networks_in(made)
    else:
        made, networks = {"run_id": where}, _networks_of_run(layout, where)  # `dalle import-weights` leaves the catalog to others
    catalogue(config, made)
    about = {role: json.loads((layout.root / path / "config.json").read_text()) for role, (_, path) in networks.items()}
    frozen = ["dvae"] + (["clip"] if _is_published(about.get("clip")) else [])
    settings: dict[str, Any] = {f"start.{role}": networks[role][0] if role in networks else "" for role in ROLES}
    settings |= {"start.frozen": frozen, "start.new_tokens": "refuse", "train_dvae.imported": ""}
    settings |= {**({"clip.pretrained": ""} if "clip" in networks else {}), **sizes_of(about)}
    begun = with_overrides(config, {**settings, **given})
    if begun.start.new_tokens == "add":
        old = int(about["tokenizer"]["vocab_size"])
        settings["tokenizer.vocab_size"] = min(65_536, old + max(256, old // 4))
    if "dvae" in networks and not begun.start.keeps("dvae"):
        # It is past the beginning of these schedules.
        end = begun.train_dvae.gumbel_temperature_end
        settings |= {"train_dvae.gumbel_temperature_start": end, "train_dvae.kl_warmup_steps": 0}
    return values_of(with_overrides(config, {**settings, **given}), settings)


def describe_start(config: Config) -> str:
    """What trainings begin from, and what becomes of it."""
    named = []
    for role in ROLES:
        if network_id := getattr(config.start, role):
            how = "as it is" if config.start.keeps(role) else "with new tokens" if role == "tokenizer" else "trained on"
            named.append(f"{role} {network_id} ({how})")
    return f"begins from {', '.join(named)}" if named else ""


def sizes_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that networks were made with, from the config.json of each: what a training that begins from them must have."""
    sizes: dict[str, Any] = {}
    if tokenizer := about.get("tokenizer"):
        sizes |= {f"tokenizer.{name}": tokenizer[name] for name in ("vocab_size", "max_text_tokens", "lowercase")}
    if dvae := about.get("dvae"):
        sizes |= {f"dvae.{name}": value for name, value in dvae["config"]["dvae"].items()}
    if (clip := about.get("clip")) and not _is_published(clip):
        cfg = clip["config"]["model_cfg"]
        vision, text = cfg["vision_cfg"], cfg["text_cfg"]
        sizes |= {f"clip.{name}": vision[name] for name in ("image_size", "patch_size", "width", "head_width")}
        sizes |= {"clip.embed_width": cfg["embed_dim"], "clip.vision_layers": vision["layers"], "clip.text_layers": text["layers"]}
    if transformer := about.get("transformer"):
        sizes |= {f"transformer.{name}": value for name, value in transformer["config"]["transformer"].items()}
    return sizes


def _is_published(clip: Mapping[str, Any] | None) -> bool:
    """Whether a CLIP is one of open_clip's, which reads captions with a vocabulary of its own."""
    return clip is not None and clip["config"].get("tokenizer_id") == "open_clip"


def _networks_of_run(layout: Layout, run_id: str) -> dict[str, tuple[str, str]]:
    """Role -> (id, path) of what a run made, and of the vocabularies that it was trained with."""
    run_dir = layout.run(run_id)
    if Path(run_id).name != run_id or not (run_dir / RUN_RESULT).exists():
        raise ValueError(
            f"--from {run_id}: neither a model folder nor a finished run of {layout.root}; give a folder that `dalle export` wrote, "
            "or the id of a training or import that `dalle query runs` lists"
        )
    networks = networks_in(json.loads((run_dir / RUN_RESULT).read_text()))
    if not networks:
        raise ValueError(f"--from {run_id}: this run made no network; give a training, an import, or a model folder")
    inputs = inputs_of_run(run_dir)
    for role in ("tokenizer", "dvae") if "transformer" in networks else ("tokenizer",) if "clip" in networks else ():
        if role not in networks and (network_id := inputs.get(f"{role}_id")):
            networks[role] = (network_id, find_weights(layout, role, network_id))
    return networks
