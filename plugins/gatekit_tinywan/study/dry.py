"""What a study would cost, counted on plans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import gatekit
from gatekit_tinywan.study.bench import Bench
from gatekit_tinywan.study.cell import FLOWS, Cell
from gatekit_tinywan.study.references import PROFILE_ROWS, PROFILE_STEPS
from gatekit_tinywan.study.store import digest

STAND_IN = [[1.0, 1.0], [0.01, 1.0]]  # a profile like any other, to count steps with


def count(bench: Bench, cells: Sequence[Cell], prompts: int, steps: int) -> Iterator[str]:
    """A line a cell, and the sums: evaluations of the guided denoiser a prompt, and passes."""
    nfe = passes = 0
    seen: set[str] = set()
    for cell in cells:
        what = digest([cell.evaluations, cell.base, dict(cell.changes), cell.peer, cell.watch])
        if what in seen:
            continue
        seen.add(what)
        try:
            plan = bench.fitted(cell.with_profile(STAND_IN) if cell.profiled else cell, files=False)
        except gatekit.GatekitError as error:
            yield f"{cell.base:5}  {cell.name}: cannot be planned: {error}"
            continue
        yield f"{cell.base:5}  {cell.name}: {plan.nfe} evaluations, {plan.passes} passes"
        nfe, passes = nfe + plan.nfe, passes + plan.passes
    flows = {flow for cell in cells for flow in cell.flows}
    profiles = {FLOWS[cell.base] for cell in cells if cell.profiled}
    own = len(flows) * (steps + steps // 2)
    yield (
        f"{len(seen)} cells: {nfe} evaluations a prompt, {passes} passes of a model; "
        f"{own} evaluations a prompt for the references {', '.join(sorted(flows))}"
    )
    total = prompts * (nfe + own) + len(profiles) * PROFILE_STEPS * len(PROFILE_ROWS)
    yield f"{prompts} prompts: {total} evaluations, {len(seen) * prompts} videos to judge"
