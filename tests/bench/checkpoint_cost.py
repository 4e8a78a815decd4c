"""What a checkpoint costs at A14B's size: bytes, the run's own time, the writer's time.

``python tests/bench/checkpoint_cost.py`` takes the latent of 832 x 480 x 81 (16 x 21 x 60 x 104)
with three past evaluations, each with a state, a prediction and a corrected start of its own, which
is the most that a sampler of three points keeps. As in a run, each step makes three of these ten
tensors anew. The run's own time is held against the least time of a step: the products of two
passes of A14B at the peak of an H100, which no real step comes near.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from gatekit import Evaluation, Record, State
from gatekit.checkwriter import CheckpointWriter

SHAPE = (1, 16, 21, 60, 104)
TOKENS, WIDTH, HIDDEN, TEXT, LAYERS = 21 * 30 * 52, 5120, 13824, 512, 40
PEAK = 989e12  # products and sums a second of an H100 SXM in bf16, its data sheet's


def step_bound() -> float:
    """Seconds of a step with two passes, by its products alone."""
    own = 4 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH
    cross = 2 * (TOKENS + TEXT) * WIDTH**2 + 2 * TOKENS * TEXT * WIDTH
    inner = 2 * TOKENS * WIDTH * HIDDEN
    return 2 * 2 * LAYERS * (own + cross + inner) / PEAK


def following(state: State) -> State:
    """The state after one more step."""

    def new() -> torch.Tensor:
        return torch.randn(SHAPE, device=state.x.device)

    latest = Evaluation(state.sigma, state.x, new(), "field", new())
    past = (latest, *state.past)[:3]
    return State(new(), state.sigma * 0.95, state.step + 1, past=past, visited=(1.0, 0.9))


def measured(device: str, steps: int, folder: Path) -> dict[str, Any]:
    state = State(torch.randn(SHAPE, device=device), 1.0)
    for _ in range(3):
        state = following(state)
    writer = CheckpointWriter(folder / "checkpoint.safetensors", {"fingerprint": "f"})
    records = [Record(i, "high", 1.0, 0.9, 1, 2, 1.0, "field", "unipc") for i in range(40)]
    writer.submit(state, tuple(records))
    writer.drain()
    own: list[float] = []
    written: list[float] = []
    for _ in range(steps):
        state = following(state)
        if device != "cpu":
            torch.cuda.synchronize()
        before = writer.facts["writing"]
        began = time.perf_counter()
        writer.submit(state, tuple(records))
        own.append(time.perf_counter() - began)
        writer.drain()
        written.append(writer.facts["writing"] - before)
    size = (folder / "checkpoint.safetensors").stat().st_size
    writer.close()
    found = {"steps": steps, "bytes": size, "copied bytes a step": 3 * state.x.nbytes}
    median = statistics.median(own)
    found |= {"own ms": 1e3 * median, "own ms, most": 1e3 * max(own)}
    found |= {"writer ms": 1e3 * statistics.median(written), "writer ms, most": 1e3 * max(written)}
    bound = step_bound()
    return found | {"least step s": bound, "share of it %": 100 * median / bound}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = {"device": given.device, **measured(given.device, given.steps, Path(folder))}
    for name, value in found.items():
        print(f"{name}: {f'{value:,.3g}' if isinstance(value, float) else value}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
