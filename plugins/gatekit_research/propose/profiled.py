"""The schedule that a profile was made of, and whether it still is that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gatekit
from gatekit_research.profile.document import Profile

SIGMA = 1e-6  # two sigmas within it count as one
OWN = {"name", "until", "variant", "steps", "share", "sigmas"}  # of a phase, besides its manner


def profiled(
    profile: Profile,
    schedule: Path | None,
    models_dir: Sequence[Path] | None = None,
    device: str | None = None,
) -> gatekit.Plan:
    """The profiled schedule with its reference variants, resolved.

    Args:
        profile: From ``gatekit profile``.
        schedule: Where the schedule is now; where it was, if None.
        models_dir: Folders of weight files.
        device: As for ``gatekit.resolve``.

    Raises:
        InputError: No such schedule, or the profile is of another: of other weights, sigmas,
            guidance, text encoder or size.
        UserError: What ``load_schedule`` and ``resolve`` raise.
    """
    path = schedule or Path(profile.made.schedule)
    if schedule is None and not path.is_file():
        raise gatekit.InputError(
            "the profiled schedule is not where it was",
            where="--schedule",
            value=str(path),
            remedy="say where it is: --schedule FILE",
        )
    given = gatekit.load_schedule(path)
    count = len(profile.reference)
    if (given.family.use, len(given.phases)) != (profile.made.family, count):
        found = f"family {given.family.use}, {len(given.phases)} phases"
        raise refused(path, found, f"family {profile.made.family}, {count} phases")
    plan = gatekit.resolve(
        gatekit.load_schedule(path, profile.made.overrides),
        models_dir=models_dir,
        device=device,
        require_files=True,
    )
    check(profile, plan, path)
    return plan


def check(profile: Profile, plan: gatekit.Plan, path: Path) -> None:
    """Raise InputError where the profile is of another schedule or of other weights."""
    from gatekit_research.profile.run import guidance_of, identities

    made = profile.made
    video = [plan.video.width, plan.video.height, plan.video.frames]
    if video != made.video:
        raise refused(path, f"video {video}", f"video {made.video}")
    wanted = [(step.phase, step.sigma, step.sigma_next) for step in profile.steps]
    found = [(row.phase, row.sigma, row.sigma_next) for row in plan.table()]
    if len(found) != len(wanted) or any(
        a[0] != b[0] or abs(a[1] - b[1]) + abs(a[2] - b[2]) > SIGMA
        for a, b in zip(found, wanted, strict=True)
    ):
        raise refused(path, f"{len(found)} steps", f"{len(wanted)} steps at other sigmas or phases")
    for phase in plan.phases:
        if guidance_of(phase) != made.guidance[phase.name]:
            own = f"phase {phase.name}: {guidance_of(phase)}"
            raise refused(path, own, made.guidance[phase.name])
        key = profile.reference[phase.name]
        for file, known in zip(plan.variants[phase.variant].files(), profile.variants[key].files,
                               strict=False):  # fmt: skip
            if gatekit.file_identity(file)[1:] != known[1:]:
                raise refused(path, str(file), f"other bytes, of {known[0]}")
    for one, known in zip(identities(plan), made.components, strict=False):
        if one[1:] != known[1:]:
            raise refused(path, one[0], f"other bytes, of {known[0]}")


def refused(path: Path, found: str, wanted: str) -> gatekit.InputError:
    """The profile does not fit the schedule."""
    return gatekit.InputError(
        f"the profile is not of this schedule: it has {found}, the profile {wanted}",
        where=str(path),
        remedy="profile this one: gatekit profile SCHEDULE --variants ...",
    )


def stretches(profile: Profile, plan: gatekit.Plan) -> list[tuple[int, int]]:
    """(first step, step after the last) of each stretch whose phases differ in variant alone."""
    manners = {phase.name: manner(plan, phase.name) for phase in plan.schedule.phases}
    kinds = [(step.expert, manners[step.phase]) for step in profile.steps]
    starts = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
    return list(zip(starts, [*starts[1:], len(kinds)], strict=True))


def manner(plan: gatekit.Plan, name: str) -> Any:
    """How a phase steps: its sampler, strategy, guidance, history, arithmetic, adjustments."""
    entries = {phase.name: phase for phase in plan.schedule.phases}
    data = entries[name].model_dump(mode="json", exclude=OWN)
    compute = {phase.name: phase.compute for phase in plan.phases}
    return {**data, "compute": compute.get(name)}
