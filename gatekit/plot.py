"""A picture of a plan: the sigmas, coloured by phase, and what each step runs on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.errors import InputError
from gatekit.output import check_out, write_atomic
from gatekit.suggest import install_extra

if TYPE_CHECKING:
    from gatekit.plan import Plan

COLOURS = ("#2f6df6", "#e0457b", "#f2a541", "#2a9d8f", "#8a63d2", "#5c677d")
INK, GREY, PAPER = "#1d2433", "#8b93a5", "#ffffff"


def check_plot(path: Path) -> None:
    """Raise InputError where no plot can be written as ``path``: before anything is printed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as exc:
        raise InputError(
            "plots are drawn with matplotlib, which is not installed",
            remedy=install_extra("report"),
        ) from exc
    known: Any = FigureCanvasAgg
    if _kind(path) not in known.filetypes:
        raise InputError(
            "plots are written as .png, .svg or .pdf",
            where="--plot",
            value=str(path),
            remedy="name such a file",
        )
    check_out(path, "--plot")


def _kind(path: Path) -> str:
    return path.suffix.lstrip(".").lower() or "png"


def plot_plan(plan: Plan, path: Path) -> Path:
    """Draw a plan to a PNG (or another kind of file that matplotlib can write).

    Raises:
        InputError: matplotlib is missing, or it cannot write such a file, or not there.
        OutputError: The file cannot be written.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(10, 5.6), dpi=160, facecolor=PAPER)
    _draw(figure, plan)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=_kind(path), facecolor=PAPER)
    return write_atomic(path, buffer.getvalue(), "name a file in a folder you may write to")


def _draw(figure: Any, plan: Plan) -> None:
    rows = plan.table()
    curve, strip = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [6, 1], "hspace": 0.06}
    )
    figure.subplots_adjust(left=0.075, right=0.975, top=0.83, bottom=0.1)
    colour = {p.name: COLOURS[i % len(COLOURS)] for i, p in enumerate(plan.phases)}
    _draw_curve(curve, plan, rows, colour)
    _draw_strip(strip, plan, rows, colour)
    video = plan.video
    figure.text(0.075, 0.945, plan.schedule.name, fontsize=15, color=INK, weight="bold")
    figure.text(
        0.075,
        0.895,
        f"{video.width}x{video.height}, {video.frames} frames at {video.fps:g} fps  ·  "
        f"{len(rows)} steps, {plan.nfe} evaluations, {plan.passes} model passes",
        fontsize=9.5,
        color=GREY,
    )


def _draw_curve(axes: Any, plan: Plan, rows: Any, colour: dict[str, str]) -> None:
    for phase in plan.phases:
        own = [row for row in rows if row.phase == phase.name]
        if not own:
            continue
        first, tint = own[0].step, colour[phase.name]
        x = [*(row.step for row in own), own[-1].step + 1]
        y = [*(row.sigma for row in own), own[-1].sigma_next]
        axes.axvspan(first, x[-1], color=tint, alpha=0.07, linewidth=0)
        axes.plot(x, y, color=tint, linewidth=2.2, solid_capstyle="round", zorder=3)
        axes.scatter(x[:-1], y[:-1], s=26, color=tint, edgecolor=PAPER, linewidth=0.9, zorder=4)
        axes.text(
            (first + x[-1]) / 2,
            1.015,
            phase.name,
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            color=tint,
            fontsize=10,
            weight="bold",
        )
    axes.scatter([len(rows)], [rows[-1].sigma_next], s=26, color=INK, zorder=4, clip_on=False)
    _draw_boundaries(axes, plan, rows, colour)
    top = max(row.sigma for row in rows)
    axes.set_ylim(-0.02 * top, 1.06 * top)
    axes.set_xlim(-0.35, len(rows) + 0.35)
    axes.set_ylabel("sigma (noise level after shift)", color=INK, fontsize=9.5)
    _clean(axes)
    axes.grid(axis="y", color="#e6e9f0", linewidth=0.8, zorder=0)


def _draw_boundaries(axes: Any, plan: Plan, rows: Any, colour: dict[str, str]) -> None:
    for phase in plan.phases[:-1]:
        until, tint = phase.boundary.until, colour[phase.name]
        last = max((row.step for row in rows if row.phase == phase.name), default=0)
        label = f"until {phase.boundary.given}"
        if not phase.boundary.given.startswith("sigma "):
            label += f" = {until:.3g}"
        axes.plot([-0.35, last + 1], [until, until], color=tint, linewidth=0.9, ls=(0, (4, 3)))
        axes.annotate(
            label,
            (last + 1, until),
            xytext=(6, 3),
            textcoords="offset points",
            color=tint,
            fontsize=8.5,
        )


def _draw_strip(axes: Any, plan: Plan, rows: Any, colour: dict[str, str]) -> None:
    """One band a phase: the model that runs, its precision, its sampler and guidance."""
    for phase in plan.phases:
        own = [row.step for row in rows if row.phase == phase.name]
        if not own:
            continue
        start, width = own[0], len(own)
        axes.barh(0, width, left=start, height=1.0, color=colour[phase.name], edgecolor=PAPER)
        for step in own[1:]:  # at the edges alone: the middle is the text's
            for edge in (-0.5, 0.5):
                axes.plot([step] * 2, [edge, 0.76 * edge], color=PAPER, linewidth=0.9, alpha=0.6)
        storage = plan.facts[phase.variant].storage if phase.variant in plan.facts else None
        model = phase.variant + (f" ({storage})" if storage else "")
        room = width / len(rows) * 128
        lines = [_fit(model, room), _fit(phase.sampler.name, room)]
        axes.text(
            start + width / 2,
            0,
            "\n".join(line for line in lines if line),
            ha="center",
            va="center",
            color=PAPER,
            fontsize=8.5,
            linespacing=1.3,
        )
    axes.set_ylim(-0.55, 0.55)
    axes.set_yticks([])
    axes.set_xlabel("step", color=INK, fontsize=9.5)
    _clean(axes)
    axes.spines["left"].set_visible(False)
    if len(rows) <= 60:
        every = 1 if len(rows) <= 30 else 2
        axes.set_xticks(range(0, len(rows) + 1, every))


def _fit(text: str, room: float) -> str:
    """As much of a text as ``room`` characters take."""
    if len(text) <= room:
        return text
    return text[: max(0, int(room) - 1)] + "…" if room >= 4 else ""


def _clean(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c9cfdb")
    axes.tick_params(colors=GREY, labelsize=8.5, length=3)
