"""Four writers, eight readers and fifty SIGKILLs on one catalog: nothing acknowledged is lost, nothing counts twice, no reader fails."""

import json
import subprocess
import sys

import pytest

from dalle_datasets.catalog import ingest
from dalle_datasets.catalog.checks import run_checks
from dalle_datasets.catalog.connection import connect, open_published
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.store.layout import Layout

NUM_KILLS, NUM_WRITERS, NUM_READERS = 50, 4, 8

# Forked from one process that has imported everything but opened nothing: starting Python 60 times would be most of the test.
CROWD = """
import json, os, random, signal, sys, time
from pathlib import Path
import pyarrow as pa
from dalle_datasets.catalog.connection import CatalogBusyError, connect
from dalle_datasets.catalog.ingest import ingest_pairs
from dalle_datasets.catalog.ledger import ingest_in_turns
from dalle_datasets.catalog.queries import run_query
from dalle_datasets.catalog.snapshot import publish
from dalle_datasets.store.ids import content_id, pair_id
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import write_parquet
from dalle_datasets.store.schemas import PAIRS

layout, log = Layout(Path(sys.argv[1])), Path(sys.argv[1]) / "log"
num_kills, num_writers, num_readers = map(int, sys.argv[2:])
log.mkdir()

def say(**what):
    with (log / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps(what) + "\\n")

def write(source):
    number = 0
    while True:
        name = f"part-{os.getpid():07d}-{number:03d}.parquet"
        rows = [{**ROW, "pair_id": pair_id(name, str(i)), "pixel_sha256": f"{name} {i}", "source": source} for i in range(200)]
        write_parquet(layout.pairs(source) / name, pa.Table.from_pylist(rows), PAIRS)
        ingest_in_turns(layout.catalog, lambda con: ingest_pairs(con, layout, source), 60, None, f"{source} {number}")
        say(acknowledged=f"pairs/{source}/{name}")
        if number % 3 == 2:
            publish(layout)
            say(published=name)
        number += 1

def read():
    while True:
        try:
            run_query(layout, "licences")
            say(read=1)
            time.sleep(0.2)
        except ValueError as error:
            if "no catalog has been published yet" not in str(error):
                raise
            time.sleep(0.05)

def start(function, *arguments):
    child = os.fork()
    if child:
        return child
    try:
        function(*arguments)
    except BaseException as error:
        say(error=repr(error))
    finally:
        os._exit(1)

ROW = {field.name: {"string": "x", "int32": 64, "float": 1.0, "binary": b"x"}.get(str(field.type)) for field in PAIRS} | {"split": "train"}
order = random.Random(0)
writers = {name: start(write, name) for name in (f"w{i}" for i in range(num_writers))}
readers = [start(read) for _ in range(num_readers)]
for _ in range(num_kills):
    time.sleep(order.uniform(0.02, 0.3))
    name = order.choice(sorted(writers))
    os.kill(writers[name], signal.SIGKILL)
    os.waitpid(writers[name], 0)
    writers[name] = start(write, name)

def count(what):
    return sum(path.read_text().count(what) for path in log.glob("*.jsonl"))

deadline = time.monotonic() + 60
while time.monotonic() < deadline and not (count("published") and count("acknowledged") > 12 and count("read") > 8):
    time.sleep(0.2)
for child in (*writers.values(), *readers):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.long
def test_a_crowd_with_many_deaths_loses_nothing_and_counts_nothing_twice(tmp_path):
    layout = Layout(tmp_path)
    with connect(layout.catalog):
        pass
    numbers = map(str, (NUM_KILLS, NUM_WRITERS, NUM_READERS))
    subprocess.run([sys.executable, "-c", CROWD, str(tmp_path), *numbers], check=True, timeout=300)
    said = [json.loads(line) for path in (tmp_path / "log").glob("*.jsonl") for line in path.read_text().splitlines() if line.endswith("}")]
    assert [line["error"] for line in said if "error" in line] == []
    acknowledged = [line["acknowledged"] for line in said if "acknowledged" in line]
    assert len(acknowledged) > 12
    assert sum("read" in line for line in said) > 8
    with connect(layout.catalog, 10) as con:
        parts = dict(con.execute("select part_path, count(*) from pairs group by all").fetchall())
        assert set(acknowledged) <= set(parts), "an acknowledged part is gone"
        assert set(parts.values()) == {200}, "a part has half its rows, or all of them twice"
        ingest.ingest_everything(con, layout)
    publish(layout)
    with open_published(layout) as con:
        assert [check for check in run_checks(con) if not check.passed] == []
        assert con.execute("select count(*) from pairs").fetchall() == [(200 * len(list(tmp_path.glob("pairs/*/*.parquet"))),)]
    waiting = [path for path in layout.catalog.parent.glob("*.queue/*") if path.name != "door"]
    assert waiting == [], "tickets of the dead were not cleared"
