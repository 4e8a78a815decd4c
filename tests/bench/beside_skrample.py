"""skrample's samplers beside gatekit's on a mixture with a known flow, at equal evaluations.

    python3.12 -m venv /path/to/venv && /path/to/venv/bin/pip install skrample==0.7.0
    python tests/bench/beside_skrample.py /path/to/venv/bin/python

skrample needs Python 3.12, so it runs in an interpreter of its own. Both get the same noise, the
same grid (shift 5) and the same denoiser, in float64. Prints the root mean square error of the
final state to the flow's, at 8, 12, 20 and 40 evaluations; where a method's stages do not divide
the budget, the number it took is beside the error (ours stay below it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gatekit
from gatekit.testing import Mixture

SHIFT, BUDGETS = 5.0, (8, 12, 20, 40)
OURS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("euler", {}),
    ("dpmpp_2m", {}),
    ("dpmpp_2m", {"coordinate": "theta"}),
    ("dpmpp_3m", {}),
    ("ab2", {}),
    ("ab3", {}),
    ("ipndm", {}),
    ("unipc", {}),
    ("unipc", {"coordinate": "theta"}),
    ("unipc", {"order": 3}),
    ("unipc", {"order": 3, "coordinate": "theta"}),
    ("polish", {}),
    ("midpoint", {}),
    ("ralston3", {}),
    ("rk4", {}),
)


def main() -> None:
    """Run both and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", type=Path, help="interpreter of an environment with skrample")
    python = parser.parse_args().python
    noise = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = gatekit.sample(Mixture(), noise, grid(2000), sampler="heun")
    rows = [*of_skrample(python, noise, truth), *of_gatekit(noise, truth)]
    said = "import importlib.metadata as m; print(m.version('skrample'))"
    version = subprocess.run([python, "-c", said], capture_output=True, text=True, check=True)
    print(
        f"skrample {version.stdout.strip()}, gatekit {gatekit.__version__}; grid: shift {SHIFT}\n"
    )
    print("| sampler | " + " | ".join(map(str, BUDGETS)) + " |")
    print("|---|" + "---|" * len(BUDGETS))
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |")


def grid(steps: int) -> list[float]:
    """Wan's."""
    return [SHIFT * u / (1 + (SHIFT - 1) * u) for u in (1 - i / steps for i in range(steps + 1))]


def cell(end: Tensor, truth: Tensor, calls: int, budget: int) -> str:
    """An error, and how many evaluations it took where that is not the budget."""
    error = f"{float((end - truth).square().mean().sqrt()):.4f}"
    return error if calls == budget else f"{error} ({calls})"


def of_skrample(python: Path, noise: Tensor, truth: Tensor) -> list[tuple[str, list[str]]]:
    """Its rows, run by ``skrample_worker.py``."""
    mixture = Mixture()
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder, "problem.npz"), Path(folder, "ends.npz")
        np.savez(
            given,
            noise=noise.numpy(),
            shift=SHIFT,
            budgets=BUDGETS,
            weights=mixture.weights,
            means=mixture.means,
            stds=mixture.stds,
        )
        worker = Path(__file__).with_name("skrample_worker.py")
        subprocess.run([python, worker, given, made], check=True)
        rows: dict[str, list[str]] = {}
        with np.load(made) as ends:
            for key in ends.files:
                name, budget, calls = json.loads(key)
                end = torch.from_numpy(ends[key])
                rows.setdefault(f"skrample {name}", []).append(cell(end, truth, calls, budget))
    return list(rows.items())


def of_gatekit(noise: Tensor, truth: Tensor) -> list[tuple[str, list[str]]]:
    """Ours. The interval to 0 takes one evaluation, whatever the sampler."""
    rows: list[tuple[str, list[str]]] = []
    for name, params in OURS:
        cost = gatekit.list_samplers()[name].nfe_per_step
        cells: list[str] = []
        for budget in BUDGETS:
            steps = 1 + (budget - 1) // cost
            phase = gatekit.FunctionPhase(Mixture(), name, grid(steps), params=params)
            calls = [0]

            def count(_: Any, record: gatekit.Record, __: Tensor, calls: list[int] = calls) -> None:
                calls[0] += record.nfe

            end = gatekit.sample_phases([phase], noise, observers=[count])
            cells.append(cell(end, truth, calls[0], budget))
        given = "".join(f", {key} {value}" for key, value in params.items())
        rows.append((f"`{name}`{given}", cells))
    return rows


if __name__ == "__main__":
    main()
