"""A trained model as one folder: what drawing needs, with hashes, and nothing of the data root it was made in.

model.json        what the folder is, ids of the networks, sampling settings, SHA-256 of every file below
README.md         the model card; people may edit it
tokenizer/  dvae/  transformer/  clip/     each as `dalle_model.weights` and `BpeTokenizer` write it
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any, Self

import torch
from torch import nn

from dalle_datasets.store.identity import fingerprint
from dalle_datasets.store.ids import file_sha256
from dalle_model.clip import network_of
from dalle_model.config.generation import SamplingConfig
from dalle_model.config.model import DVAEConfig, StreamShape, TransformerConfig
from dalle_model.config.parsing import from_dict, to_dict
from dalle_model.dvae import DVAE
from dalle_model.generator import NETWORKS, Generator, Picture, load_networks
from dalle_model.training.fitting import check_shapes
from dalle_model.transformer import DALLETransformer
from dalle_model.weights import check_finite, load_weights, save_weights

VERSION = 1
"""Edition of the folder's form; a higher one is refused."""
MAX_TEXT = 2_000
"""Characters of a name or licence in a record of what was seen."""
MODEL, CARD = "model.json", "README.md"
SHIPPED = Path(__file__).parent / "shipped"
"""Model folders that come with the package; each is known by its folder's name."""
DEFAULT = "emoji"
"""The one that draws where there is neither a data root nor a folder."""
HALVED = ("transformer", "clip")
"""Networks that `halve` rounds. The dVAE stays as it is: its id says what image tokens mean."""


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What model.json says, once its files were found to be what it lists."""

    folder: Path
    ids: Mapping[str, str]
    """"dvae_id" and so on for each of `NETWORKS`."""
    sampling: SamplingConfig
    seed: int
    files: Mapping[str, str]
    """Path relative to the folder -> SHA-256."""
    seen: Sequence[Mapping[str, Any]] = ()
    """What its networks and those before them learned from, as `dalle export` found it; empty in older folders."""

    @property
    def id(self) -> str:
        """12 hex digits of the networks."""
        return fingerprint(dict(self.ids))

    def network(self, kind: str) -> Path:
        """The folder of one of `NETWORKS`."""
        return self.folder / kind


class DALLE:
    """A model from a folder, ready to draw."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a model folder, as `dalle export` writes it, or a model that comes with the package, by its name; check every file against
        its hash.

        Raises `ValueError` when it is none, when a part is missing, damaged, swapped, or does not belong to the others.
        """
        return cls(open_model(read_model_folder(find_model(folder))))

    def generate(
        self,
        prompt: str,
        num_images: int | None = None,
        *,
        seed: int | None = None,
        temperature: float | None = None,
        complete: str | Path | None = None,
    ) -> list[Picture]:
        """Candidates for a prompt, the best by CLIP first; as many, and with the seed and temperature, as the model was exported with
        if not given. Equal arguments give equal pixels. `complete` is a picture file whose upper half (`sampling.image_prompt_share`)
        all candidates keep.

        Raises `ValueError` for a prompt without text or longer than the model reads, for a picture that cannot be decoded, and for
        numbers out of range; `OSError` for a file that cannot be read.
        """
        picture = None if complete is None else Path(complete).expanduser().read_bytes()
        generator = self._generator
        if temperature is not None:
            generator = Generator(generator.networks, replace(generator.sampling, temperature=temperature), generator.seed)
        return generator.draw(prompt, num_images, seed, upper_rows_of=picture)


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{MODEL}"))


def find_model(where: str | Path) -> Path:
    """The folder of a model that is given by its path or, where no such folder is, by the name of one that comes with the package."""
    folder = Path(where).expanduser()
    is_name = len(folder.parts) == 1 and not folder.exists()
    return SHIPPED / folder if is_name and str(where) in shipped_models() else folder


def open_model(model: ModelFolder, sampling: SamplingConfig | None = None, seed: int | None = None) -> Generator:
    """The networks of a checked folder, ready to draw; with its own sampling settings and seed if not given.

    Raises `ValueError` when the networks do not belong together.
    """
    sampling = sampling or model.sampling
    networks = load_networks({kind: model.network(kind) for kind in NETWORKS}, model.ids, sampling.precision)
    return Generator(networks, sampling, model.seed if seed is None else seed)


def check_model(model: ModelFolder) -> None:
    """Raises `ValueError` unless every network has the weights that its configuration speaks of, all of them numbers, and they belong
    together. Memory is that of the weights, whatever sizes a config.json claims."""
    for kind in ("dvae", "clip", "transformer"):
        about, weights, _ = load_weights(model.network(kind), kind)
        remedy = "its config.json was changed or exchanged: copy or export the model again"
        check_shapes(_shapes(kind, about, model.network(kind)), {name: w.shape for name, w in weights.items()}, model.network(kind), remedy)
        check_finite(weights, model.network(kind))
    open_model(model)


def _shapes(kind: str, about: Mapping[str, Any], where: Path) -> dict[str, torch.Size]:
    """The shapes of a network's weights, without making any."""
    try:
        with torch.device("meta"):
            if kind == "dvae":
                network: nn.Module = DVAE(from_dict(DVAEConfig, about["dvae"]))
            elif kind == "clip":
                network = network_of(about["model_cfg"])
            else:
                network = DALLETransformer(from_dict(TransformerConfig, about["transformer"]), from_dict(StreamShape, about["stream"]))
    except Exception as error:  # whatever a configuration from elsewhere makes torch or open_clip say
        raise ValueError(f"{where}/config.json describes no {kind} ({error}); copy or export the model again") from error
    return {name: value.shape for name, value in network.state_dict().items()}


