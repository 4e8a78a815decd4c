"""Fuzzing of what strangers give: weight files' headers, schedules, what videos carry.

``python tests/bench/fuzz.py gguf safetensors schedule --inputs 100000`` prints for each target
how many inputs went in, what came out, the slowest, and the memory. An input fails if it raises
what is none of gatekit's errors, takes over 2 s, or more than 256 MB. Where atheris is installed
(``pip install atheris``), what reaches new code is mutated on; without it, or with ``--mutate``,
seeds are mutated blindly.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_targets import SEEDS, TARGETS, scratch

MEMORY = 256 << 20  # that one input may take beyond what the process has
SECONDS = 2.0
STUCK = 60  # seconds after which a process that hangs tells where, and ends
LONGEST = 4096
INTERESTING = (b"\0", b"\xff", b"\x7f", b"\0" * 8, b"\xff" * 8, b"\0\0\0\0\1\0\0\0", b"\x80", b"9")


@dataclass
class Found:
    """What inputs have done so far.

    Attributes:
        outcomes: Class of error, or ``ok`` -> number of inputs.
        failures: What went wrong and where -> an input.
    """

    target: str
    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, bytes] = field(default_factory=dict)
    slowest: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def said(self, how: str) -> str:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        outcomes = ", ".join(f"{name} {n:,}" for name, n in self.outcomes.most_common())
        return (
            f"{self.target}: {self.inputs:,} inputs ({how}), {len(self.failures)} failures; "
            f"{outcomes}; slowest {self.slowest:.2f} s, process at most {peak / 1e6:.0f} MB, "
            f"{time.perf_counter() - self.started:.0f} s in all"
        )


def limit_memory() -> None:
    """Let the process take no more than ``MEMORY`` beyond what it has: more is a MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def try_one(found: Found, data: bytes, folder: Path) -> None:
    """Run one input and note what it did."""
    from gatekit.errors import GatekitError

    found.inputs += 1
    started = time.process_time()  # of this process alone: the machine may have others
    try:
        TARGETS[found.target](data, folder)
        outcome = "ok"
    except GatekitError as exc:
        outcome = type(exc).__name__
    except Exception as exc:
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        outcome = f"{type(exc).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        found.failures.setdefault(f"{outcome}: {str(exc)[:80]}", data)
    seconds = time.process_time() - started
    found.slowest = max(found.slowest, seconds)
    if seconds > SECONDS:
        found.failures.setdefault(f"took {seconds:.1f} s", data)
    found.outcomes[outcome] += 1


def mutated(seeds: list[bytes], chance: random.Random) -> bytes:
    """A seed with some of its bytes changed, taken out, repeated, or taken from another seed."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at, length = chance.randrange(len(data) + 1), chance.choice((1, 1, 2, 4, 8, 32))
        kind = chance.randrange(6)
        if kind == 0 and data:
            data[at % len(data)] = chance.randrange(256)
        elif kind == 1:
            data[at : at + length] = chance.choice(INTERESTING)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * chance.choice((1, 2, 60))
        elif kind == 4:
            other = chance.choice(seeds)
            start = chance.randrange(len(other) + 1)
            data[at : at + length] = other[start : start + length]
        else:
            data[at : at + length] = chance.randbytes(length)
    return bytes(data[: 2 * LONGEST])


def blindly(target: str, number: int, folder: Path, seed: int = 0) -> Found:
    """Run every seed and ``number`` mutations of seeds."""
    seeds, chance, found = SEEDS[target](), random.Random(seed), Found(target)
    for data in seeds:
        try_one(found, data, folder)
    for _ in range(number - len(seeds)):
        try_one(found, mutated(seeds, chance), folder)
    return found


def ended(found: Found, how: str, keep: Path) -> int:
    """Print what was found and keep each failing input; the exit code."""
    print(found.said(how), flush=True)
    for what, data in found.failures.items():
        keep.mkdir(parents=True, exist_ok=True)
        file = keep / f"{found.target}-{hashlib.sha256(data).hexdigest()[:12]}"
        file.write_bytes(data)
        print(f"  {what}: {file}", flush=True)
    return 1 if found.failures else 0


def guided(target: str, given: argparse.Namespace, folder: Path) -> None:
    """Fuzz one target with atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["gatekit", "gatekit_wan22"]):
        import gatekit_wan22.family
        import gatekit_wan22.gguf_tokenizer
        import gatekit_wan22.pth_file
        import gatekit_wan22.safetensors_file
        import gatekit_wan22.sentencepiece_file
        import gatekit_wan22.survey  # noqa: F401
    corpus = folder / "corpus"
    corpus.mkdir()
    warm = Found(target)
    for i, data in enumerate(SEEDS[target]()):
        (corpus / f"{i}").write_bytes(data)
        try_one(warm, data, folder)  # what is imported on first use is no input's memory
    found = Found(target, failures=warm.failures)

    def one(data: bytes) -> None:
        if found.inputs == 0:
            limit_memory()
        faulthandler.dump_traceback_later(STUCK, exit=True)
        try_one(found, data, folder)
        over = given.seconds and time.perf_counter() - found.started > given.seconds
        if over or found.inputs >= given.inputs:
            faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(folder)  # nothing is tidied up after _exit
            os._exit(ended(found, f"atheris {version()}", given.keep))

    options = [
        f"-max_len={LONGEST}",
        f"-seed={given.seed}",
        "-verbosity=0",
        f"-timeout={STUCK}",
        "-len_control=0",
    ]
    options += ["-rss_limit_mb=0", "-detect_leaks=0", "-print_final_stats=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def version() -> str:
    """Of atheris; empty where it is not installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as of

    try:
        return of("atheris")
    except PackageNotFoundError:
        return ""


def child(target: str, given: argparse.Namespace) -> int:
    """One target, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        folder = Path(name)
        if version() and not given.mutate:
            guided(target, given, folder)
        blindly(target, 0, folder)
        limit_memory()
        return ended(blindly(target, given.inputs, folder, given.seed), "mutations", given.keep)


def main() -> int:
    """Fuzz the named targets, one after the other; 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each target")
    parser.add_argument("--seconds", type=float, help="of each target, at most (with atheris)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutate", action="store_true", help="without atheris")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return child(given.targets[0], given)
    codes = [
        subprocess.run([sys.executable, __file__, "--inside", target, *rest(given)], check=False)
        for target in given.targets or TARGETS
    ]
    return int(any(done.returncode for done in codes))


def rest(given: argparse.Namespace) -> list[str]:
    """The options for a child."""
    options = [f"--inputs={given.inputs}", f"--seed={given.seed}", f"--keep={given.keep}"]
    options += [f"--seconds={given.seconds}"] * bool(given.seconds)
    return [*options, *(["--mutate"] if given.mutate else [])]


if __name__ == "__main__":
    sys.exit(main())
