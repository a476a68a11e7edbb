"""What Prefect costs: stages of data as flows on a server, against the same functions with Prefect's decorators taken off.

    python benchmarks/bench_orchestration.py [--scenes 3000] [--turns 3]

Collecting, cataloguing, both vocabularies (a short dVAE) and tokens, in turns, each into a data root of its own; the server is up
before. Prints the least seconds of both ways, and CPU seconds of this process and its jobs without the server's.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from flows.runtime.prefect_server import private_server

FLOWS = ("collect_pairs", "train_tokenizers", "tokenize_pairs")


@contextmanager
def without_prefect() -> Iterator[None]:
    """Calls of flows and tasks are calls of their functions, and nothing is shown in Prefect."""
    import prefect

    from flows.runtime import artifacts, stage_artifacts

    def call(self: "prefect.Flow | prefect.Task", *arguments: object, **named: object) -> object:  # type: ignore[type-arg]
        return self.fn(*arguments, **named)

    def show(*_: object, **__: object) -> None:
        """Nowhere."""

    with (
        patch.object(prefect.Flow, "__call__", call),
        patch.object(prefect.Task, "__call__", call),
        patch.object(artifacts, "show_page", show),
        patch.object(artifacts, "show_table", show),
        patch.object(stage_artifacts, "show_page", show),
    ):
        yield


def run_stages(root: Path, scenes: int) -> tuple[float, float]:
    """(wall, CPU) seconds of all stages into an empty data root."""
    from importlib import import_module

    overrides = {"paths.data_root": str(root), "source.num_scenes": scenes, "train_dvae.max_steps": 40, "download.runner": "threads"}
    before, started = os.times(), time.perf_counter()
    for name in FLOWS:
        getattr(import_module(f"flows.{name}"), name)(preset="demo", overrides=overrides)
    wall, after = time.perf_counter() - started, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def main() -> None:
    """Print the times of both ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=3_000, help="captioned pictures of the demo's web site")
    parser.add_argument("--turns", type=int, default=3, help="how often each way is timed")
    given = parser.parse_args()
    times: dict[str, list[tuple[float, float]]] = {"directly": [], "through Prefect": []}
    with tempfile.TemporaryDirectory() as folder, private_server(Path(folder) / "prefect") as server:
        server.wait()
        for turn in range(given.turns):
            with without_prefect():
                times["directly"].append(run_stages(Path(folder) / f"direct-{turn}", given.scenes))
            times["through Prefect"].append(run_stages(Path(folder) / f"flow-{turn}", given.scenes))
    print(f"collect, catalogue, vocabularies, tokens of {given.scenes:,} scenes; the least of {given.turns}:")
    least = {name: tuple(min(column) for column in zip(*rows, strict=True)) for name, rows in times.items()}
    for name, (wall, cpu) in least.items():
        ratios = [value / reference for value, reference in zip((wall, cpu), least["directly"], strict=True)]
        print(f"  {name:16s} {wall:7.1f} s ({ratios[0]:.3f}x)   CPU {cpu:7.1f} s ({ratios[1]:.3f}x)")


if __name__ == "__main__":
    main()