def halve(networks: Mapping[str, Path], ids: Mapping[str, str], folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Round the weights of `HALVED` to bf16, in copies under `folder`: returns folders and ids of all networks, new ones where rounded.

    They are other networks, and may draw another picture; they compute in float32 as before.
    """
    halved, new_ids = dict(networks), dict(ids)
    for kind in HALVED:
        config, weights, _ = load_weights(networks[kind], kind)
        rounded = {name: value.bfloat16() if value.is_floating_point() else value for name, value in weights.items()}
        halved[kind] = folder / kind
        new_ids[f"{kind}_id"] = save_weights(halved[kind], kind, rounded, config)
        for path in networks[kind].iterdir():  # CLIP's tokenizer
            if path.is_dir():
                shutil.copytree(path, halved[kind] / path.name)
    return halved, new_ids


def write_model_folder(
    folder: Path,
    networks: Mapping[str, Path],
    ids: Mapping[str, str],
    sampling: SamplingConfig,
    seed: int,
    card: str,
    seen: Sequence[Mapping[str, Any]] = (),
) -> ModelFolder:
    """Copy networks (kind -> folder) to a model folder with their card. It appears whole; a model folder that was there is replaced.

    Raises `ValueError` when something else lies there, or when the networks do not belong together.
    """
    if folder.exists() and not (folder / MODEL).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is no model folder; nothing is written over it: choose a new folder")
    partial, old = (folder.with_name(f"{folder.name}.{ending}") for ending in ("partial", "old"))
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for kind in NETWORKS:
        shutil.copytree(networks[kind], partial / kind)
    listed = [path for kind in NETWORKS for path in sorted((partial / kind).rglob("*")) if path.is_file()]
    about = {
        "kind": "open-dalle model",
        "version": VERSION,
        "open_dalle": metadata.version("open-dalle"),
        "ids": {f"{kind}_id": ids[f"{kind}_id"] for kind in NETWORKS},
        "sampling": to_dict(sampling),
        "seed": seed,
        "seen": [dict(record) for record in seen],
        "files": {path.relative_to(partial).as_posix(): file_sha256(path) for path in listed},
    }
    (partial / MODEL).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (partial / CARD).write_text(card, encoding="utf-8")
    open_model(read_model_folder(partial))  # rather refused here than on the machine it is carried to
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return read_model_folder(folder)


def read_model_folder(folder: Path) -> ModelFolder:
    """Check every file of a model folder against model.json. Executes nothing that is in them.

    Raises `ValueError` when it is no model folder, of a newer edition, or when a part is missing, damaged or swapped.
    """
    path = folder / MODEL
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        known = f", and {', '.join(shipped_models())} comes with open-dalle" if shipped_models() else ""
        raise ValueError(
            f"{folder} is no model folder ({MODEL} is missing); `dalle export FOLDER` makes one from a data root{known}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); copy or export the model again") from None
    if not isinstance(about, dict) or about.get("kind") != "open-dalle model":
        raise ValueError(f"{path} does not describe a model of open-dalle; `dalle export FOLDER` makes such a folder")
    if not isinstance(about.get("version"), int) or about["version"] > VERSION:
        raise ValueError(
            f"{path}: version {about.get('version')!r} of the folder, and this open-dalle reads up to {VERSION}; update open-dalle"
        )
    try:
        files: dict[str, Any] = dict(about["files"])
        ids = {f"{kind}_id": str(about["ids"][f"{kind}_id"]) for kind in NETWORKS}
        sampling, seed = from_dict(SamplingConfig, about["sampling"], "sampling"), int(about["seed"])
        seen = [_check_record(record) for record in about.get("seen", [])]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} was changed by hand or is incomplete ({error}); copy or export the model again") from None
    for kind in NETWORKS:
        if not any(PurePosixPath(name).parts[:1] == (kind,) for name in files):
            raise ValueError(f"{path} lists no file of the {kind}; copy or export the model again")
    for name, sha256 in files.items():
        _check_file(folder, name, sha256)
    return ModelFolder(folder, ids, sampling, seed, files, seen)


def _check_record(record: Any) -> dict[str, Any]:
    """A record of what a network learned from. Raises `ValueError` for anything but short texts, counts and lists of these."""

    def is_text(value: Any) -> bool:
        return isinstance(value, str) and len(value) <= MAX_TEXT

    def is_count(value: Any) -> bool:
        return value is None or (isinstance(value, int) and 0 <= value < 2**62)

    texts = ("role", "network_id", "run_id", "data_id")
    is_good = (
        isinstance(record, dict)
        and set(record) == {*texts, "num_pairs", "sources", "licences", "of"}
        and all(map(is_text, (*(record[name] for name in texts), *record["sources"], *record["of"])))
        and is_count(record["num_pairs"])
        and all(
            set(row) == {"source", "licence", "num_pairs", "num_pages"}
            and is_text(row["source"])
            and is_text(row["licence"] or "")
            and is_count(row["num_pairs"])
            and is_count(row["num_pages"])
            for row in record["licences"]
        )
    )
    if not is_good:
        raise ValueError("a record of what it has seen is none")
    return dict(record)


def _check_file(folder: Path, name: str, sha256: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or parts[0] not in NETWORKS or ".." in parts:
        raise ValueError(f"{folder / MODEL} lists {name!r}, which is no part of a model; do not use this folder")
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} is missing; copy or export the model again")
    if file_sha256(path) != sha256:
        raise ValueError(f"{path} is not the file that {MODEL} lists: it is damaged or from another model; copy or export the model again")
