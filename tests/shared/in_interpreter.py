"""Triton's kernels on the CPU: by its interpreter, in a process of their own."""

import importlib.util
import os
import subprocess
import sys

import pytest

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="test_in_the_interpreter runs it")


def starts_interpreter(test):
    """Of the one test that starts the others of its file: skipped where that cannot be."""
    here = pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
    there = pytest.mark.skipif(
        importlib.util.find_spec("triton") is None,
        reason="triton is not installed: the kernels are not tested (docs/performance.md)",
    )
    return here(there(test))


def check_in_interpreter(file):
    """All tests of a file pass there, and there are some."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", file],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout
