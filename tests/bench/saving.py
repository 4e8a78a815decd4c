"""Time, memory and size of saving a video: ``python tests/bench/saving.py [WIDTH HEIGHT FRAMES]``.

Each kind in a process of its own. Memory is what saving takes beyond the video itself: the
largest resident size while saving less the one before.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("out.mp4", "out.webp", "out.png", "out/")


def scene(width: int, height: int, frames: int):
    """Discs that move over a gradient, with a little grain, so that nothing is trivial."""
    import torch

    torch.set_num_threads(1)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    grain = torch.Generator().manual_seed(0)
    video = torch.empty(frames, height, width, 3)
    for i in range(frames):
        video[i] = torch.stack([x, y, 1 - x], dim=-1) * 0.7
        for k in range(6):
            cx, cy = (0.15 * k + 0.01 * i) % 1, (0.2 * k + 0.006 * i) % 1
            disc = ((x - cx) ** 2 + (y - cy) ** 2 < 0.01).float()[..., None]
            video[i] += disc * (torch.tensor([k % 2, k % 3 / 2, k / 6]) - video[i])
        video[i] += 0.01 * torch.randn(height, width, 1, generator=grain)
    return video.clamp_(0, 1)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str, width: int, height: int, frames: int) -> None:
    from gatekit.target import Target

    video = scene(width, height, frames)
    with tempfile.TemporaryDirectory() as folder:
        target = Target.of(f"{folder}/{name}").check(frames)
        target.write(video[:1], 16, "{}")  # libraries loaded before the count begins
        for path in Path(folder).rglob("*.*"):
            path.unlink()
        before, began = peak(), time.perf_counter()
        target.write(video, 16, "{}")
        seconds, more = time.perf_counter() - began, peak() - before
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    print(f"{name:10} {seconds:6.1f} s  {more / 2**20:6.0f} MiB  file {size / 2**20:6.1f} MiB")


if __name__ == "__main__":
    if len(sys.argv) == 5:
        measure(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        size = sys.argv[1:] or ["1280", "720", "81"]
        for kind in NAMES:
            subprocess.run([sys.executable, __file__, kind, *size], check=True)
