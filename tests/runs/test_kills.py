"""The kill benchmark at a size that fits into every test run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bench_kills.py"


@pytest.mark.campaign
def test_killed_at_random_points_nothing_is_torn_and_everything_is_finished() -> None:
    """kill -9 of run, extract and report, at random times and file operations, each then finished to the same bytes."""
    call = [sys.executable, str(SCRIPT), "--kills", "16", "--seconds", "30"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] >= 1  # a slow machine ends by the time
    assert counts["jobs"] == counts["finished as if never interrupted"]
