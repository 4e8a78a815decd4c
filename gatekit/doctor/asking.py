"""Asking probes: started at once, read when wanted, killed when they do not answer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, cast

from gatekit.check import Finding

SECONDS = 60.0  # torch from a cold disk takes tens of seconds


class Asked:
    """Probes under way in a process of their own.

    Args:
        names: Of ``probe.PROBES``, or modules to import, in order.
        seconds: How long to wait for all of them.
    """

    def __init__(self, names: Sequence[str], seconds: float = SECONDS) -> None:
        self.names, self.seconds = tuple(names), seconds
        self._until = time.monotonic() + seconds
        self._lines: list[dict[str, Any]] | None = None
        self._end = ""
        path = os.pathsep.join(dict.fromkeys(os.path.abspath(p) for p in sys.path))  # noqa: PTH100
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gatekit.doctor.probe", *names],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
            )
        except OSError as exc:  # too many processes, too little memory, no interpreter
            self._lines, self._end = [], f"no process could be started: {exc.strerror or exc}"

    def answer(self, name: str) -> dict[str, Any] | Finding:
        """What a probe found, or a Finding that says why there is nothing."""
        lines = self._read()
        for line in lines:
            if line.get("name") != name:
                continue
            if "value" in line:
                return cast("dict[str, Any]", line["value"])
            kind = "missing" if line.get("kind") == "missing" else "broken"
            return Finding(kind, str(line.get("error")))
        last = next((str(line["begins"]) for line in reversed(lines) if "begins" in line), "")
        about = "" if last in ("", name) else f" while {last} was looked at"
        return Finding("broken", f"{self._end or 'no answer'}{about}")

    def close(self) -> None:
        """End the process; idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> list[dict[str, Any]]:
        if self._lines is not None or self._process is None:
            return self._lines or []
        try:
            output, _ = self._process.communicate(timeout=max(0.1, self._until - time.monotonic()))
            self._end = _ended(self._process.returncode)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
            self._end = f"no answer within {self.seconds:.0f} s"
        self._lines = []
        for line in output.decode("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    self._lines.append(cast("dict[str, Any]", found))
        return self._lines


def _ended(code: int) -> str:
    return f"crashed (signal {-code})" if code < 0 else f"ended with exit code {code}"
