"""Commitment over log-SNR: a line a band, a faint one a run, Wan's boundaries beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatekit_research.commitment.bands import NAMES
from gatekit_research.commitment.run import WAN, Commitment
from gatekit_research.plotting import COLOURS, GREY, INK, clean, save_figure


def draw_commitment(found: Commitment, path: Path) -> Path:
    """Write the plot. Raises OutputError."""
    return save_figure(path, lambda figure: _draw(figure, found), (9.0, 5.6))


def _draw(figure: Any, found: Commitment) -> None:
    axes = figure.subplots()
    figure.subplots_adjust(left=0.08, right=0.98, top=0.84, bottom=0.11)
    places = [found.log_snr(sigma) for sigma in found.sigmas]
    shown = [i for i, place in enumerate(places) if place is not None]
    x = [places[i] for i in shown]
    for name, colour in zip(NAMES, COLOURS, strict=False):
        for run in found.runs:
            axes.plot(
                x, [run.curves[name][i] for i in shown], color=colour, alpha=0.18, linewidth=0.8
            )
        mean = [found.mean[name][i] for i in shown]
        axes.plot(x, mean, color=colour, linewidth=2.2, marker="o", markersize=3.5, label=name)
    axes.axhline(found.level, color=GREY, linewidth=0.9, ls=(0, (4, 3)))
    for task, boundary in WAN.items():
        at = found.log_snr(boundary)
        axes.axvline(at, color=INK, linewidth=0.9, ls=(0, (1, 2)))
        axes.text(at, 1.02, f" {task}", fontsize=8, color=INK, rotation=45, va="bottom",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_ylim(min(-0.1, *(min(curve) for curve in found.mean.values())) - 0.02, 1.03)
    axes.set_xlabel("log-SNR (rises as noise falls)", color=INK, fontsize=9.5)
    axes.set_ylabel("commitment 1 - ||B(D - x0)|| / ||B x0||", color=INK, fontsize=9.5)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower right")
    clean(axes)
    figure.text(0.08, 0.945, found.name, fontsize=15, color=INK, weight="bold")
    about = f"{len(found.runs)} runs of {len(found.sigmas)} steps; dotted: Wan's boundaries"
    figure.text(0.08, 0.905, about, fontsize=9.5, color=GREY)
