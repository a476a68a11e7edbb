"""Registry of networks: which one serves in each role of a data root, since when and why.

A run's fingerprint says what a network was made from; which of them tokenises, scores and draws today is a decision. It is kept for
the settings that ask for a network (`settings_id`): two presets, or two sources, in one data root never get each other's. Trainings
register what they made; the first of its settings becomes current, later ones by `networks.policy` or by hand.

    networks/<role>.jsonl     one `Registration` a line, oldest first; the last one with `is_current` decides
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dalle_datasets.store.identity import fingerprint, identity
from dalle_datasets.store.layout import RUN_CONFIG, Layout
from dalle_datasets.store.locks import held
from dalle_datasets.store.manifest import MANIFEST, result_of
from dalle_datasets.store.parquet import atomic_path
from dalle_model.config.networks import METRICS, ROLES, NetworksConfig
from dalle_model.config.parsing import from_dict
from dalle_model.config.tree import Config
from dalle_model.running.registry import MADE_BY, find_job

SHAPES = {"tokenizer": ("tokenizer",), "dvae": ("dvae",), "clip": ("clip",), "transformer": ("tokenizer", "dvae", "transformer")}
"""Role -> sections of the configuration in which a network must agree with the settings that it serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A network, and whether it became current at that moment."""

    at: str
    """UTC, ISO 8601."""
    settings_id: str
    network_id: str
    run_id: str
    path: str
    """Relative to the data root."""
    is_current: bool
    why: str
    pairs_id: str
    """Pairs that it learned from; empty if unknown."""
    num_pairs: int | None
    metrics: dict[str, float]
    """Results that a policy may compare."""


def settings_id(role: str, config: Config) -> str:
    """Fingerprint of the settings that ask for a network: those of its training and of what that reads, and the source.

    Pairs do not count, nor editions of the code: a network serves on when either has changed.
    """
    job = find_job(MADE_BY[role][0])
    sections = {name: identity(getattr(config, name)) for name in job.sections}
    reads = {kind: settings_id(kind, config) for kind in ROLES if kind in job.reads}
    if "training_set" in job.reads:
        reads["clip"] = settings_id("clip", config)
        chosen = ("training_set", "min_clip_score_quantile", "max_nsfw_score", "max_watermark_score")
        sections["catalog"] = {name: getattr(config.catalog, name) for name in chosen}
    begun = config.start.of(role)
    return fingerprint(role, config.seed, config.source.name, sections, reads, *([begun] if begun else []))


def role_of(job: str) -> str | None:
    """The role whose networks a job trains; None for other jobs."""
    return next((kind for kind in find_job(job).makes if kind in ROLES and MADE_BY[kind][0] == job), None)


def history(layout: Layout, role: str) -> list[Registration]:
    """All registrations of a role, oldest first; of a data root that has no registry yet, its finished trainings.

    Raises `ValueError` for an unknown role or a broken file.
    """
    if role not in ROLES:
        raise ValueError(f"role {role!r} does not exist; choose one of {', '.join(ROLES)}")
    path = layout.networks(role)
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return list(_finished_trainings(layout, role))
    try:
        return [Registration(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove the bad line, or the file to start from the finished trainings") from error


def current(layout: Layout, role: str, config: Config) -> Registration | None:
    """The network that serves a role for these settings: the one that `networks.use` names, else the current one.

    None when there is none yet. Raises `ValueError` when `networks.use` names an unknown network or one of another shape.
    """
    registered = history(layout, role)
    for chosen, network_id in config.networks.named():
        if chosen == role:
            return _named(layout, role, registered, network_id, config)
    return serving(registered, role, config)


def serving(registered: Sequence[Registration], role: str, config: Config) -> Registration | None:
    """The registration of a role's history that decides for these settings; None when there is none."""
    asked_by = settings_id(role, config)
    return next((known for known in reversed(registered) if known.settings_id == asked_by and known.is_current), None)


def register(layout: Layout, job: str, config: Config, inputs: Mapping[str, str], run_id: str, made: Mapping[str, Any]) -> None:
    """Register the network that a training made, if it made one, and let the policy decide whether it serves from now on.

    A run that is registered already for these settings changes nothing.
    """
    role = role_of(job)
    if role is None or f"{role}_id" not in made:
        return
    with _writing(layout):
        registered = history(layout, role)
        asked_by = settings_id(role, config)
        if any((known.settings_id, known.run_id) == (asked_by, run_id) for known in registered):
            if not layout.networks(role).exists():
                _write(layout, role, registered)
            return
        new = _registration(layout, role, asked_by, inputs, run_id, made)
        takes_over, why = _judge(layout, role, config.networks, new, serving(registered, role, config))
        _write(layout, role, [*registered, _decided(new, takes_over, why, asked_by)])


