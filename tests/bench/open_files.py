"""What opening an A14B-size file of each kind costs: ``python tests/bench/open_files.py``.

The files are sparse: headers of one expert of I2V A14B in full, no weights. Each line is a
process of its own. "Opened" is everything a variant does before weights are read: header, sizes,
every tensor accounted for, its files mapped, a view of each tensor's bytes; "extra" is how far the
process's memory rose by it, "peak" its largest memory in all, torch included. Then ``gatekit
inspect`` and ``gatekit plan`` as commands, start of Python included.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def resident() -> int:
    """Memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def peak() -> int:
    """Largest memory of this process so far, in bytes.

    From the kernel's own count of the pages of this program: ``ru_maxrss`` of a child is never
    below that of the process it was started from.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmHWM in /proc/self/status")


def open_one(use: str, file: str) -> None:
    """Open a file as a variant does, map it, print seconds, extra and peak bytes."""
    import torch  # noqa: F401  (not part of what opening costs)

    import gatekit_wan22
    from gatekit_wan22.mapped import MappedFile

    variants = {cls.name: cls for cls in gatekit_wan22.gatekit_register_variants()}
    before, started = resident(), time.perf_counter()
    variant = variants[use](variants[use].Params(file=Path(file), expert="high"))
    variant.facts()
    mapped = MappedFile(variant.header())
    views = [mapped.raw(info) for info in variant.tensors().values()]
    assert sum(view.numel() for view in views) == variant.header().tensor_bytes
    print(time.perf_counter() - started, resident() - before, peak())


def command(*arguments: str) -> None:
    """Run a gatekit command, print seconds, 0 and peak bytes as the last line."""
    from gatekit.cli import call

    started = time.perf_counter()
    code = call(list(arguments))
    print(time.perf_counter() - started, code, peak())


def measured(*arguments: str) -> tuple[float, float, float]:
    """The three numbers that this script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=True
    )
    seconds, second, largest = done.stdout.splitlines()[-1].split()
    return float(seconds), float(second), float(largest)


def main() -> None:
    """Print the table."""
    from full_size import SCHEDULE, write_all

    print("| file | size | opened | extra | peak | inspect | its peak | plan | its peak |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind, (use, path) in write_all(Path(folder)).items():
            files = [path] if path.is_file() else list(path.iterdir())
            size = sum(f.stat().st_size for f in files)
            seconds, extra, most = measured("open", use, str(path))
            schedule = Path(folder) / "one.yaml"
            schedule.write_text(SCHEDULE.format(use=use, file=path))
            started = time.perf_counter()
            _, code, inspect_peak = measured("command", "inspect", str(path))
            inspect = time.perf_counter() - started
            assert code == 0
            started = time.perf_counter()
            _, code, plan_peak = measured("command", "plan", str(schedule))
            plan = time.perf_counter() - started
            cells = [
                kind, f"{size / 1e9:.1f} GB", f"{1000 * seconds:.0f} ms", f"{extra / 1e6:.0f} MB",
                f"{most / 1e6:.0f} MB", f"{inspect:.2f} s", f"{inspect_peak / 1e6:.0f} MB",
                f"{plan:.2f} s", f"{plan_peak / 1e6:.0f} MB",
            ]  # fmt: skip
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["open"]:
        open_one(*sys.argv[2:])
    elif sys.argv[1:2] == ["command"]:
        command(*sys.argv[2:])
    else:
        main()
