"""The crash matrix: SIGKILL of anything at random moments of the whole pipeline, compared with a run that nobody disturbed.

    python benchmarks/chaos.py --minutes 30          # or: make chaos MINUTES=30

An installation of its own (`dalle up`), at the smallest sizes. Each round runs the pipeline into a new data root while flows, jobs,
workers, the server, the writer of the catalog, or everything at once is killed; then it has to end by itself with the same tables, no run
may be left "Running" or "Pending" for two minutes without a process, and `dalle down` leaves nothing. Exit status 1 says what is wrong.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dalle_datasets.catalog.connection import open_published
from dalle_datasets.catalog.snapshot import contents
from dalle_datasets.store.layout import Layout
from flows.operation.installation import Record, running
from flows.operation.lost_runs import RUN_ID
from flows.operation.processes import command_of, end, marked, variable_of
from flows.runtime.prefect_server import PrefectServerFailed

DALLE = [sys.executable, "-c", "from flows.cli.main import main; main()"]
SITE = """
name = "chaos"
data_root = "site"
[server]
port = {port}
[workers]
cpu = 2
"""
TINY = {
    "source.num_scenes": 100, "download.runner": "threads", "train_dvae.max_steps": 6, "train_dvae.checkpoint_every": 2,
    "train_clip.max_steps": 6, "train_clip.batch_size": 16, "train_transformer.max_steps": 6, "train_transformer.batch_size": 8,
    "train_transformer.checkpoint_every": 2, "sampling.num_images": 4, "evaluate.num_prompts": 2,
}  # fmt: skip
ZOMBIE_S = 120.0
"""How long a run may be without a process and not be taken for dead."""
ROUND_S = 1_200.0
"""Longest time of a round."""


class Chaos:
    """An installation, and somebody who kills its parts."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.root, self.home = folder / "site", folder / "site" / "operation"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            (folder / "site.toml").write_text(SITE.format(port=probe.getsockname()[1]))
        self.keeper: subprocess.Popen[bytes] | None = None

    def up(self) -> Record:
        """Start the installation, as an operator or systemd would."""
        with (self.folder / "up.log").open("ab") as log:
            command = [*DALLE, "up", "--site", str(self.folder / "site.toml")]
            self.keeper = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 600
        while (record := running(self.root)) is None:
            if self.keeper.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"chaos: it did not come up; see {self.folder / 'up.log'}")
            time.sleep(0.5)
        return record

    def down(self) -> set[int]:
        """End it; what is left."""
        subprocess.run([*DALLE, "down", "--site", str(self.folder / "site.toml")], check=False)
        if self.keeper is not None:
            self.keeper.wait(60)
        return marked(self.home)

    def victims(self, data_root: Path) -> dict[str, list[int]]:
        """What there is to kill: kind -> processes."""
        found: dict[str, list[int]] = {"flow": [], "job": [], "worker": [], "server": [], "writer": [], "everything": []}
        for pid in marked(self.home):
            command = command_of(pid)
            if "dalle_model.jobs" in command or "dalle_datasets.download" in command:
                found["job"].append(pid)
            elif "worker start" in command:
                found["worker"].append(pid)
            elif "uvicorn" in command:
                found["server"].append(pid)
            elif variable_of(pid, RUN_ID):
                found["flow"].append(pid)
            found["everything"].append(pid)
        locks = (data_root / "catalog").glob("*.lock")
        holders = [lock.read_text().split()[1:2] for lock in locks if lock.exists()]
        found["writer"] = [int(pid) for holder in holders for pid in holder if pid.isdigit() and int(pid) in found["everything"]]
        return {kind: pids for kind, pids in found.items() if pids}

    def kill_something(self, data_root: Path) -> None:
        """SIGKILL one process of a kind chosen at random; or all, and start the installation again."""
        victims = self.victims(data_root)
        kind = self.random.choice(sorted(victims))
        self.killed[kind] += 1
        print(f"chaos: {time.strftime('%H:%M:%S')} kill {kind}", flush=True)
        if kind == "everything" and self.keeper is not None:
            self.keeper.kill()
            self.keeper.wait()
        for pid in victims[kind] if kind == "everything" else [self.random.choice(victims[kind])]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if kind == "everything":
            self.up()


def patiently(ask: Callable[[], Any]) -> Any:
    """The answer of a server that may just have been killed."""
    for _ in range(300):
        try:
            return ask()
        except PrefectServerFailed:
            time.sleep(1)
    raise SystemExit("chaos: the server stays away")


def tables(layout: Layout) -> dict[str, list[tuple[object, ...]]]:
    """All rows, without what tells time; stages are named once, since each execution that ends has times of its own."""
    with open_published(layout) as con:
        rows = contents(con)
    return {**rows, "stage_times": sorted(set(rows["stage_times"]))}


def undisturbed(root: Path) -> dict[str, list[tuple[object, ...]]]:
    """The tables of a run that nobody disturbs."""
    settings = [part for name, value in {"paths.data_root": root, **TINY}.items() for part in ("--set", f"{name}={value}")]
    subprocess.run([*DALLE, "demo", *settings], check=True, stdout=subprocess.DEVNULL)
    return tables(Layout(root))


def play_round(chaos: Chaos, root: Path, kills: int) -> list[str]:
    """Run the pipeline into `root` under `kills` kills; what is wrong afterwards."""
    record = running(chaos.root) or chaos.up()
    server = record.server()
    deployment = patiently(lambda: server.get("/deployments/name/run-pipeline/demo"))
    parameters = {"preset": "demo", "overrides": {**TINY, "paths.data_root": str(root)}}
    run = patiently(lambda: server.post(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters}))
    began, next_kill, without = time.monotonic(), time.monotonic() + chaos.random.uniform(5, 30), 0.0
    while True:
        time.sleep(1)
        asked = time.monotonic()
        now = patiently(lambda: server.get(f"/flow_runs/{run['id']}"))
        without += time.monotonic() - asked  # nobody can settle a run while the server is away
        if now["state_type"] == "COMPLETED":
            return []
        if now["state_type"] in ("FAILED", "CANCELLED") or time.monotonic() - began > ROUND_S:
            return [f"{root.name}: the run is {now['state_type']} after {time.monotonic() - began:.0f} s: {now['state']['message']}"]
        has_process = any(variable_of(pid, RUN_ID) == run["id"] for pid in marked(chaos.home))
        without = without if now["state_type"] in ("RUNNING", "PENDING") and not has_process else time.monotonic()
        if time.monotonic() - without > ZOMBIE_S:
            return [f"{root.name}: {now['state_type']} for {ZOMBIE_S:g} s without a process"]
        if now["state_type"] == "CRASHED" and kills <= 0:  # twice it is started by itself, then by a person
            patiently(lambda: server.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "SCHEDULED"}, "force": True}))
        if kills > 0 and time.monotonic() > next_kill:
            kills, next_kill = kills - 1, time.monotonic() + chaos.random.uniform(10, 45)
            chaos.kill_something(root)
            without = time.monotonic()


def main() -> int:
    """Play rounds until the time is over; exit status 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30, help="begin no further round after so long")
    parser.add_argument("--kills", type=int, default=4, help="kills in a round")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when")
    given = parser.parse_args()
    deadline = time.monotonic() + 60 * given.minutes
    faults: list[str] = []
    num_rounds = 0
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    expected = undisturbed(folder / "undisturbed")
    chaos = Chaos(folder, given.seed)
    try:
        chaos.up()
        while time.monotonic() < deadline and not faults:
            root, num_rounds = folder / f"round-{num_rounds}", num_rounds + 1
            faults += play_round(chaos, root, given.kills)
            if not faults:
                found = tables(Layout(root))
                faults += [f"{root.name}: table {table} differs" for table in expected if found[table] != expected[table]]
            print(f"chaos: {root.name} {'; '.join(faults) or 'has the tables of the undisturbed run'}", flush=True)
        if left := chaos.down():
            faults.append(f"{len(left)} processes are left after `dalle down`: {', '.join(command_of(pid) for pid in left)}")
    finally:
        if chaos.keeper is not None:
            chaos.keeper.terminate()
            chaos.keeper.wait()
        end(lambda: marked(chaos.home), 0)
    if faults:
        print(f"chaos: everything is kept in {folder}: up.log, site/operation/*.log, round-*", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    print(f"{num_rounds} rounds, killed: {dict(chaos.killed)}; {'; '.join(faults) or 'nothing was lost or doubled, nothing was left'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
