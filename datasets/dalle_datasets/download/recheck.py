"""Asking again for pictures that are here: has their owner opted out, taken them down, or put others under the same address?

What an answer said of its body (ETag, Last-Modified, length), and the size and time of a file, are kept for every picture, so that one
HEAD request tells. A file on this machine costs a look at its folder.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dalle_datasets.store.buckets import by_key, read_tables
from dalle_datasets.store.ids import content_id
from dalle_datasets.store.manifest import Report
from dalle_datasets.store.parquet import RowsWriter, list_parts
from dalle_datasets.store.schemas import CANDIDATES, IMAGES
from dalle_datasets.web.client import PoliteClient
from dalle_datasets.web.failures import GONE_STATUSES, OK, OPT_OUTS, FetchError
from dalle_datasets.web.guard import Response

SEEN_FILE = "pictures.seen"
"""Parquet, but none of the files that the manifest of discovery vouches for."""
SEEN = pa.schema(
    [
        pa.field("address_id", pa.string(), nullable=False),
        pa.field("image_url", pa.string(), nullable=False),
        pa.field("etag", pa.string()),  # of a file on this machine: its size and time
        pa.field("last_modified", pa.string()),
        pa.field("num_bytes", pa.int64()),
    ],
    metadata={"schema": "seen", "version": "1"},
)
CHANGED = "changed"
ROWS_AT_ONCE = 1_000


class Outcome(NamedTuple):
    """`CHANGED`, or the status that a picture has now, and why."""

    code: str
    detail: str


def is_withdrawal(code: str, detail: str | None) -> bool:
    """Whether a failure means that a picture is not to be used any more, rather than that it could not be asked for today."""
    return code in OPT_OUTS or code == "missing_file" or (code == "http_4xx" and (detail or "").startswith(_GONE))


_GONE = tuple(f"status {status}" for status in sorted(GONE_STATUSES))


class SeenLog:
    """A file of this process, of the pictures that it fetched. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(folder / f"{os.getpid()}-{secrets.token_hex(4)}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __call__(self, image_url: str, response: Response) -> None:
        """Note what an answer says of its body."""
        headers = response.headers
        self.note(image_url, headers.get("ETag"), headers.get("Last-Modified"), len(response.body))

    def note(self, image_url: str, etag: str | None, last_modified: str | None = None, num_bytes: int | None = None) -> None:
        """Note what tells whether a picture is another one."""
        row = [image_url, etag and str(etag), last_modified and str(last_modified), num_bytes]
        os.write(self._file, (json.dumps(row) + "\n").encode())


def read_seen(folder: Path) -> Iterator[pa.Table]:
    """The rows of all logs of a folder. A line that was cut off by a kill is left out: its picture is asked for in full."""
    yield SEEN.with_metadata(None).empty_table()
    for path in sorted(folder.glob("*.jsonl")):
        rows = []
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    url, etag, last_modified, num_bytes = json.loads(line)
                except ValueError:
                    continue
                row = (content_id("address", url), url, etag, last_modified, num_bytes)
                rows.append(dict(zip(SEEN.names, row, strict=True)))
                if len(rows) == ROWS_AT_ONCE:
                    yield pa.Table.from_pylist(rows, SEEN.with_metadata(None))
                    rows = []
        yield pa.Table.from_pylist(rows, SEEN.with_metadata(None))


def write_seen(path: Path, log: Path, work: Path) -> None:
    """Bring the record up to date with what was fetched or asked in this run."""
    earlier = read_tables([path] if path.exists() else [], SEEN)
    with RowsWriter(path, SEEN) as writer:
        for bucket in by_key(work, "address_id", earlier=earlier, now=read_seen(log)):
            rows = {row["image_url"]: row for table in (bucket["earlier"], bucket["now"]) for row in table.to_pylist()}
            for row in sorted(rows.values(), key=lambda row: (row["address_id"], row["image_url"])):
                writer.append(row)


def recheck(
    candidates: Path, parts: Path, seen: Path, work: Path, log: SeenLog, client: PoliteClient | None,
    version_of: Callable[[str], str | None] | None, num_threads: int, report: Report,
) -> dict[str, Outcome]:  # fmt: skip
    """Address -> what is different about it, of the pictures of the candidates that lie in `parts`.

    Addresses of the web are asked with `client`, files looked at with `version_of`; without it they are not. A failure that may pass
    says nothing. A picture of which nothing was noted (it was fetched by an earlier edition) is taken for the one that is there.
    """
    outcomes: dict[str, Outcome] = {}

    def look(row: dict[str, Any]) -> Outcome | None:
        url, is_noted = row["image_url"], row["is_noted"]
        if not url.startswith(("http://", "https://")):
            version = version_of(url) if version_of is not None else None
            if version is None or (is_noted and version == row["etag"]):
                return None
            log.note(url, version)
            return Outcome(CHANGED, "")
        if client is None:
            return None
        if is_noted and not row["etag"] and not row["last_modified"]:
            return Outcome(CHANGED, "")  # as far as anybody can know
        try:
            if is_noted:
                has_changed = client.revisit(url, row["etag"], row["last_modified"], row["num_bytes"], wants_body=False) is not None
                return Outcome(CHANGED, "") if has_changed else None
            answer = client.look(url)
        except FetchError as error:
            return Outcome(error.code, error.detail) if is_withdrawal(error.code, error.detail) else None
        length = str(answer.headers.get("Content-Length", ""))
        log.note(url, answer.headers.get("ETag"), answer.headers.get("Last-Modified"), int(length) if length.isdecimal() else None)
        return None

    done = 0
    with ThreadPoolExecutor(num_threads) as pool:
        for rows in _to_look_at(candidates, parts, seen, work):
            for row, outcome in zip(rows, pool.map(look, rows), strict=True):
                if outcome is not None:
                    outcomes[row["image_url"]] = outcome
                done += 1
                report(done, done, "pictures asked again")
    return outcomes


def _to_look_at(candidates: Path, parts: Path, seen: Path, work: Path) -> Iterator[list[dict[str, Any]]]:
    """The addresses of current candidates whose pictures are here, each once, with what was noted of them."""
    current = (_with_address(table) for table in read_tables([candidates], CANDIDATES, ["candidate_id", "image_url"]))
    here = (
        _with_address(table.filter(pc.equal(table["status"], OK)))
        for table in read_tables(list_parts(parts), IMAGES, ["candidate_id", "image_url", "status"])
    )
    noted = read_tables([seen] if seen.exists() else [], SEEN)
    for bucket in by_key(work, "address_id", current=current, here=here, noted=noted):
        wanted = dict.fromkeys(bucket["current"]["image_url"].to_pylist())
        notes = {row["image_url"]: row for row in bucket["noted"].to_pylist()}
        urls = dict.fromkeys(url for url in bucket["here"]["image_url"].to_pylist() if url in wanted)
        rows = [{**notes.get(url, {}), "image_url": url, "is_noted": url in notes} for url in urls]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield rows[start : start + ROWS_AT_ONCE]


def _with_address(table: pa.Table) -> pa.Table:
    ids = [content_id("address", url) for url in table["image_url"].to_pylist()]
    return table.append_column("address_id", pa.array(ids, pa.string()))


def apply_outcomes(table: pa.Table, outcomes: dict[str, Outcome], fetched: dict[str, bool]) -> pa.Table:
    """Rows of `schemas.IMAGES` as they are now: withdrawn ones without their bytes, those that came anew left out.

    `fetched` says of the addresses that were asked for again whether they brought something that counts.
    """
    urls = table["image_url"].to_pylist()
    table = table.filter(pa.array([not fetched.get(url, False) for url in urls], pa.bool_()))
    rows = table["image_url"].to_pylist()
    against = [outcome if (outcome := outcomes.get(url)) and outcome.code != CHANGED else None for url in rows]
    if not any(against):
        return table
    is_against = pa.array([outcome is not None for outcome in against])
    nothing = pa.scalar(None, pa.string())
    for name, values in (
        ("status", [outcome.code if outcome else None for outcome in against]),
        ("error", [outcome.detail if outcome else None for outcome in against]),
    ):
        column = pc.if_else(is_against, pa.array(values, pa.string()), table[name])
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    table = table.set_column(table.schema.get_field_index("sha256"), "sha256", pc.if_else(is_against, nothing, table["sha256"]))
    kept = pc.if_else(is_against, pa.scalar(None, pa.binary()), table["image"])
    return table.set_column(table.schema.get_field_index("image"), "image", kept)


def concerns(urls: Iterable[str], outcomes: dict[str, Outcome], fetched: dict[str, bool]) -> bool:
    """Whether a part with these addresses has to be written anew."""
    return any(fetched.get(url, False) or (url in outcomes and outcomes[url].code != CHANGED) for url in urls)
