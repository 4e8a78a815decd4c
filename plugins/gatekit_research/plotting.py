"""Figures: made with matplotlib where it is installed, written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gatekit

COLOURS = ("#2f6df6", "#e0457b", "#f2a541", "#2a9d8f", "#8a63d2", "#5c677d")
INK, GREY, PAPER = "#1d2433", "#8b93a5", "#ffffff"


def can_plot() -> bool:
    """Whether matplotlib is there."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def check_plot(path: Path) -> None:
    """Raise InputError where no plot can be written to ``path``: before anything is measured."""
    if not can_plot():
        raise gatekit.InputError(
            "plots are drawn with matplotlib, which is not installed",
            where="--plot",
            remedy=gatekit.install_extra("report"),
        )
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise gatekit.InputError(
            "plots are written as .png, .svg or .pdf",
            where="--plot",
            value=str(path),
            remedy="name such a file",
        )


def save_figure(
    path: Path, draw: Callable[[Any], None], size: tuple[float, float] = (10.0, 5.6)
) -> Path:
    """Let ``draw`` fill a matplotlib Figure and write it. Raises OutputError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=size, dpi=160, facecolor=PAPER)
    FigureCanvasAgg(figure)
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.lstrip(".").lower(), facecolor=PAPER)
    return gatekit.write_atomic(path, buffer.getvalue())


def clean(axes: Any) -> None:
    """The project's axes: two spines, a faint grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c9cfdb")
    axes.tick_params(colors=GREY, labelsize=8.5, length=3)
    axes.grid(axis="y", color="#e6e9f0", linewidth=0.8, zorder=0)
