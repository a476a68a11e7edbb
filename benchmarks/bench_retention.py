"""How Prefect's database grows over the nights of years, with the retention of this project's settings.

    python benchmarks/bench_retention.py [--nights 1000] [--runs-a-night 3]

One night is real: a collection and its tokens through flows on a server. Its rows are then copied night by night, with new ids and
times, into the same database, whose other rows become a night older each time, while the server's own vacuum runs every second or
two instead of every hour. Prints rows and bytes as the nights go by, and what they would be if nothing were deleted.
"""

import argparse
import os
import re
import sqlite3
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from flows.runtime.prefect_server import SETTINGS, private_server

GROWING = {
    "flow_run": "start_time", "flow_run_state": "timestamp", "task_run": "start_time", "task_run_state": "timestamp", "log": "timestamp",
    "artifact": "created", "events": "occurred", "event_resources": "occurred",
}  # fmt: skip
"""Table -> when its rows happened; parents before children."""
RUN_DAYS = int(SETTINGS["PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD"]) / 86_400
EVENT_DAYS = 7.0
"""Prefect's own retention of events."""
STEP = 25
"""Nights that are copied at a time."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")


def make_night(root: Path, scenes: int) -> None:
    """Collect and tokenise through flows: what a night leaves in Prefect."""
    from flows.collect_pairs import collect_pairs
    from flows.tokenize_pairs import tokenize_pairs
    from flows.train_tokenizers import train_tokenizers

    overrides = {"paths.data_root": str(root), "source.num_scenes": scenes, "train_dvae.max_steps": 2, "download.runner": "threads"}
    for flow in (collect_pairs, train_tokenizers, tokenize_pairs):
        flow(preset="demo", overrides=overrides)


class History:
    """The database of a server that is running."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(self._connect()) as con:
            self.night = {table: [dict(row) for row in con.execute(f"select * from {table}")] for table in GROWING}
        self.ids = {row["id"] for rows in self.night.values() for row in rows}
        self._id = re.compile("|".join(map(re.escape, self.ids)))

    def _connect(self) -> sqlite3.Connection:
        con = sqlite3.connect(self.path, timeout=120)
        con.row_factory = sqlite3.Row
        return con

    def add_nights(self, number: int, runs: int) -> None:
        """Let all that is there become `number` nights older, and add as many nights of `runs` copies each."""
        with closing(self._connect()) as con, con:
            for table in GROWING:
                columns = [row["name"] for row in con.execute(f"pragma table_info({table})") if _is_time(row["type"])]
                older = ", ".join(f"{name} = strftime('%Y-%m-%d %H:%M:%f000', {name}, '-{number} days')" for name in columns)
                con.execute(f"update {table} set {older}")
            for night in range(number):
                for _ in range(runs):
                    self._copy(con, timedelta(days=night))

    def _copy(self, con: sqlite3.Connection, age: timedelta) -> None:
        new = {old: str(uuid4()) for old in self.ids}
        shift = datetime.now(UTC).replace(tzinfo=None) - age - self._ended()

        def moved(value: Any) -> Any:
            if not isinstance(value, str):
                return value
            if _TIME.fullmatch(value):
                return f"{datetime.fromisoformat(value) + shift:%Y-%m-%d %H:%M:%S.%f}"
            return self._id.sub(lambda found: new[found[0]], value)

        for table, rows in self.night.items():
            for row in rows:
                copy = {name: moved(value) for name, value in row.items()}
                if table == "flow_run":
                    copy["idempotency_key"] = None
                if table in ("task_run", "flow_run") and copy.get("dynamic_key") is not None:
                    copy["dynamic_key"] = str(uuid4())
                names, marks = ", ".join(f'"{name}"' for name in copy), ", ".join("?" * len(copy))
                con.execute(f"insert into {table} ({names}) values ({marks})", list(copy.values()))

    def _ended(self) -> datetime:
        return max(datetime.fromisoformat(row["end_time"]) for row in self.night["flow_run"] if row["end_time"])

    def num_rows(self) -> dict[str, int]:
        """Rows of each table that grows."""
        with closing(self._connect()) as con:
            return {table: con.execute(f"select count(*) from {table}").fetchone()[0] for table in GROWING}

    def num_due(self) -> int:
        """Runs, logs and events that the vacuum still has to delete."""
        with closing(self._connect()) as con:
            runs = f"select count(*) from flow_run where end_time < datetime('now', '-{RUN_DAYS:g} days', '-1 minutes')"
            logs = "select count(*) from log where flow_run_id is not null and flow_run_id not in (select id from flow_run)"
            events = f"select count(*) from events where occurred < datetime('now', '-{EVENT_DAYS:g} days', '-1 minutes')"
            return sum(con.execute(sql).fetchone()[0] for sql in (runs, logs, events))

    def num_bytes(self) -> tuple[int, int]:
        """(size of the file, what of it is in use)."""
        with closing(self._connect()) as con:
            pages, free, size = (con.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
        return pages * size, (pages - free) * size


def _is_time(kind: str) -> bool:
    return kind.upper().startswith(("TIMESTAMP", "DATETIME"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=1_000)
    parser.add_argument("--runs-a-night", type=int, default=3, help="copies of the real runs in every night")
    parser.add_argument("--scenes", type=int, default=100)
    given = parser.parse_args()
    os.environ["PREFECT_SERVER_SERVICES_DB_VACUUM_LOOP_SECONDS"] = "1"
    os.environ["PREFECT_SERVER_SERVICES_DB_VACUUM_ORPHAN_CLEANUP_LOOP_SECONDS"] = "2"
    with tempfile.TemporaryDirectory() as folder, private_server(Path(folder) / "prefect") as server:
        server.wait()
        empty = Path(folder) / "prefect" / "prefect.db"
        before = empty.stat().st_size
        with server.in_use():
            make_night(Path(folder) / "data", given.scenes)
        history = History(empty)
        one = sum(len(rows) for rows in history.night.values()) * given.runs_a_night
        print(f"a night: {given.runs_a_night} x { ({table: len(rows) for table, rows in history.night.items()}) }")
        print("nights    flow runs   task runs       logs     events   MB in use   MB of file   seconds   rows without retention")
        for night in range(STEP, given.nights + 1, STEP):
            began = time.monotonic()
            history.add_nights(STEP, given.runs_a_night)
            while history.num_due() and time.monotonic() - began < 600:
                time.sleep(0.5)
            if night % 100 == 0 or night == STEP:
                rows, (size, used) = history.num_rows(), history.num_bytes()
                kept = f"{rows['flow_run']:12,d} {rows['task_run']:11,d} {rows['log']:10,d} {rows['events']:10,d}"
                took = f"{used / 1e6:11.1f} {size / 1e6:12.1f} {time.monotonic() - began:9.1f} {night * one:24,d}"
                print(f"{night:6d} {kept} {took}", flush=True)
        print(f"an empty database: {before / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
