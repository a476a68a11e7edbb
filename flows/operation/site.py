"""A site: what is collected with which settings, where it lies, and how it is served. Read from a TOML file, strictly.

A site file is a settings file (`preset` and sections of settings) with the sections that say how to run it. Whatever it
leaves out keeps its default, or stays as an operator left it in Prefect's interface.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dalle_datasets.ranges import check_ranges
from dalle_model.config.parsing import from_dict, to_dict
from dalle_model.config.presets import preset
from dalle_model.config.settings_file import DEFAULT_PRESET, VERSION, dotted, overrides_of
from dalle_model.config.tree import Config
from flows.runtime.parameters import find_config

SITE_FILE = "site.toml"
"""The site file that `dalle up` takes from the working directory when none is named."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_CRON = re.compile(r"[\d*/,-]+ [\d*/,-]+ [\dL*/,-]+ [\dA-Za-z*/,-]+ [\dA-Za-z*/,#-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSection:
    """Prefect's server of this site."""

    host: str = "127.0.0.1"
    """Address it listens at; `0.0.0.0` for all networks, which needs `auth_file`."""
    port: int = 4200
    """Its port; sites that run at the same time need different ones."""
    auth_file: str = ""
    """File that holds USER:PASSWORD, which browser and workers must show; relative to the site file."""
    database: str = ""
    """`postgresql+asyncpg://USER:PASSWORD@HOST/NAME`; empty for an SQLite file in the data root, enough for one machine."""
    database_timeout_s: float = 60.0
    """Longest wait of the server for its database, seconds."""

    def __post_init__(self) -> None:
        check_ranges(self, port=(1, 65_535), database_timeout_s=(1, 3_600))
        if self.database and not self.database.startswith("postgresql+asyncpg://"):
            raise ValueError(f"server.database={self.database}: say postgresql+asyncpg://USER:PASSWORD@HOST/NAME, or nothing for SQLite")
        if self.host not in LOOPBACK and not self.auth_file:
            raise ValueError(
                f"server.host={self.host} can be reached from other machines, and whoever reaches the server runs programs on its workers; "
                "set server.auth_file to a file that holds USER:PASSWORD, or server.host to 127.0.0.1"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolsSection:
    """Runs at a time in each work pool, over all machines; left out, as its operator left it."""

    cpu: int | None = None
    """Flows, which run beside the catalog; 2 in a new pool."""
    gpu: int | None = None
    """Jobs that flows send to machines with a GPU (`flow.pool = "gpu"`); 1 in a new pool."""

    def __post_init__(self) -> None:
        check_ranges(self, cpu=(1, 10_000), gpu=(1, 10_000))


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkersSection:
    """Workers that `dalle up` starts on this machine, by pool."""

    cpu: int = 1
    """Workers that run flows."""
    gpu: int = 0
    """Workers that run jobs on this machine's GPU."""

    def __post_init__(self) -> None:
        check_ranges(self, cpu=(0, 64), gpu=(0, 64))


def is_cron(when: str) -> bool:
    """Whether this is a cron time of five fields that the Prefect server takes and that ever comes: 31 February does not."""
    if not _CRON.fullmatch(when):
        return False
    from cronsim import CronSim, CronSimError
    from prefect.client.schemas.schedules import CronSchedule  # seconds, and only where a site has such a schedule

    try:
        CronSchedule(cron=when)
        CronSim(when, datetime.now(UTC))  # refuses what never comes
    except (ValueError, CronSimError):
        return False
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulesSection:
    """When flows start by themselves: "on", "off", or on at a cron time such as "17 1 * * *"; left out, as its operator left it."""

    collect_pairs: str = ""
    """Take what is new at the source."""
    tokenize_pairs: str = ""
    """Tokens of pairs that lack them; the chain does so after each collection."""
    score_pairs: str = ""
    """Scores of pairs that lack them."""
    retrain_networks: str = ""
    """Networks trained anew once the pairs have grown."""
    maintain_catalog: str = ""
    """Ingest what is missing, check, publish."""
    draw_prompt_folder: str = ""
    """Pictures for files of prompts."""
    timezone: str = "UTC"
    """Time zone of all of them, e.g. Europe/Berlin."""

    def __post_init__(self) -> None:
        for name, when in self.named().items():
            if when not in ("on", "off") and not is_cron(when):
                raise ValueError(
                    f'schedules.{name} = "{when}": say "on", "off", or a cron time that comes, minute hour day month weekday, '
                    'e.g. "17 1 * * *"'
                )

    def named(self) -> dict[str, str]:
        """Flow -> when, of those that are given."""
        return {name: when for name, when in to_dict(self).items() if when and name != "timezone"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LinksSection:
    """Links of the chain of a night: "on" or "off"; left out, as its operator left it."""

    tokenize_new_pairs: Literal["", "on", "off"] = ""
    """After a collection, tokens."""
    score_new_tokens: Literal["", "on", "off"] = ""
    """After tokens, CLIP's scores."""
    retrain_on_new_scores: Literal["", "on", "off"] = ""
    """After scores, trainings that are due."""
    draw_after_training: Literal["", "on", "off"] = ""
    """After a training, pictures for the source's prompts."""
    draw_folder_after_training: Literal["", "on", "off"] = ""
    """After a training, pictures for the files of prompts."""
    judge_new_pictures: Literal["", "on", "off"] = ""
    """After the source's pictures, the checker."""

    def named(self) -> dict[str, bool]:
        """Link -> whether it is on, of those that are given."""
        return {name: state == "on" for name, state in to_dict(self).items() if state}


@dataclass(frozen=True, kw_only=True, slots=True)
class NotifySection:
    """Who is told of failures."""

    block: str = ""
    """Notification block of the server, TYPE/NAME as `prefect block ls` shows it, e.g. slack-webhook/night."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """Sections of a site file that say how a site is run."""

    name: str = ""
    """Name of the site: letters, digits and '-'; the file's folder if not given."""
    data_root: str = ""
    """Folder that holds everything the site makes; relative to the site file, beside which it is `data` if not given."""
    server: ServerSection = field(default_factory=ServerSection)
    pools: PoolsSection = field(default_factory=PoolsSection)
    workers: WorkersSection = field(default_factory=WorkersSection)
    schedules: SchedulesSection = field(default_factory=SchedulesSection)
    links: LinksSection = field(default_factory=LinksSection)
    notify: NotifySection = field(default_factory=NotifySection)


@dataclass(frozen=True, slots=True)
class Site:
    """A site file that was read, or what stands for one."""

    path: Path | None
    """The file; None where the data root's own settings are the site."""
    name: str
    data_root: Path
    operation: Operation
    configs: tuple[Config, ...]
    """Settings of each source, the first of which the deployments without a source in their name collect."""

    @property
    def parameters(self) -> list[tuple[str, dict[str, Any]]]:
        """(preset, overrides) of each source, as flows take them."""
        return [(config.preset, {**overrides_of(config), "paths.data_root": str(self.data_root)}) for config in self.configs]

    @property
    def home(self) -> Path:
        """Where the server's database, logs and locks lie."""
        return self.data_root / "operation"

    @property
    def auth(self) -> str:
        """USER:PASSWORD, or nothing. Raises `ValueError` when the file cannot be read or others could read it."""
        if not self.operation.server.auth_file:
            return ""
        path = self.beside(self.operation.server.auth_file)
        try:
            text, mode = path.read_text().strip(), path.stat().st_mode
        except OSError as error:
            raise ValueError(f"server.auth_file = {path}: cannot be read ({error.strerror}); write USER:PASSWORD into it") from None
        if mode & 0o077:
            raise ValueError(f"server.auth_file = {path}: others may read it; `chmod 600 {path}`")
        if not re.fullmatch(r"[^\s:]+:\S+", text):
            raise ValueError(f"server.auth_file = {path}: does not hold USER:PASSWORD on one line")
        return text

    def beside(self, path: str) -> Path:
        """A path of the site file, which is relative to it."""
        folder = self.path.parent if self.path else Path()
        return (folder / Path(path).expanduser()).absolute()


def find_site(path: Path | None = None) -> Site:
    """The site of a file; without one `site.toml` of the working directory, else the present data root with its own settings.

    Raises `ValueError` naming file and key for anything it does not understand.
    """
    if path is None and Path(SITE_FILE).exists():
        path = Path(SITE_FILE)
    if path is not None:
        return read_site(path)
    config = find_config()
    root = Path(config.paths.data_root).expanduser().resolve()
    return Site(None, _plain(root.name), root, Operation(), (config,))


def read_site(path: Path) -> Site:
    """The site that a file describes. Raises `ValueError` as `find_site` does."""
    path = path.expanduser().absolute()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: the site file cannot be read ({error.strerror}); correct the path") from None
    except ValueError as error:
        raise ValueError(f"{path}: not a readable site file ({error}); deploy/site.toml is an example") from None
    try:
        return _read(path, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(path: Path, values: dict[str, Any]) -> Site:
    if (version := values.pop("version", VERSION)) != VERSION:
        raise ValueError(f"version = {version!r} of the site file, and this open-dalle reads {VERSION}; update open-dalle")
    start, sources = str(values.pop("preset", DEFAULT_PRESET)), values.pop("sources", [])
    ours = {name: values.pop(name) for name in Operation.__dataclass_fields__ if name in values}
    _check_sections(values)
    operation = from_dict(Operation, ours)
    name = operation.name or _plain(path.parent.name)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        raise ValueError(f'name = "{name}": letters, digits and "-" only')
    root = (path.parent / Path(operation.data_root or "data").expanduser()).resolve()
    if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
        raise ValueError("sources are tables: say [[sources]] before each source's settings")
    common = {**dotted(values), "paths.data_root": str(root)}
    if sources and (both := [key for key in common if key.startswith("source.")]):
        raise ValueError(f"{both[0]} and [[sources]] both say what is collected; move it into each of [[sources]]")
    configs = tuple(preset(start, {**common, **dotted(source, "source.")}) for source in sources or [{}])
    names = [config.source.name for config in configs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two of [[sources]] are named {twice[0]!r}; their pairs would lie in the same folder, so name them apart")
    return Site(path, name, root, operation, configs)


def _check_sections(values: Mapping[str, Any]) -> None:
    """Raises `ValueError` for a section or key of the top level that neither settings nor operation have."""
    known = [*Config.__dataclass_fields__, *Operation.__dataclass_fields__, "version", "sources"]
    for name in values:
        if name == "paths":
            raise ValueError("[paths]: say data_root = … at the top of a site file")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{name}: no such section or key; {remedy}")


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "site"
