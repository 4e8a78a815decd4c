"""Commitment on a terminal: bands over log-SNR, where they settle, and Wan's boundaries beside."""

from __future__ import annotations

from gatekit_research.commitment.bands import NAMES
from gatekit_research.commitment.run import PHASES, Commitment
from gatekit_research.tables import print_table

ROWS = 20


def show(found: Commitment) -> None:
    """Print it."""
    print(f"{found.name}: commitment over {len(found.runs)} runs of {len(found.sigmas)} steps")
    step = -(-len(found.sigmas) // ROWS)
    mean = found.mean
    rows = [
        [
            f"{found.sigmas[i]:.4f}",
            _number(found.log_snr(found.sigmas[i])),
            *(f"{mean[name][i]:.3f}" for name in NAMES),
        ]
        for i in range(0, len(found.sigmas), step)
    ]
    print_table(("sigma", "log-SNR", *NAMES), rows)
    print()
    low, high = found.edges
    about = (f"r < {low:g}", f"{low:g} <= r < {high:g}", f"r >= {high:g}")
    rows = [
        [
            f"{name} ({which})",
            f"{found.settled[name]:.4f}",
            _number(found.log_snr(found.settled[name])),
            f"{found.spread(name):.4f}",
        ]
        for name, which in zip(NAMES, about, strict=True)
    ]
    print_table(("band", f"settled ({found.level:g}) at", "log-SNR", "sd over runs"), rows)
    for phase, sigma in found.boundaries.items():
        far = " and ".join(
            f"{_signed(apart['sigma'])} from Wan's {task}"
            for task, apart in found.from_wan(sigma).items()
        )
        print(f"{phase} until {sigma:.4f}, where the {PHASES[phase]} band has settled: {far}")


def _number(value: float | None) -> str:
    return "-inf" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "?" if value is None else f"{value:+.4f}"
