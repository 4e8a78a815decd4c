"""``gatekit fit``: place a schedule's steps where its own models need them."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import gatekit
from gatekit_basics.changes import extending
from gatekit_basics.curvature import Curvature, CurvatureParams
from gatekit_basics.fitting import fit, minimizer, predicted_error
from gatekit_basics.travel import Travel, fine_grid, load, mean_of, save, switches
from gatekit_basics.travelled import Travelled

FEW = 16  # steps below which the error is not linear: the grid is equidistributed instead
LAST = {True: 0.1, False: 0.02}  # last sigma of the equidistributed grid: few steps, or enough
FINE = {"use": "structure"}  # samples the fine run


def placed(
    travelled: Travelled, profile: list[list[float]], first: float, steps: int
) -> tuple[list[float], bool]:
    """A grid from ``first`` to 0, and whether it was fitted or equidistributed."""
    few = steps < FEW
    grid = Curvature(CurvatureParams.model_validate({"profile": profile, "sigma_min": LAST[few]}))
    start = list(grid.stretch(first, 0.0, steps))
    return (start, False) if few else (fit(travelled, start), True)


def measured(
    schedule: Path, overrides: list[str], given: list[gatekit.Inputs], fine: int, **where: Any
) -> tuple[Travelled, list[list[float]]]:
    """Run the schedule on a fine grid, once for each input, and keep what the fit needs."""
    plan = gatekit.resolve(gatekit.load_schedule(schedule, overrides), **where)
    values = fine_grid(plan.run_sigmas[0], fine)
    changes = [f"sigmas={json.dumps({'use': 'explicit', 'values': values})}"]
    changes += [f"phases.{p.name}.sampler={json.dumps(FINE)}" for p in plan.phases]
    changes += [f"phases.{p.name}.history=carry" for p in plan.phases[1:]]
    run = gatekit.load_schedule(schedule, [*overrides, *changes])
    finely = gatekit.resolve(run, require_files=True, **where)
    travels = [Travel() for _ in given]
    warm = gatekit.Warm()
    with gatekit.Countdown(fine * len(given)) as bar, contextlib.closing(warm):
        for i, (inputs, travel) in enumerate(zip(given, travels, strict=True), start=1):
            bar.doing(f"fine run {i} of {len(given)}")
            gatekit.run(finely, inputs, observers=[travel, lambda *_: bar.advance()], warm=warm)
    return mean_of(travels, switches(plan))


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
    fine: Annotated[int, typer.Option("--fine", min=40, help="Steps of the fine run.")] = 120,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="FILE",
            help="Keep what was measured (.safetensors); where it is there, measure nothing.",
        ),
    ] = None,
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
            key=("sigmas",),
            remedy="give 'sigmas' the steps of the whole run and the phases 'until'",
        )
    before = list(plan.run_sigmas)
    if len(before) - 1 >= FEW:
        minimizer()
    fields = [f"from {before[0]:.6f}"]
    fields += [f"{p.field} {p.boundary.until:.6f}" for p in plan.phases]
    if keep is not None and keep.exists():
        travelled, profile = load(keep, fields)
    elif not prompts:
        raise gatekit.InputError(
            "a prompt is needed to measure with", where="-p", value=None, remedy='-p "..."'
        )
    else:
        if keep is not None:
            gatekit.check_out(keep, "--keep")
        each = [
            gatekit.Inputs(prompt=prompt, image=image, seed=seed + i)
            for i, prompt in enumerate(prompts)
        ]
        for inputs in each:
            plan.family.check_inputs(inputs)
        travelled, profile = measured(schedule, given, each, fine, **where)
        if keep is not None:
            save(keep, travelled, profile, fields)
    sigmas, fitted = placed(travelled, profile, before[0], len(before) - 1)
    sigmas = [round(s, 6) for s in sigmas]
    text = _written(schedule, out, given, sigmas, fitted)
    gatekit.write_atomic(out, text.encode())
    if fitted:
        errors = [predicted_error(travelled, g) for g in (before, sigmas)]
        said = f"error predicted along the fine run: {errors[0]:.3g} -> {errors[1]:.3g}"
        print(f"gatekit: {said}", file=sys.stderr)
    print(out)


def _written(
    schedule: Path, out: Path, overrides: list[str], sigmas: list[float], fitted: bool
) -> str:
    how = "fitted to" if fitted else f"equidistributed (under {FEW} steps nothing is fitted) along"
    lines = [
        f"# {schedule.name} with {len(sigmas) - 1} steps {how} a trajectory of its own models",
        *extending(schedule, out, overrides),
        "sigmas:",
        "  use: explicit",
        f"  steps: {len(sigmas) - 1}",
        f"  values: [{', '.join(f'{s:g}' for s in sigmas)}]",
    ]
    return "\n".join(lines) + "\n"
