"""How each phase of a plan computes: precision checked, attention and compilation chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gatekit import Execution, PhaseAsk, ScheduleError, compute_capability

from . import attention, attention_flash4, compiling, passes
from .fp8 import check_fp8, fp8_shapes
from .sizes import expected_shapes
from .variant import WanVariant

A14B = (40, 5120)  # layers and width, where the file is not there
UNSEEN = "no NVIDIA GPU is seen here: its compute capability is looked at where this runs"


def executions(
    asks: Sequence[PhaseAsk], tokens: int, device: str, *, first_frame: bool = False
) -> tuple[Execution, ...]:
    """One ``Execution`` a phase; see ``ModelFamily.executions``.

    Args:
        asks: The phases.
        tokens: Of the latent, after patching.
        device: Of the run, which may not be here.
        first_frame: Whether an image would be the video's first frame.
    """
    capability = compute_capability(device)
    chosen, plain = _attentions(asks, tokens, device, capability)
    keys = [(ask.compute, name) for ask, name in zip(asks, chosen, strict=True)]
    saved: dict[tuple[str, str], float] = defaultdict(float)
    for ask, key in zip(asks, keys, strict=True):
        if ask.compile is not False:  # phases that share the code share its cost
            saved[key] += compiling.saved_seconds(ask.passes, tokens, *_size(ask))
    found: list[Execution] = []
    for i, (ask, name, key) in enumerate(zip(asks, chosen, keys, strict=True)):
        with placed_at(i, "compile"):
            if ask.deterministic:
                compiled, why = compiling.never(ask.compile), ""
            else:
                compiled, why = compiling.choose(ask.compile, device, saved[key])
        unseen = device.startswith("cuda") and capability is None
        changes = "" if attention.BACKENDS[name].exact else name
        replayed = passes.chosen(ask, tokens, device)
        lines = (
            plain if ask.attention == attention.AUTO else "",
            why,
            passes.remark(tokens, first_frame) if replayed else "",
        )
        remarks = tuple(line for line in (*lines, UNSEEN if unseen else "") if line)
        found.append(Execution(name, compiled, changes, remarks, replayed))
    return tuple(found)


def _attentions(
    asks: Sequence[PhaseAsk], tokens: int, device: str, capability: tuple[int, int] | None
) -> tuple[list[str], str]:
    """Each phase's backend, and why it is not flash 4, which takes some seconds to begin with."""
    chosen = [_attention(i, ask, device, capability) for i, ask in enumerate(asks)]
    if attention_flash4.NAME in {ask.attention for ask in asks}:
        return chosen, ""  # it is there anyway
    auto = [
        i
        for i, ask in enumerate(asks)
        if ask.attention == attention.AUTO and chosen[i] == attention_flash4.NAME
    ]
    saved = sum(
        attention_flash4.saved_seconds(asks[i].passes, tokens, *_size(asks[i])) for i in auto
    )
    if not auto or saved >= attention_flash4.WORTH:
        return chosen, ""
    for i in auto:
        chosen[i] = attention.NATIVE
    return chosen, (
        f"attention without flash 4: it would save about {saved:.0f} s of a run on an H100, "
        "less than it takes to load"
    )


def _attention(number: int, ask: PhaseAsk, device: str, capability: tuple[int, int] | None) -> str:
    """The phase's backend, its precision checked too."""
    with placed_at(number, "compute"):
        if ask.compute == "fp8":
            check_fp8(device, capability, matrices(ask.variant) if ask.found else ())
    with placed_at(number, "attention"):
        return attention.choose(ask.attention, device, ask.compute, capability, ask.deterministic)


def matrices(variant: object) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of what is multiplied in fp8."""
    known = isinstance(variant, WanVariant)
    return fp8_shapes(expected_shapes(variant.sizes)) if known else []


def _size(ask: PhaseAsk) -> tuple[int, int]:
    if ask.found and isinstance(ask.variant, WanVariant):
        return ask.variant.sizes.layers, ask.variant.sizes.dim
    return A14B


@contextmanager
def placed_at(number: int, key: str) -> Iterator[None]:
    """Say in a ScheduleError which key of which phase it is about."""
    try:
        yield
    except ScheduleError as error:
        raise ScheduleError(
            error.message, value=error.value, remedy=error.remedy, key=(number, key)
        ) from error
