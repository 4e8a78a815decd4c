"""kill -9 at every step and between every two file operations of a run, then ``gatekit run`` again.

``python tests/bench/kill_points.py`` prints, for each case, the points tried and survived, and the
evaluations that were done again at most. A point is survived if the same command, given again, ends
with exit code 0 and the bytes of an uninterrupted run, and leaves nothing half-written. A run of a
model that is one number has every file operation of a real one. ``--times N`` adds kills at random
times, with checkpoints written as the disk keeps up instead of after every step. ``--full`` tries a
disk that is full from each place on: the run must end with an error, or go on where only a
checkpoint failed; no result may be there that is not whole, and with room again all is as it was.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import errno
import io
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent), str(TESTS.parent / "plugins")]

CASES = {
    "unipc, euler": ["out.mp4"],
    "stochastic": ["out.safetensors", "phases.high.sampler=dpmpp_2m_sde", "phases.low.sampler=lcm"],
    "adaptive": ["out.safetensors", "phases.high.sampler=rk45", "phases.low.sampler=rk45"],
    "own loop": ["out.safetensors", "phases.low.sampler=k_diffusion/dpm_adaptive"],
    "restart": [
        "out.safetensors",
        "phases.low.strategy={use: restart, low: 0.3, high: 0.6, times: 2}",
    ],
    "settle": ["out.safetensors", "phases.high.strategy={use: settle}"],
    "step cache": ["out.safetensors", "phases.low.cache={use: first_block, threshold: 0.5}"],
    "close": ["out.safetensors", "phases.low.history=close"],
    "frames": ["out/"],
}
os_fsync, os_mkdir = os.fsync, os.mkdir
WRITES = ("w", "a", "x", "+")


class Points:
    """Counts places at which a process may be killed, and kills it at one of them.

    With ``full``, writes fail as on a full disk instead, from that place on.
    """

    def __init__(self, shared: mmap.mmap, at: int | None, full: bool = False) -> None:
        self.shared, self.at, self.full, self.count = shared, at, full, 0

    def reach(self) -> bool:
        """One place further; whether it is the one."""
        self.count += 1
        struct.pack_into("q", self.shared, 0, self.count)
        return self.count == self.at and not self.full

    def pass_by(self, writes: bool = False) -> None:
        if self.reach():
            os.kill(os.getpid(), signal.SIGKILL)
        if writes and self.full and self.at is not None and self.count >= self.at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def evaluated(self) -> None:
        (count,) = struct.unpack_from("q", self.shared, 8)
        struct.pack_into("q", self.shared, 8, count + 1)

    def install(self) -> None:
        """Put a place before every file operation, and one in the midst of every write."""
        for name in ("replace", "rename", "fsync", "unlink", "remove", "mkdir", "rmdir"):
            setattr(os, name, self.before(getattr(os, name)))
        opened = io.open

        def watched(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not any(letter in mode for letter in WRITES):
                return opened(file, mode, *args, **kwargs)
            self.pass_by(writes=True)
            return Watched(opened(file, mode, *args, **kwargs), self)

        io.open = builtins.open = watched

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.pass_by(writes=call in (os_fsync, os_mkdir))
            return call(*args, **kwargs)

        return watched


class Watched:
    """A file that may be killed before and in the midst of a write."""

    def __init__(self, file: Any, points: Points) -> None:
        self.file, self.points = file, points

    def write(self, data: Any) -> int:
        self.points.pass_by(writes=True)
        if self.points.reach():
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(data)

    def __enter__(self) -> Watched:
        self.file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self.file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def settings(folder: Path, steps: int) -> None:
    """The project: a schedule and files that a fake family runs."""
    from conftest import SCHEDULE

    text = SCHEDULE.replace("steps: 8", f"steps: {steps}")
    (folder / "fake.yaml").write_text(text)
    for name, gain in (("coarse", 0.5), ("fine", 0.8)):
        (folder / f"{name}.num").write_text(json.dumps({"gain": gain}))
    for name in ("text", "vae"):
        (folder / f"{name}.bin").write_bytes(name.encode())


def child(work: Callable[[], int]) -> int:
    """Run in a fork; its exit code, or minus the signal that ended it."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def gatekit_run(
    out: str, changes: list[str], shared: mmap.mmap, at: int | None, drained: bool, full: bool
) -> int:
    """``gatekit run`` as a child does it."""
    from gatekit.cli import call
    from gatekit.errors import OutputError
    from gatekit.runfolder import RunFolder

    points, fake = Points(shared, at, full), sys.modules["gatekit_test_fakefamily"]
    velocity, checkpoint = fake.Number.through, RunFolder.checkpoint

    def evaluated(self: Any, *args: Any) -> Any:
        points.pass_by()
        points.evaluated()
        if not drained:
            time.sleep(0.002)
        return velocity(self, *args)

    def written(self: Any, state: Any, record: Any) -> None:
        checkpoint(self, state, record)
        with contextlib.suppress(OutputError):  # a run goes on without
            self._writer.drain()

    fake.Number.through = evaluated
    if drained:
        RunFolder.checkpoint = written
        points.install()
    changed = [word for change in changes for word in ("--set", change)]
    return call(["run", "fake.yaml", "-p", "x", "-o", out, *changed])


def content(out: Path) -> dict[str, bytes]:
    """The result's bytes, by file."""
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    return {file.name: file.read_bytes() for file in files if file.exists()}


