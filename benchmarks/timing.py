"""Fair ratios on a machine that is not ours alone: alternatives take turns in one process; the least CPU time of each counts."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def least_cpu_seconds(alternatives: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Process CPU seconds of each alternative: the minimum over `repeats` rounds, after one round that does not count."""
    least = dict.fromkeys(alternatives, float("inf"))
    for round_number in range(repeats + 1):
        for name, run in alternatives.items():
            started = time.process_time()
            run()
            if round_number:
                least[name] = min(least[name], time.process_time() - started)
    return least


def print_ratios(
    title: str, seconds: Mapping[str, float], reference: str, rate: Callable[[float], str] = lambda s: f"{s * 1e3:9.1f} ms"
) -> None:
    """One line per alternative: its figure, and how many times faster than `reference` it is."""
    print(title)
    for name, value in seconds.items():
        print(f"  {name:32s} {rate(value)}   {seconds[reference] / value:5.2f}x")


def peak_mb() -> float:
    """Largest resident size of this program so far (not, as `getrusage` has it, of the one that started it)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def in_child(script: str, function: str, root: Path) -> dict[str, Any]:
    """What `function(root)` of a script beside this one returns, from a process of its own, whose peak memory is nobody else's."""
    code = f"import json, pathlib, {script}; print(json.dumps({script}.{function}(pathlib.Path({str(root)!r}))))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parent).stdout
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer
