"""Forgetting on request: pictures leave every artefact and table, a block list keeps them out, and a record says who saw them.

A request is written down first, with the ids of what is to go; then the block list is extended, then files are rewritten one by one, then
the catalog. So a request that was interrupted goes on where it was, and the record loses the ids when it is done.

Pictures that models drew stay, and so do weights: the record names the networks whose training had the pictures.
"""

import csv
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from dalle_datasets.catalog.artifacts import ARTIFACTS, made_in
from dalle_datasets.catalog.connection import OnWait, compacted
from dalle_datasets.catalog.ingest import ingest_everything
from dalle_datasets.catalog.ledger import ingest_in_turns, read_json
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.filters.forgetting import Forgotten, find_forgotten, forget_in_source, pack_look, remove_rows, sources_of
from dalle_datasets.filters.hashes import fingerprint_of
from dalle_datasets.images import ImageError, decode_image, pixel_sha256
from dalle_datasets.sources.blocked import DONE, PENDING, Block, BlockList, add_blocks, block, pending_records, read_blocks, read_record
from dalle_datasets.store.backup import known_backups
from dalle_datasets.store.ids import content_id, file_sha256
from dalle_datasets.store.layout import RUN_CONFIG, RUN_RESULT, Layout
from dalle_datasets.store.locks import held, holder_of, is_held
from dalle_datasets.store.parquet import atomic_path, check_parquet, iter_batches, iter_file, list_parts, open_parquet, write_parquet
from dalle_datasets.store.schemas import CODEBOOK_USAGE, PAIRS, PROMPTS, RECONSTRUCTIONS, TRAINING_SET

KINDS = ("url", "page", "host", "pair", "sha256", "like")
MAX_PIXELS = 1_000_000_000
_BATCH_ROWS = 65_536
_BY_PAIR = tuple(f"{name}/*/*.parquet" for name in ("text_tokens", "image_tokens", "clip_scores", "safety_scores", "training_sets"))
"""Files with a column `pair_id`, besides those of sources."""
_TRAINS = {"train_bpe": "tokenizer"}
"""Job -> kind of network, where the name does not say it."""
_UNFINISHED = ("sources/*/work", "images/*/work-*")
"""What a killed collection would go on with."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to be forgotten."""

    kind: str
    """One of `KINDS`."""
    value: str
    """An address, a host, a pair's id, a digest, or (`like`) a picture file."""
    reason: str = ""
    where: str = ""
    """For messages: the option or the line that it is from."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network whose training had some of the pictures, or may have had."""

    kind: str
    network_id: str
    run_id: str
    path: str
    certainly: bool
    """Through a training set that held them; else it was trained on the pairs of their source."""
    began_from: str = ""
    """Id of the network, one of these, that its training began from, or that it is a copy of; empty for what saw them itself."""


@dataclass(slots=True)
class Plan:
    """What requests come to."""

    requests: list[Request]
    blocks: list[Block]
    """The requests as entries of the block list."""
    found: Forgotten
    num_pairs: int
    """Of all sources together."""
    training_sets: list[str] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    drawn_for: list[str] = field(default_factory=list)
    """Runs that drew pictures for one of their captions: these stay."""
    backups: list[dict[str, str]] = field(default_factory=list)
    """Copies of the data root that were made before: these are not touched."""

    @property
    def is_most(self) -> bool:
        """Whether more than half of all pairs would go."""
        return 2 * len(self.found.pair_ids) > self.num_pairs


