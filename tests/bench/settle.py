"""``settle`` beside its equal-cost control, on a mixture whose first model is a coarse one.

    python tests/bench/settle.py

Two models predict for one target: a coarse one (the target's narrowest mode left out, the others
wider), cheap, for the first phase, and the exact one for the second. ``settle`` hands over when the
measure says so; the control hands over at one fixed step, the same for every sample, chosen so that
both take the same number of coarse evaluations in the mean (to the nearest step). Every sample is a
run of its own. Prints the root mean square error of the end to that of the exact model's flow, mean
and median over the samples, and the share of coarse evaluations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import gatekit
from gatekit.functional import trace_phases
from gatekit.testing import Mixture

STEPS, LAST, SAMPLES, SIZE = 20, 14, 96, 16
EXACT = Mixture()
COARSE = Mixture(weights=(0.35, 0.65), means=(-1.1, 0.8), stds=(0.6, 0.8))


def grid(steps: int) -> list[float]:
    """Wan's, shift 5."""
    return [5 * u / (1 + 4 * u) for u in (1 - i / steps for i in range(steps + 1))]


def run(x: Tensor, cut: int, strategy: str, **params: Any) -> tuple[Tensor, int]:
    """The end, and the coarse evaluations."""
    sigmas = grid(STEPS)
    done = trace_phases(
        [
            gatekit.FunctionPhase(
                COARSE,
                "unipc",
                sigmas[: cut + 1],
                field="coarse",
                strategy=strategy,
                strategy_params=params,
            ),
            gatekit.FunctionPhase(EXACT, "unipc", sigmas[cut:], field="exact", history="auto"),
        ],
        x,
    )
    return done.x, sum(r.nfe for r in done if r.phase == "phases[0]")


def main() -> None:
    """Print one row a threshold, and its control."""
    noise = torch.randn(
        SAMPLES, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    truth = gatekit.sample(EXACT, noise, grid(800), sampler="heun")
    print(f"{SAMPLES} samples, {STEPS} steps in all, coarse model for at most {LAST} of them\n")
    print("| threshold | coarse steps, mean (least to most) | settle mean / median | control |")
    print("|---|---|---|---|")
    for threshold in (0.1, 0.2, 0.4, 0.8, 1.6):
        found = [run(x, LAST, "settle", threshold=threshold) for x in noise.split(1)]
        counts = [count for _, count in found]
        mean = sum(counts) / SAMPLES
        control = [run(x, max(1, round(mean)), "grid")[0] for x in noise.split(1)]
        cells = [
            "{:.4f} / {:.4f}".format(*errors(torch.cat(ends), truth))
            for ends in ([end for end, _ in found], control)
        ]
        print(f"| {threshold} | {mean:.1f} ({min(counts)} to {max(counts)}) | {cells[0]} | "
              f"{cells[1]} at {max(1, round(mean))} |")  # fmt: skip


def errors(ends: Tensor, truth: Tensor) -> tuple[float, float]:
    """Root mean square over the elements of each sample: its mean and median."""
    each = (ends - truth).square().mean(1).sqrt()
    return float(each.mean()), float(each.median())


if __name__ == "__main__":
    main()
