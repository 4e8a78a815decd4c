"""``gatekit propose``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import gatekit
from gatekit_research.files import write_text
from gatekit_research.profile.document import Profile, read_profile
from gatekit_research.propose.budget import Answer, answer, read_budget
from gatekit_research.propose.problem import Proposal, problem_of

ROWS = 24  # of the front that are printed


def propose(
    profile: Annotated[
        Path, typer.Argument(metavar="PROFILE", help="A .json that 'gatekit profile' wrote.")
    ],
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            metavar="KIND=LIMIT",
            help="bits=5.0, seconds=60, vram=12GiB, error=0.02, switches=1; may be repeated.",
        ),
    ] = None,
    phases: Annotated[int, typer.Option("--phases", min=1, max=8, help="Most phases.")] = 3,
    risk_weight: Annotated[
        float, typer.Option("--risk-weight", min=0.0, help="w; what is least is error + w risk.")
    ] = 0.0,
    schedule: Annotated[
        Path | None, typer.Option("--schedule", help="The profiled schedule, if it was moved.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT.yaml",
            help="Schedule to write; default: none, the table alone.",
        ),
    ] = None,
    models_dir: gatekit.ModelsDirOption = None,
    as_json: gatekit.JsonOption = False,
) -> None:
    """Choose boundaries and variants from a profile; write a schedule that runs."""
    from gatekit_research.propose.profiled import profiled, stretches
    from gatekit_research.propose.written import header_of, schedule_of, text_of

    limits = read_budget(budget or [])
    if out is not None:
        gatekit.check_out(out, new=True)
    read = read_profile(profile)
    plan = profiled(read, schedule, models_dir)
    problem = problem_of(read, stretches(read, plan), risk_weight)
    found = answer(problem, limits, phases)
    if out is not None:
        data = schedule_of(read, plan, found.chosen, out, models_dir)
        header = header_of(read, profile.name, found.chosen, ", ".join(budget or []), risk_weight)
        made = gatekit.Schedule.from_dict(data, out.absolute().parent)
        gatekit.resolve(made, models_dir=models_dir, require_files=True)  # it runs, or nothing is
        write_text(out, text_of(data, header))
        _tell_outside(out, models_dir)
    if as_json:
        print(json.dumps(_plain(found, read), indent=1))
        return
    _show(found, read)
    if out is not None:
        print(out)


def _tell_outside(out: Path, models_dir: list[Path] | None) -> None:
    """Say so where the schedule names files that schedules may not name by themselves."""
    try:
        gatekit.resolve(gatekit.load_schedule(out, allow_outside=False), models_dir=models_dir)
    except gatekit.ScheduleError as exc:
        print(f"gatekit: to run it, add --allow-outside: {exc}", file=sys.stderr)


def _plain(found: Answer, profile: Profile) -> dict[str, Any]:
    def plain(proposal: Proposal) -> dict[str, Any]:
        pieces = [
            {"variant": key, "steps": [start, end], "from": profile.steps[start].sigma,
             "to": profile.steps[end - 1].sigma_next}
            for start, end, key in proposal.pieces
        ]  # fmt: skip
        return asdict(proposal) | {"pieces": pieces}

    return {
        "chosen": plain(found.chosen),
        "axis": found.axis,
        "front": [plain(each) for each in found.front],
    }


def _show(found: Answer, profile: Profile) -> None:
    from gatekit_research.tables import print_table

    shown = list(found.front)
    if found.chosen not in shown:
        shown.append(found.chosen)
        shown.sort(key=lambda p: (p.objective, p.bits))
    at = shown.index(found.chosen)
    step = max(1, -(-len(shown) // ROWS))
    kept = sorted({*range(0, len(shown), step), at, len(shown) - 1})
    heads = ("E", "risk", "E + w risk", "bits", "seconds", "MiB", "switches", "phases")
    rows = [
        [
            f"{p.error:.4f}", f"{p.risk:.4f}", f"{p.objective:.4f}", f"{p.bits:.2f}",
            f"{p.seconds:.3g}", f"{p.vram / 2**20:.0f}", str(p.switches), _said(p, profile),
        ]
        for p in (shown[i] for i in kept)
    ]  # fmt: skip
    for row, i in zip(rows, kept, strict=True):
        row[-1] += "  <" if i == at else ""
    print(f"front of error and {found.axis}: {len(found.front)} proposals; < is the one chosen")
    print_table(heads, rows, mark=kept.index(at), left=(len(heads) - 1,))


def _said(proposal: Proposal, profile: Profile) -> str:
    """``high-q2k > 0.94 > high-q5ks``: variants, and the sigmas where they change."""
    parts = [proposal.pieces[0][2]]
    for start, _, key in proposal.pieces[1:]:
        parts += [f"{profile.steps[start].sigma:.3f}", key]
    return " > ".join(parts)
