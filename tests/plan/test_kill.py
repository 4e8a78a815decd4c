"""kill -9 in the midst of a run; all points by ``python tests/bench/kill_points.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "kill_points.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forks of a process")
def test_a_killed_run_ends_as_if_nothing_had_been(tmp_path):
    found = tmp_path / "found.json"
    argv = ["--cases", "unipc, euler", "--steps", "3", "--every", "3", "--times", "2", "--full"]
    done = subprocess.run(
        [sys.executable, str(BENCH), *argv, "--json", str(found)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads(found.read_text())["cases"]
    assert row["points"] == row["survived"] > 10 and row["times survived"] == 2
    assert row["full"] == row["full survived"] == row["points"]
    assert row["again"] <= 2, "one step, of two passes"