def read_requests(path: Path) -> list[Request]:
    """Requests of a CSV file with the columns `kind`, `value` and perhaps `reason`. Raises `ValueError` naming the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"kind", "value"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{path}: its first line must name the columns kind and value, and perhaps reason")
            requests = [_request(path, reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 at byte {error.start}; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path}: {error}; save it as CSV, with commas between the columns") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); correct the path") from error
    if not requests:
        raise ValueError(f"{path} holds no request; add lines such as url,https://example.com/a.jpg")
    return requests


def _request(path: Path, line: int, row: dict[str, Any]) -> Request:
    kind, value = (str(row.get(name) or "").strip() for name in ("kind", "value"))
    if kind not in KINDS or not value:
        said = f"kind {kind[:40]!r} is none of {', '.join(KINDS)}" if kind not in KINDS else "it has no value"
        raise ValueError(f"{path}, line {line}: {said}; correct the line, nothing was forgotten")
    if kind == "like":
        value = str(path.parent / value)
    return Request(kind, value, str(row.get("reason") or "").strip(), f"{path}, line {line}")


def plan_forgetting(layout: Layout, requests: Sequence[Request], in_advance: bool = False) -> Plan:
    """What would go. Changes nothing.

    Without requests: whatever the block list keeps out, e.g. after it was copied from another data root. Raises `ValueError` for a request
    that cannot be read, or matches nothing and is not on the list yet, unless it is made `in_advance`.
    """
    sources, known = sources_of(layout), read_blocks(layout, finishing=True)
    blocks_of = [_blocks_of(layout, request, sources) for request in requests]
    found = find_forgotten(layout, BlockList(entry for blocks in blocks_of for entry in blocks) if requests else known, sources)
    if not in_advance and not found.candidate_ids:
        _refuse_in_vain(requests, blocks_of, known)
    elif not in_advance and len(requests) > 1:
        for request, blocks in zip(requests, blocks_of, strict=True):
            if not find_forgotten(layout, BlockList(blocks), sources).candidate_ids:
                _refuse_in_vain([request], [blocks], known)
    num_pairs = sum(check_parquet(part, PAIRS).num_rows for source in sources for part in list_parts(layout.pairs(source)))
    plan = Plan(list(requests), [entry for blocks in blocks_of for entry in blocks], found, num_pairs)
    plan.training_sets = _training_sets_with(layout, found)
    plan.networks = list(_networks_that_saw(layout, found, plan.training_sets))
    plan.drawn_for = _drawn_for(layout, found)
    plan.backups = known_backups(layout) if found.candidate_ids else []
    return plan


def _refuse_in_vain(requests: Sequence[Request], blocks_of: list[list[Block]], known: BlockList) -> None:
    for request, blocks in zip(requests, blocks_of, strict=True):
        if not blocks or not all(entry in known for entry in blocks):
            raise ValueError(
                f"{request.where or '--' + request.kind}: nothing that was collected matches {request.kind} {request.value}; "
                "correct it, or keep it out of every later collection with --in-advance; nothing was forgotten"
            )


def _blocks_of(layout: Layout, request: Request, sources: list[str]) -> list[Block]:
    """A request as entries of the block list. Raises `ValueError` for a value that is none of its kind."""
    said = request.where or f"--{request.kind}"
    try:
        if request.kind == "sha256":
            if not re.fullmatch(r"[0-9a-fA-F]{64}", request.value):
                raise ValueError("a SHA-256 has 64 hex digits")
            return [block("picture", request.value)]
        if request.kind == "pair":
            if not request.value.isdecimal():
                raise ValueError("a pair's id is a whole number")
            return _blocks_of_pair(layout, int(request.value), sources)
        if request.kind == "like":
            return _blocks_of_picture(Path(request.value).expanduser())
        return [block(request.kind, request.value)]
    except OSError as error:
        raise ValueError(f"{said} {request.value}: cannot be read ({error.strerror}); correct the path") from error
    except ImageError as error:
        raise ValueError(f"{said} {request.value}: is no picture that can be read ({error.detail}); give a file such as a PNG") from error
    except ValueError as error:
        raise ValueError(f"{said} {request.value}: {error}; correct it, nothing was forgotten") from error


def _blocks_of_pair(layout: Layout, pair_id: int, sources: list[str]) -> list[Block]:
    columns = ["pair_id", "image_url", "sha256", "pixel_sha256"]
    for source in sources:
        for batch in iter_batches(layout.pairs(source), PAIRS, columns, _BATCH_ROWS):
            for row in batch.filter(pc.equal(batch["pair_id"], pair_id)).to_pylist():
                return [block("url", row["image_url"]), *(block("picture", row[name]) for name in columns[2:])]
    return []


def _blocks_of_picture(path: Path) -> list[Block]:
    data = path.read_bytes()
    picture = decode_image(data, MAX_PIXELS)
    digests = (file_sha256(path), pixel_sha256(picture))
    return [*(block("picture", digest) for digest in digests), Block("look", pack_look(fingerprint_of(picture)))]


def forget(layout: Layout, plan: Plan, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> Path:
    """Take everything of a plan out of all artefacts and tables; returns the record. Raises `ValueError` while others work here."""
    with _alone(layout):
        return finish(layout, _write_down(layout, plan), lock_timeout_s, on_wait)


def finish_interrupted(layout: Layout, lock_timeout_s: float = 60.0, on_wait: OnWait = None) -> list[Path]:
    """Go on with the requests that were interrupted; returns their records."""
    with _alone(layout):
        return [finish(layout, path, lock_timeout_s, on_wait) for path in pending_records(layout)]


def finish(layout: Layout, path: Path, lock_timeout_s: float, on_wait: OnWait) -> Path:
    """Carry out a record that is written down, or go on with it."""
    record: dict[str, Any] = read_record(path)
    to_do = record["to_do"]
    found = Forgotten(**{name: set(values) for name, values in to_do["found"].items()})
    add_blocks(layout, [Block(*entry) for entry in to_do["blocks"]])
    blocks = read_blocks(layout, finishing=True)
    for pattern in _UNFINISHED:
        for folder in layout.root.glob(pattern):
            shutil.rmtree(folder)
    removed = record["removed_rows"]
    for relative, num_rows in _without_rows(layout, found, blocks):
        kind = relative.partition("/")[0]
        removed[kind] = removed.get(kind, 0) + num_rows
    _forget_in_runs(layout, found, record["networks"])
    for page in (layout.report, layout.collection_report):
        page.unlink(missing_ok=True)
    if layout.catalog.exists():
        ingest_in_turns(layout.catalog, lambda con: ingest_everything(con, layout), lock_timeout_s, on_wait, "forgetting")
        compacted(layout.catalog, lock_timeout_s, on_wait)  # rows that were deleted are bytes in the file until it is written anew
        publish(layout, lock_timeout_s, on_wait)
    del record["to_do"]
    _write(path, {**record, "status": DONE, "removed_rows": removed, "finished_at": _now()})
    return path


def _write_down(layout: Layout, plan: Plan) -> Path:
    """The record of a plan: of what is asked for only hashes, of what is to go ids, until it has gone."""
    at, found = _now(), plan.found
    request_id = content_id("forget", at, *(entry.value for entry in plan.blocks), *found.candidate_ids)
    entries = [entry._replace(request=request_id, at=at) for entry in dict.fromkeys([*plan.blocks, *found.blocks])]
    record = {
        "request_id": request_id,
        "status": PENDING,
        "asked_at": at,
        "requests": [{"kind": request.kind, "reason": request.reason} for request in plan.requests],
        "num_pairs": len(found.pair_ids),
        "num_pictures": len(found.urls),
        "sources": sorted(found.sources),
        "removed_rows": {},
        "training_sets": plan.training_sets,
        "networks": [asdict(network) for network in plan.networks],
        "drawn_for_their_captions": plan.drawn_for,
        "backups": plan.backups,
        "to_do": {"blocks": entries, "found": {name: sorted(values) for name, values in asdict(found).items()}},
    }
    path = layout.forgotten / f"{request_id}.json"
    _write(path, record)
    return path


def _write(path: Path, record: dict[str, Any]) -> None:
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _alone(layout: Layout) -> Iterator[None]:
    """Keep collections waiting. Raises `ValueError` while one is going on, or a job that may read what is to go."""
    with ExitStack() as stack:
        for lock in (layout.forgotten / "lock", *(layout.source(source) / "lock" for source in sources_of(layout))):
            if not stack.enter_context(held(lock)):
                raise ValueError(f"{lock.parent} is in use by {holder_of(lock)}; forget when it has ended")
        for lock in layout.runs.glob("*/lock"):
            if is_held(lock):
                raise ValueError(
                    f"run {lock.parent.name} is going on ({holder_of(lock)}) and may read what is to go; forget when it has ended"
                )
        yield


def _without_rows(layout: Layout, found: Forgotten, blocks: BlockList) -> Iterator[tuple[str, int]]:
    """Take the rows out of every file; yields each file that changed, and by how many rows."""
    pairs = pa.array(sorted(found.pair_ids), pa.int64())
    candidates = pa.array(sorted(found.candidate_ids), pa.string())
    touched: set[Path] = set()
    for pattern in _BY_PAIR:
        for path in sorted(layout.root.glob(pattern)):
            if num_rows := remove_rows(path, "pair_id", pairs):
                touched.add(path.parent)
                yield layout.relative(path), num_rows
    for path in sorted(layout.root.glob("image_tokens/*/dropped/*.parquet")):
        if num_rows := remove_rows(path, "candidate_id", candidates):
            yield layout.relative(path), num_rows
    for manifest in layout.root.glob("training_sets/*/manifest.json"):
        _count_again(manifest)
    for source in sources_of(layout):
        parts = {part.name for part in list_parts(layout.pairs(source))}
        yield from forget_in_source(layout, source, found, blocks).items()
        for part in parts - {part.name for part in list_parts(layout.pairs(source))}:  # nothing is left of it
            for path in layout.root.glob(f"*_*/*=*/{source}-{part}"):
                path.unlink()
    _count_tokens_again(layout)


def _count_again(path: Path) -> None:
    """Let the manifest of a training set say how many rows are left; the set keeps its id."""
    manifest = read_json(path)
    columns = ["pair_id", "split"]
    batches = iter_batches(path.parent, TRAINING_SET, columns, _BATCH_ROWS)
    empty = TRAINING_SET.with_metadata(None).empty_table().select(columns)
    rows = pa.concat_tables([empty, *(pa.Table.from_batches([batch]).replace_schema_metadata() for batch in batches)])
    if (num_forgotten := manifest["num_rows"] - rows.num_rows) <= 0:
        return
    is_validation = pc.equal(rows["split"], "validation")
    counts = {
        "num_rows": rows.num_rows,
        "num_pairs": len(pc.unique(rows["pair_id"])),
        "num_validation": len(pc.unique(rows.filter(is_validation)["pair_id"])),
        "num_forgotten_rows": manifest.get("num_forgotten_rows", 0) + num_forgotten,
    }
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(manifest | counts, indent=1, sort_keys=True))


def _count_tokens_again(layout: Layout) -> None:
    """Let the newest count of every dVAE's tokens fit the tokens that are left."""
    newest: dict[tuple[str, str], Path] = {}
    for run_dir, config, result in _runs(layout):
        if config["job"] == "tokenize_images" and "codebook_usage" in result:
            key = (config["inputs"]["dvae_id"], Path(config["inputs"]["pairs"]).name)
            if key not in newest or _started(run_dir) > _started(newest[key]):
                newest[key] = run_dir
    for (dvae_id, source), run_dir in newest.items():
        path = layout.root / read_json(run_dir / RUN_RESULT)["codebook_usage"]
        if not path.exists():
            continue
        old = pa.Table.from_batches(list(iter_file(path, CODEBOOK_USAGE)))
        counts = np.zeros(old.num_rows, np.int64)
        is_only_one = sum(other == dvae_id for other, _ in newest) == 1
        for part in layout.image_tokens(dvae_id).glob("*.parquet" if is_only_one else f"{source}-part-*.parquet"):
            with open_parquet(part) as file:
                for batch in file.iter_batches(columns=["image_tokens"]):
                    counts += np.bincount(batch["image_tokens"].flatten().to_numpy(), minlength=len(counts))
        if not np.array_equal(counts, old["occurrences"].to_numpy()):
            write_parquet(path, old.set_column(1, "occurrences", pa.array(counts)), CODEBOOK_USAGE)


