"""Passes of few tokens replayed as CUDA graphs, beside one another and beside passes launched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gatekit_bench.clock import BUDGET
from gatekit_bench.findings import Row
from gatekit_bench.lab import FP8, FP8_ALL, PLAIN, Lab
from gatekit_bench.sizes import VIDEOS
from gatekit_wan22 import passes

if TYPE_CHECKING:
    from torch import Tensor

GRAPH = "as a graph"
Configure = Callable[[str], None]


def replayed(
    lab: Lab,
    tokens: int,
    names: Sequence[str],
    how: str,
    configure: Configure,
    launched: Mapping[str, Tensor],
) -> None:
    """Rows of each of ``names`` replayed; none of many tokens, or where nothing can be captured.

    Args:
        lab: The models.
        tokens: Of a pass.
        names: Of models.
        how: ``eager`` or ``compiled``.
        configure: Has a model compute as its name says, and replay.
        launched: Outputs of passes that were launched.
    """
    if tokens > passes.MOST or passes.capture_on(lab.device) is None:
        return
    calls: dict[str, Callable[[], Tensor]] = {}
    for name in names:
        call = calling(lab, name, tokens, configure)
        call()
        found = call()  # captured in the second pass
        if not lab.model(name).graphs:
            lab.findings.say(f"  {lab.label(name)} {GRAPH} left out: it could not be captured")
            continue
        calls[name] = call
        error = float((found - launched[name]).norm() / launched[name].norm())
        what = f"{tokens} tokens, {lab.label(name)}, {how}, a graph's relative difference"
        lab.findings.add(Row(what, error, ""))
    budget = min(BUDGET, lab.findings.left / 3) if lab.cuda else 0.5
    times = lab.clock.turns(calls, budget, warm=True)
    video = f" ({VIDEOS[tokens]})" if tokens in VIDEOS else ""
    for name in calls:
        over = PLAIN if name != PLAIN and PLAIN in calls else ""
        lab.findings.add(
            Row(
                f"{tokens} tokens{video}, {lab.label(name)}, {how}, {GRAPH}",
                times.of(name) * lab.factor * 1e3,
                "ms",
                lab.bound(tokens, name in (FP8, FP8_ALL), name == FP8_ALL) * 1e3,
                over=f"{lab.label(over)} {GRAPH}" if over else "",
                ratio=times.ratio(name, over) if over else None,
                note=lab.note,
            )
        )


def calling(lab: Lab, name: str, tokens: int, configure: Configure) -> Callable[[], Tensor]:
    """A pass of a model that is told how to compute before, as two names are one model."""
    forward = lab.forward(name, tokens)

    def call() -> Tensor:
        configure(name)
        return forward()

    return call