def adopt(layout: Layout, config: Config, ids: Mapping[str, str], paths: Mapping[str, str], run_id: str, why: str) -> None:
    """Register networks that were made elsewhere ("dvae_id" and so on; role -> path) and make them current for these settings."""
    with _writing(layout):
        for role in ROLES:
            registered = history(layout, role)
            new = Registration(
                at="", settings_id="", network_id=ids[f"{role}_id"], run_id=run_id, path=paths[role], is_current=True, why=why,
                pairs_id="", num_pairs=None, metrics={},
            )  # fmt: skip
            now = serving(registered, role, config)
            if now is None or (now.network_id, now.path) != (new.network_id, new.path):
                _write(layout, role, [*registered, _decided(new, True, why, settings_id(role, config))])


def choose(layout: Layout, role: str, network_id: str, config: Config) -> Registration:
    """Make a registered network current for these settings, by hand.

    Raises `ValueError` for an unknown role or network, one whose files are gone, or one of another shape than the settings'.
    """
    with _writing(layout):
        registered = history(layout, role)
        named = _named(layout, role, registered, network_id, config)
        now = serving(registered, role, config)
        if now is not None and now.network_id == named.network_id:
            return now
        chosen = _decided(named, True, "chosen by hand", settings_id(role, config))
        _write(layout, role, [*registered, chosen])
    return chosen


def differences(layout: Layout, role: str, registered: Registration, config: Config) -> list[str]:
    """Settings of a network's shape that are not those of `config`, e.g. `dvae.codebook_size=512, not 1024`."""
    try:
        made_with = json.loads((layout.run(registered.run_id) / RUN_CONFIG).read_text())["config"]
        sections = {name: type(getattr(config, name))(**made_with[name]) for name in SHAPES[role]}
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{layout.run(registered.run_id)} does not say with which settings it was made"]
    pairs = [(name, identity(section), identity(getattr(config, name))) for name, section in sections.items()]
    return [
        f"{name}.{key}={was.get(key)}, not {wanted.get(key)}"
        for name, was, wanted in pairs
        for key in sorted({*was, *wanted})
        if was.get(key) != wanted.get(key)
    ]


def pairs_of(layout: Layout, inputs: Mapping[str, str]) -> str:
    """Id of the pairs that a training with these inputs learned from; empty if unknown."""
    if "pairs_id" in inputs or "training_set" not in inputs:
        return inputs.get("pairs_id", "")
    try:
        return str(json.loads((layout.root / inputs["training_set"] / MANIFEST).read_text())["inputs"]["pairs"])
    except (OSError, ValueError, KeyError):
        return ""


def inputs_of_run(run_dir: Path) -> dict[str, str]:
    """What a run was made from; empty when its directory does not say."""
    try:
        inputs: dict[str, str] = json.loads((run_dir / RUN_CONFIG).read_text())["inputs"]
    except (OSError, ValueError, KeyError):
        return {}
    return inputs


def num_pairs_now(layout: Layout, source: str) -> tuple[str, int | None]:
    """Id and number of the pairs of a source, as their manifest says; `("", None)` when there is none."""
    result = result_of(layout.pairs(source))
    return str(result.get("pairs_id", "")), result.get("num_pairs")


def _named(layout: Layout, role: str, registered: list[Registration], network_id: str, config: Config) -> Registration:
    found = next((known for known in reversed(registered) if known.network_id == network_id), None)
    if found is None:
        known = ", ".join(dict.fromkeys(each.network_id for each in registered)) or "none yet"
        raise ValueError(f"{role} {network_id} is not registered in {layout.networks(role).parent}; the {role}s there are: {known}")
    if not (layout.root / found.path).exists():
        raise ValueError(f"{role} {network_id} is gone: {layout.root / found.path} does not exist; choose another or train it again")
    if different := differences(layout, role, found, config):
        raise ValueError(
            f"{role} {network_id} has another shape than these settings: {'; '.join(different)}; "
            "give the settings it was made with, or choose another"
        )
    return found


