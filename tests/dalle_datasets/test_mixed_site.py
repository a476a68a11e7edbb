"""5,000 good and faulty images collected twice, refreshed, and killed at random points: `benchmarks/bench_mixed_site.py` as a test."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_mixed_site.py"


@pytest.mark.long
def test_a_site_of_5000_mixed_images():
    run = subprocess.run([sys.executable, str(SCRIPT), "5000", "--kills", "2"], capture_output=True, text=True, timeout=1_200)
    assert run.returncode == 0, run.stdout + run.stderr
    for promise in (
        "every image is a pair or a drop with its reason, to the row",
        "a second run asks for nothing",
        "a refresh asks for the pages, which are unchanged, and for no image",
        "and, run again, it ended with the same pairs, bytes and tables",
    ):
        assert promise in run.stdout
    assert run.stdout.count("and changes no table") == 2