def _started(run_dir: Path) -> float:
    return float(read_json(run_dir / RUN_RESULT).get("started_at") or 0)


def _forget_in_runs(layout: Layout, found: Forgotten, networks: list[dict[str, Any]]) -> None:
    """Pictures and batches that runs keep to be looked at: drawings become blank, batches of spikes and `dalle reconstruct` go."""
    for name in {network["run_id"] for network in networks if not network.get("began_from")}:
        run_dir = layout.run(name)
        shutil.rmtree(run_dir / "spikes", ignore_errors=True)
        for path in run_dir.glob("failed_batch-*.safetensors"):
            path.unlink()
    for run_dir in (path.parent for path in layout.runs.glob(f"train-*/{RUN_CONFIG}")):  # those that only looked at pictures, too
        if _source_of(run_dir) in found.shown:
            for path in (run_dir / "reconstructions.png", *run_dir.glob("looks/*-reconstructions.png")):
                _blank(path)
    for table in layout.runs.glob("reconstruct-*/reconstructions.parquet"):
        shown = {pair for batch in iter_file(table, RECONSTRUCTIONS, ["pair_id"]) for pair in batch[0].to_pylist()}
        if shown & found.pair_ids:
            (table.parent / RUN_RESULT).unlink(missing_ok=True)  # first: what has no result is no finished run
            shutil.rmtree(table.parent)


def _source_of(run_dir: Path) -> str:
    return Path(read_json(run_dir / RUN_CONFIG)["inputs"].get("pairs", "")).name


def _blank(path: Path) -> None:
    """A picture of the same size without anything on it: a run's result names the file."""
    if path.exists():
        with Image.open(path) as picture:
            size = picture.size
        with atomic_path(path) as partial:
            Image.new("RGB", size, "white").save(partial, "PNG")


def _runs(layout: Layout) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Folder, configuration and result (empty before its end) of every run."""
    for path in sorted(layout.runs.glob(f"*/{RUN_CONFIG}")):
        result = path.parent / RUN_RESULT
        yield path.parent, read_json(path), read_json(result) if result.exists() else {}


def _training_sets_with(layout: Layout, found: Forgotten) -> list[str]:
    """Training sets that hold some of the pairs."""
    if not found.pair_ids:
        return []
    wanted = pa.array(sorted(found.pair_ids), pa.int64())
    return [
        folder.name
        for folder in sorted((layout.root / "training_sets").glob("*/"))
        if any(pc.any(pc.is_in(batch[0], wanted)).as_py() for batch in iter_batches(folder, TRAINING_SET, ["pair_id"], _BATCH_ROWS))
    ]


def _networks_that_saw(layout: Layout, found: Forgotten, training_sets: Iterable[str]) -> Iterator[Network]:
    """Networks that were trained on one of the training sets, or on the pairs of a source of theirs, and all that began from them.

    Runs that have not finished are named without an id.
    """
    saw = list(_networks_trained_on(layout, found, training_sets))
    yield from saw
    runs, named = list(_runs(layout)), {network.run_id for network in saw}
    while saw:
        known = {network.network_id: network for network in saw if network.network_id}
        saw = [
            Network(kind, network_id, run_dir.name, path, known[parent].certainly, parent)
            for run_dir, config, result in runs
            if run_dir.name not in named
            for parent, kind, network_id, path in _descendants(layout, run_dir, config, result)
            if parent in known
        ]
        named |= {network.run_id for network in saw}
        yield from saw


def _descendants(layout: Layout, run_dir: Path, config: dict[str, Any], result: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """(parent's id, kind, id, path) of what a run made from a network that it began from, or copied."""
    job, inputs = config["job"], config["inputs"]
    if job == "import_model":
        for kind in ("tokenizer", "dvae", "clip", "transformer"):
            if network_id := result.get(f"{kind}_id"):
                yield network_id, kind, network_id, f"{result['checkpoint']}/{kind}"
    elif job.startswith("train_"):
        kind = _TRAINS.get(job, job.removeprefix("train_"))
        if parent := inputs.get("start_id"):
            yield parent, kind, result.get(f"{kind}_id", ""), result.get(ARTIFACTS[kind].path_key, layout.relative(run_dir))
        elif (parent := inputs.get(f"{kind}_id")) and result:
            yield parent, kind, parent, result.get(ARTIFACTS[kind].path_key, "")


def _networks_trained_on(layout: Layout, found: Forgotten, training_sets: Iterable[str]) -> Iterator[Network]:
    """Networks that were trained on one of the training sets, or on the pairs of a source of theirs."""
    for run_dir, config, result in _runs(layout):
        inputs = config["inputs"]
        kind = _TRAINS.get(config["job"], config["job"].removeprefix("train_"))
        if not config["job"].startswith("train_") or f"{kind}_id" in inputs:  # one that was given learned nothing
            continue
        certainly = inputs.get("training_set_id") in set(training_sets)
        if not certainly and Path(inputs.get("pairs", "")).name not in found.sources:
            continue
        made = list(made_in(result, inputs)) or [("", kind, layout.relative(run_dir))]
        for network_id, kind, path in made:
            yield Network(kind, network_id, run_dir.name, path, certainly)


def _drawn_for(layout: Layout, found: Forgotten) -> list[str]:
    """Runs that drew pictures for a caption of a forgotten pair."""
    captions = {caption for source in found.sources for caption in _captions(layout, source, found)}
    runs = []
    for run_dir, config, _ in _runs(layout):
        prompts = layout.root / config["inputs"].get("prompts", "none")
        if config["job"] == "generate_images" and prompts.is_file():
            asked = {text for batch in iter_file(prompts, PROMPTS, ["prompt"]) for text in batch[0].to_pylist()}
            runs += [run_dir.name] if captions & asked else []
        elif (shown := run_dir / "shown" / "prompts.json").is_file():  # while it trained
            runs += [run_dir.name] if captions & {str(text) for text in json.loads(shown.read_text())} else []
    return runs


def _captions(layout: Layout, source: str, found: Forgotten) -> Iterator[str]:
    wanted = pa.array(sorted(found.pair_ids), pa.int64())
    for batch in iter_batches(layout.pairs(source), PAIRS, ["pair_id", "caption"], _BATCH_ROWS):
        yield from batch.filter(pc.is_in(batch["pair_id"], wanted))["caption"].to_pylist()