def left(folder: Path) -> list[str]:
    """Files that a finished run must not leave."""
    names = [p.name for p in folder.rglob("*")]
    return [n for n in names if n.endswith((".part", ".old")) or n == "checkpoint.safetensors"]


class Case:
    """One schedule, killed and run again."""

    def __init__(self, folder: Path, out: str, changes: list[str]) -> None:
        self.folder, self.out, self.changes = folder, out, changes
        self.shared = mmap.mmap(-1, 16)
        self.again, self.failures = 0, list[str]()
        self.whole = self.reference()

    def run(
        self,
        at: int | None = None,
        drained: bool = True,
        after: float | None = None,
        full: bool = False,
    ) -> int:
        """One run in this folder, killed at a point or after some seconds, or out of disk."""

        def work() -> int:
            if after is not None:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, after)
            return gatekit_run(self.out, self.changes, self.shared, at, drained, full)

        return child(work)

    def clear(self) -> None:
        for path in self.folder.glob("*out*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.folder.glob(".*out*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.shared[:] = bytes(16)

    def done(self) -> bool:
        """Whether the run says that it has ended; another one then makes all anew."""
        record = next(self.folder.glob("*.run/run.json"), None)
        return record is not None and json.loads(record.read_text())["status"] == "done"

    def counted(self) -> tuple[int, int]:
        return struct.unpack("qq", self.shared[:])

    def reference(self) -> dict[str, bytes]:
        self.clear()
        assert self.run() == 0, "the uninterrupted run fails"
        self.points, self.evaluations = self.counted()
        return content(self.folder / self.out)

    def fill(self, at: int) -> bool:
        """Run with a disk that is full from a point on, then with room again."""
        self.clear()
        code = self.run(at=at, full=True)
        found = content(self.folder / self.out)
        problems = [f"exit code {code}"] * (code not in (0, 1))
        problems += ["a result that is not whole"] * (found not in ({}, self.whole))
        problems += ["exit code 0 without a result"] * (code == 0 and found != self.whole)
        partial = [name for name in left(self.folder) if name.endswith(".part")]
        problems += [f"left {partial}"] * bool(partial)
        problems += ["fails with room again"] * (self.run() != 0)
        problems += ["other bytes"] * (content(self.folder / self.out) != self.whole)
        if problems:
            self.failures.append(f"disk full from point {at} on: {', '.join(problems)}")
        return not problems

    def attempt(self, name: str, **kill: Any) -> bool:
        """Kill a run, run it again, and see whether all is as if nothing had been."""
        self.clear()
        code = self.run(**kill)
        if code not in (-signal.SIGKILL, -signal.SIGALRM, 0):
            self.failures.append(f"{name}: ended with {code} instead of being killed")
            return False
        done = self.done()
        second = self.run(drained=kill.get("drained", True))
        found = content(self.folder / self.out)
        if code and not done:
            self.again = max(self.again, self.counted()[1] - self.evaluations)
        problems = [f"exit code {second}"] * (second != 0)
        problems += ["other bytes"] * (found != self.whole)
        problems += [f"left {left(self.folder)}"] * bool(left(self.folder))
        if problems:
            self.failures.append(f"{name}: {', '.join(problems)}")
        return not problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--times", type=int, default=0, help="kills at random times, a case")
    parser.add_argument("--full", action="store_true", help="try a disk that is full, too")
    parser.add_argument("--every", type=int, default=1, help="try each n-th point")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()

    import torch

    torch.set_num_threads(1)  # a fork of a process with OpenMP threads would hang
    os.environ |= {"GATEKIT_CACHE": "off"}
    os.environ.pop("GATEKIT_MODELS", None)
    from conftest import load_fake

    from gatekit.cli import call
    from gatekit.registry import registry

    registry().register(load_fake(), "fake")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        settings(Path(place), given.steps)
        call(["run", "fake.yaml", "-p", "x", "-o", "out.mp4"])  # what is imported now is not again
        for name in given.cases:
            began = time.perf_counter()
            out, *changes = CASES[name]
            case = Case(Path(place), out, changes)
            tries = range(1, case.points + 1, given.every)
            survived = sum(case.attempt(f"point {i}", at=i) for i in tries)
            row = {"case": name, "points": len(tries), "survived": survived, "again": case.again}
            chance, case.again = random.Random(0), 0
            began_run = time.perf_counter()
            case.clear()
            case.run(drained=False)
            length = time.perf_counter() - began_run
            timed = [
                case.attempt(f"time {i}", drained=False, after=chance.uniform(0.0005, length))
                for i in range(given.times)
            ]
            row |= {"times": len(timed), "times survived": sum(timed), "times again": case.again}
            filled = [case.fill(i) for i in tries] if given.full else []
            row |= {"full": len(filled), "full survived": sum(filled)}
            row |= {"evaluations": case.evaluations, "failures": case.failures[:5]}
            row["seconds"] = round(time.perf_counter() - began, 1)
            rows.append(row)
            print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    tried, survived = (
        {k: sum(row[k] for row in rows) for k in kinds}
        for kinds in (
            ("points", "times", "full"),
            ("survived", "times survived", "full survived"),
        )
    )
    totals = tried | survived
    print("all:", ", ".join(f"{k} {v}" for k, v in totals.items()))
    if given.json:
        given.json.write_text(json.dumps({"cases": rows, "all": totals}, indent=1))
    return 0 if sum(tried.values()) == sum(survived.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
