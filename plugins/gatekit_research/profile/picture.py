"""A profile as a plot: relative velocity error and x0 error over sigma, a line a variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gatekit_research.plotting import COLOURS, GREY, INK, clean, save_figure
from gatekit_research.profile.document import RISK_FROM, Profile

PANELS = (
    ("relative", "velocity error ||v_q - v|| / ||v||"),
    ("x0", "x0 error ||D_q - D|| / ||D||"),
)


def draw_profile(profile: Profile, path: Path) -> Path:
    """Write the plot. Raises OutputError."""
    return save_figure(path, lambda figure: _draw(figure, profile))


def _draw(figure: Any, profile: Profile) -> None:
    panels = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.83, bottom=0.11, wspace=0.2)
    references = set(profile.reference.values())
    shown = [key for key in profile.variants if key not in references] or list(profile.variants)
    for axes, (name, label) in zip(panels, PANELS, strict=True):
        for i, key in enumerate(shown):
            variant = profile.variants[key]
            values = [getattr(row, name) for row in variant.rows]
            axes.plot(
                [row.sigma for row in variant.rows],
                values,
                color=COLOURS[i % len(COLOURS)],
                marker="o",
                markersize=3.5,
                linewidth=1.8,
                label=f"{key} ({variant.bits:.1f} bits)",
            )
        axes.axvspan(RISK_FROM, 1.0, color="#e0457b", alpha=0.05, linewidth=0)
        axes.set_xlim(1.0, 0.0)
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("sigma (noise level after shift)", color=INK, fontsize=9.5)
        axes.set_title(label, color=INK, fontsize=9.5, loc="left")
        clean(axes)
    panels[0].legend(frameon=False, fontsize=8, labelcolor=INK)
    figure.text(0.075, 0.945, profile.made.name, fontsize=15, color=INK, weight="bold")
    about = f"{profile.runs} runs of {len(profile.steps)} steps on {profile.made.device}"
    figure.text(0.075, 0.9, f"{about}; shaded: commitment risk", fontsize=9.5, color=GREY)