def _judge(layout: Layout, role: str, networks: NetworksConfig, new: Registration, now: Registration | None) -> tuple[bool, str]:
    """Whether a new network takes over, and why.

    `if_better` compares the figures that the two trainings recorded, each on the validation pairs of its day; the older network is not
    measured again. A picture's split follows from its pixels, so pairs that stay keep theirs and the later set is the earlier one with
    what came and without what went: a fair comparison while pairs grow by a share, and a rough one after the source has changed much.
    The reason says when the pairs were others; `manual` leaves the decision to a person who has drawn with both.
    """
    if now is None:
        return True, "the first with these settings"
    if networks.policy != "if_better":
        return networks.policy == "always", f"policy {networks.policy}"
    name = next((name for name in networks.metrics if name.startswith(f"{role}.")), None)
    if name is None:
        return False, f"networks.metrics names none for the {role}"
    metric = name.partition(".")[2]
    then, later = now.metrics.get(metric), new.metrics.get(metric)
    if then is None or later is None:
        return False, f"{metric} is not known of {now.network_id if then is None else new.network_id}"
    if role == "transformer" and _tokens_of(layout, now) != _tokens_of(layout, new):
        return False, f"it was trained on other tokens than {now.network_id}, so {metric} cannot be compared"
    is_better = later < then if METRICS[name] == "lower" else later > then
    of_then = ", on the validation pairs of then" if now.pairs_id != new.pairs_id else ""
    return is_better, f"{metric} {later:.6g}, {'better' if is_better else 'not better'} than {then:.6g} of {now.network_id}{of_then}"


def _tokens_of(layout: Layout, registered: Registration) -> list[str] | None:
    """The tokenizer and the dVAE that a transformer was trained with."""
    inputs = inputs_of_run(layout.run(registered.run_id))
    return [inputs["tokenizer_id"], inputs["dvae_id"]] if {"tokenizer_id", "dvae_id"} <= inputs.keys() else None


def _registration(
    layout: Layout, role: str, asked_by: str, inputs: Mapping[str, str], run_id: str, made: Mapping[str, Any]
) -> Registration:
    """A network that nobody has judged yet."""
    pairs_id = "" if f"{role}_id" in inputs else pairs_of(layout, inputs)  # one that was given learned nothing here
    present = [num_pairs_now(layout, folder.name) for folder in (layout.root / "pairs").glob("*/")]
    metrics = (name.partition(".")[2] for name in METRICS if name.startswith(f"{role}."))
    return Registration(
        at="",
        settings_id=asked_by,
        network_id=made[f"{role}_id"],
        run_id=run_id,
        path=made[MADE_BY[role][1]],
        is_current=False,
        why="",
        pairs_id=pairs_id,
        num_pairs=dict(present).get(pairs_id) if pairs_id else None,
        metrics={name: made[name] for name in metrics if isinstance(made.get(name), int | float)},
    )


def _finished_trainings(layout: Layout, role: str) -> Iterator[Registration]:
    """What a data root without a registry holds: of each settings the newest serves."""
    job = MADE_BY[role][0]
    found = []
    for result in (layout.root / "runs").glob(f"{job.replace('_', '-')}-*/result.json"):
        try:
            made, saved = json.loads(result.read_text()), json.loads((result.parent / RUN_CONFIG).read_text())
            asked_by = settings_id(role, from_dict(Config, saved["config"]))
            new = _registration(layout, role, asked_by, saved["inputs"], result.parent.name, made)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of an edition whose settings are unknown here
        found.append((float(made.get("started_at", 0)) + float(made.get("duration_s", 0)), new))
    for ended, new in sorted(found, key=lambda each: (each[0], each[1].run_id)):
        at = datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds")
        yield replace(new, at=at, is_current=True, why="made before networks were registered")


def _decided(registered: Registration, is_current: bool, why: str, asked_by: str) -> Registration:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(registered, at=now, is_current=is_current, why=why, settings_id=asked_by)


def _writing(layout: Layout) -> AbstractContextManager[bool]:
    return held(layout.root / "networks" / "lock", wait=True)


def _write(layout: Layout, role: str, registered: list[Registration]) -> None:
    with atomic_path(layout.networks(role)) as partial:
        partial.write_text("".join(json.dumps(asdict(each), sort_keys=True) + "\n" for each in registered))
