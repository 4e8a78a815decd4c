"""What a plan, its inputs and the machine have to agree on before a run reads anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit.clip import check_clip
from gatekit.device import check_device
from gatekit.errors import InputError
from gatekit.lookup import missing_error

if TYPE_CHECKING:
    from gatekit.family import Inputs
    from gatekit.plan import Plan


def check_ready(plan: Plan, inputs: Inputs) -> None:
    """Raise the error of a run that cannot begin.

    Raises:
        WeightsError: A weight file is missing.
        InputError: Inputs that the plan or its family cannot use, or a device that torch cannot.
    """
    if plan.missing:
        raise missing_error(plan.missing)
    if isinstance(inputs, str):
        raise InputError(
            "a run is made from Inputs", value=inputs, remedy="gatekit.Inputs(prompt=...)"
        )
    check_start(plan, inputs)
    plan.family.check_inputs(inputs)
    check_devices(plan)


def check_devices(plan: Plan) -> None:
    """Raise InputError where torch cannot use the device of the run, or of one of its sections."""
    own = plan.device == plan.schedule.device
    check_device(
        plan.device,
        plan.schedule.source.where(("device",)) if own else "device",
        "choose another one: --device cpu",
    )
    for section, part in plan.family.components.given().items():
        if part.device is not None:
            where = plan.schedule.source.where((section, "device"))
            check_device(part.device, where, f"choose another one: --set {section}.device=cpu")


def check_start(plan: Plan, inputs: Inputs) -> None:
    """Raise InputError unless plan and inputs agree on a video to start from."""
    if plan.start is None and inputs.video is None:
        return
    if inputs.video is None:
        raise InputError(
            "the schedule starts in the midst of the path, which takes a video",
            where=f"start: {plan.start.given}" if plan.start else None,
            remedy="give one with --video, or start from noise with --set start=null",
        )
    if plan.start is None:
        raise InputError(
            "a video to start from, but nothing says how far it is noised",
            where="--video",
            remedy="add --start 0.7 (a sigma), or 'start' to the schedule",
        )
    if not plan.family.takes_video:
        raise InputError(
            f"family {plan.family.name!r} takes no video", where="--video", remedy="leave it out"
        )
    check_clip(inputs.video, plan.video)
