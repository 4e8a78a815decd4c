"""``gatekit check-profile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import gatekit
from gatekit_research.inputs import Prompt, read_prompts
from gatekit_research.profile.document import Profile, read_profile

OTHER = 1000  # first seed: other noise than that of a profile, whose seeds begin at 0


def check_profile(
    profile: Annotated[
        Path, typer.Argument(metavar="PROFILE", help="A .json that 'gatekit profile' wrote.")
    ],
    schedules: Annotated[
        int, typer.Option("--schedules", min=3, help="How many random schedules.")
    ] = 30,
    phases: Annotated[int, typer.Option("--phases", min=1, help="Phases of each schedule.")] = 3,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="One prompt a line; default: the profile's."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds of each prompt.")] = 1,
    image: Annotated[Path | None, typer.Option("-i", "--image", help="First frame.")] = None,
    draw: Annotated[int, typer.Option("--draw", help="Seed that draws the schedules.")] = 0,
    schedule: Annotated[
        Path | None, typer.Option("--schedule", help="The profiled schedule, if it was moved.")
    ] = None,
    models_dir: gatekit.ModelsDirOption = None,
    device: gatekit.DeviceOption = None,
    as_json: gatekit.JsonOption = False,
) -> None:
    """Run random schedules of a profile's variants; say how well the profile predicts them.

    Noise is other than the profile's. The same command goes on where it was stopped.
    """
    from gatekit_research.profile.check import check, drawn
    from gatekit_research.profile.work import Work
    from gatekit_research.propose.problem import problem_of
    from gatekit_research.propose.profiled import profiled, stretches

    read = read_profile(profile)
    lines = read_prompts(prompts) if prompts is not None else _prompts(read, image)
    inputs = [line.inputs(OTHER + seed, image) for line in lines for seed in range(seeds)]
    plan = profiled(read, schedule, models_dir, device)
    for one in inputs:
        plan.family.check_inputs(one)
    problem = problem_of(read, stretches(read, plan), 0.0)
    proposals = drawn(problem, schedules, phases, draw)
    work = Work(profile.with_suffix(".work"))
    try:
        found = check(read, plan, proposals, inputs, work, models_dir=models_dir)
    except KeyboardInterrupt:
        raise gatekit.Cancelled(
            f"interrupted; the same command goes on, from {work.folder}"
        ) from None
    low, median, high = found.ratios
    weighed = found.weigh()
    ranked = {name: found.rank(name) for name in ("error", "risk", "bits")}
    if as_json:
        rows: list[dict[str, Any]] = [
            {"pieces": p.pieces, "E": p.error, "risk": p.risk, "bits": p.bits, "measured": m}
            for p, m in zip(found.proposals, found.measured, strict=True)
        ]
        ratio = {"10%": low, "median": median, "90%": high}
        best = None if weighed is None else dict(zip(("weight", "held out"), weighed, strict=True))
        told = {"spearman": ranked, "risk weight": best, "measured over E": ratio}
        print(json.dumps({**told, "schedules": rows}, indent=1))
        return
    count = len(found.proposals)
    print(
        f"{count} random schedules of {phases} phases, {found.runs} runs of {len(read.steps)} "
        f"steps each:\n"
        f"Spearman with the measured rms change of the final latent: E {ranked['error']:.3f}, "
        f"risk {ranked['risk']:.3f}, mean bits {ranked['bits']:.3f}\n"
        f"measured / E: median {median:.2f}, 10 to 90 %: {low:.2f} to {high:.2f}"
    )
    if weighed is not None:
        weight, rank = weighed
        print(
            f"E + {weight:g} risk orders them best: {rank:.3f} on halves that the weight was not "
            f"chosen from\nfor 'gatekit propose': --risk-weight {weight:g}"
        )


def _prompts(profile: Profile, image: Path | None) -> tuple[Prompt, ...]:
    if image is None and any(one is not None for one in profile.made.images):
        raise gatekit.InputError(
            "the profile was made with images",
            where="--prompts",
            remedy="give the file of prompts again, or an image with -i",
        )
    return tuple(Prompt(text) for text in profile.made.prompts)
