"""Every way of being wrong, through the command: exit 2, one message, little memory."""

import sys

import pytest
from bad_files import CASES, plan_all


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory, and /proc")
def test_wrong_files_are_refused_in_one_message(tmp_path):
    """One process plans them all, under 1 GB of address space more than Python starts with."""
    assert len(CASES) >= 80
    reasons = set()
    for name, (path, code, out, err, _, extra) in plan_all(tmp_path).items():
        (line,) = err.splitlines()
        assert code == 2 and not out, (name, code, out, err)
        assert line.startswith("gatekit: ") and str(path) in line and line.isprintable(), name
        assert "; " in line and len(line) < 900, (name, line)  # a remedy; no dump of the file
        assert extra < 200e6, (name, extra)
        reasons.add(line.rpartition(str(tmp_path))[2].partition(": ")[2])
    assert len(reasons) > 60
