"""``gatekit fit``: place a schedule's steps where its own models need them."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import gatekit
from gatekit_basics.changes import extending
from gatekit_basics.fit_runs import FEW, Runs, as_plain, chosen, from_plain, measured_on, placed
from gatekit_basics.fitting import minimizer, predicted_error
from gatekit_basics.travel import Fine, load, save

FINE = 120  # steps of the fine run


def fit_command(
    schedule: Annotated[Path, typer.Argument(metavar="SCHEDULE", help="A schedule (.yaml).")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT.yaml", help="The schedule to write.")
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Option("-p", "--prompt", help="What to show meanwhile; several times: the mean."),
    ] = None,
    image: Annotated[Path | None, typer.Option("-i", "--image", help="First frame.")] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Seed of the first prompt's noise; each other has one more."),
    ] = 0,
    fine: Annotated[
        int | None,
        typer.Option("--fine", min=40, help=f"Steps of the fine run.  [default: {FINE}]"),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="FILE",
            help="Keep what was measured (.safetensors); where it is there, measure nothing, and "
            "try grids with the prompts, image and seeds it was measured with.",
        ),
    ] = None,
    tries: Annotated[
        int,
        typer.Option(
            "--try",
            metavar="N",
            min=0,
            help="Run up to N grids for each prompt, a video each, and choose the one that ends "
            "nearest to the fine runs; 24 are enough.",
        ),
    ] = 0,
    overrides: gatekit.SetOption = None,
    models_dir: gatekit.ModelsDirOption = None,
    device: gatekit.DeviceOption = None,
) -> None:
    """Place a schedule's steps where its own models need them; write a schedule with that grid."""
    gatekit.check_out(out, new=True)
    given, where = overrides or [], {"models_dir": models_dir, "device": device}
    plan = gatekit.resolve(gatekit.load_schedule(schedule, given), **where)
    own = any(p.steps is not None or p.share is not None for p in plan.schedule.phases)
    if own or plan.schedule.sigmas is None or plan.schedule.sigmas.allot is not None:
        raise gatekit.ScheduleError(
            "the phases have steps of their own: there is no one grid to place",
            where=plan.schedule.source.where(("sigmas",)),
            remedy="give 'sigmas' the steps of the whole run and the phases 'until'",
        )
    _refuse_moving(plan)
    before = list(plan.run_sigmas)
    steps = len(before) - 1
    if steps >= FEW:
        minimizer()
    fields = measured_on(plan)
    kept = load(keep, fields) if keep is not None and keep.exists() else None
    each = [
        gatekit.Inputs(prompt=prompt, image=image, seed=seed + i)
        for i, prompt in enumerate(prompts or [])
    ]
    if kept is not None:
        _refuse_other_steps(kept, fine, keep)
        if _other(kept, each, image, seed):
            known = ", ".join(repr(inputs["prompt"]) for inputs in kept.inputs)
            _say(
                f"what -p, -i and --seed say is not used: {keep} was measured with something else "
                f"({known}, seed {kept.inputs[0]['seed']}); name another file to measure anew"
            )
        each = [from_plain(inputs) for inputs in kept.inputs]
    elif not each:
        raise gatekit.InputError(
            "a prompt is needed to measure with", where="-p", value=None, remedy='-p "..."'
        )
    elif keep is not None:
        gatekit.check_out(keep, "--keep")
    if kept is None or tries:
        for inputs in each:
            plan.family.check_inputs(inputs)
    if tries:
        count = "one prompt" if len(each) == 1 else f"each of {len(each)} prompts"
        _say(f"up to {tries} grids of {steps} steps are run for {count}")
    with contextlib.closing(gatekit.Warm()) as warm:
        runs = Runs(schedule, given, each, warm, **where)
        measured = kept or runs.fine(fine or FINE)
        if kept is None and keep is not None:
            save(keep, measured, fields)
        if tries:
            sigmas, how = _tried(measured, runs, before, tries)
        else:
            sigmas, how = _placed(measured, before)
        runs.planned(sigmas)  # what is written can be run
    text = _written(schedule, out, given, sigmas, how)
    gatekit.write_atomic(out, text.encode())
    print(out)


def _other(kept: Fine, each: Sequence[gatekit.Inputs], image: Path | None, seed: int) -> bool:
    """Whether other inputs are asked for than were measured; what is left out is none."""
    if each:
        return [as_plain(inputs) for inputs in each] != list(kept.inputs)
    asked = as_plain(gatekit.Inputs(prompt="", image=image, seed=seed))
    return any(asked[key] and asked[key] != kept.inputs[0][key] for key in ("image", "seed"))


def _refuse_other_steps(kept: Fine, fine: int | None, keep: Path | None) -> None:
    """Raise InputError where another number of steps is asked for than was measured with."""
    steps = len(kept.travelled.sigmas)
    if fine is not None and fine != steps:
        raise gatekit.InputError(
            f"{keep} was measured with {steps} steps",
            where="--fine",
            value=fine,
            remedy="leave --fine out, or name another file for --keep, to measure anew",
        )


def _refuse_moving(plan: gatekit.Plan) -> None:
    """Raise ScheduleError where a boundary counts steps: it would go where the grid goes."""
    for i, phase in enumerate(plan.schedule.phases):
        form = "" if phase.until is None else phase.until.form[0]
        if form in ("step", "fraction"):
            raise gatekit.ScheduleError(
                f"a boundary as {form} moves with the grid that is to be placed",
                where=plan.schedule.source.where(("phases", i, "until")),
                value=str(phase.until),
                remedy=f"give it as sigma: here it is {plan.phases[i].boundary.until:.6g}",
            )


def _say(text: str) -> None:
    print(f"gatekit: {text}", file=sys.stderr)


def _placed(fine: Fine, before: Sequence[float]) -> tuple[list[float], str]:
    """A grid without a run of it, and how it was made."""
    found, fitted = placed(fine, before[0], len(before) - 1)
    sigmas = [round(s, 6) for s in found]
    if not fitted:
        return sigmas, f"equidistributed (under {FEW} steps nothing is fitted) along"
    errors = [predicted_error(fine.travelled, g) for g in (before, sigmas)]
    own, now = (f"{error:.3g}" for error in errors)
    _say(f"error predicted along the fine run: {now}, with the schedule's own grid {own}")
    return sigmas, "fitted to"


def _tried(fine: Fine, runs: Runs, before: Sequence[float], tries: int) -> tuple[list[float], str]:
    """The best of the grids that were run, and how it was found."""
    steps = len(before) - 1
    with gatekit.Countdown(tries * steps * len(runs.given)) as bar:
        bar.doing("grids that are tried")
        found = chosen(fine, before[0], steps, runs.ends(bar), tries, own=before)
    ran = [error for error, _ in found if error < math.inf]
    error, sigmas = found[0]
    _say(f"error to the fine runs: {error:.3g}, the least of {len(ran)} grids that were run")
    return sigmas, f"chosen from {len(ran)} that were run, nearest to"


def _written(schedule: Path, out: Path, overrides: list[str], sigmas: list[float], how: str) -> str:
    """The schedule's text; ``how`` stands before "a trajectory of its own models"."""
    lines = [
        f"# {schedule.name} with {len(sigmas) - 1} steps {how} a trajectory of its own models",
        *extending(schedule, out, overrides),
        "sigmas:",
        "  use: explicit",
        f"  steps: {len(sigmas) - 1}",
        f"  values: [{', '.join(f'{s:g}' for s in sigmas)}]",
    ]
    return "\n".join(lines) + "\n"
