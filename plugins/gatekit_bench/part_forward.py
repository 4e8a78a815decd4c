"""One pass of a model: by tokens and variant, beside diffusers and beside the bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from gatekit_bench import graphs
from gatekit_bench.clock import BUDGET
from gatekit_bench.findings import LeftOut, Row
from gatekit_bench.lab import FP8, FP8_ALL, PEER, PLAIN, Lab
from gatekit_bench.sizes import VIDEOS

if TYPE_CHECKING:
    from torch import Tensor

BF16_AIM = 0.83  # over diffusers eager, at the most tokens
FP8_AIMS = {FP8: 0.75, FP8_ALL: 0.6}  # over our own bf16, at the most tokens
STORED_AIMS = {32_760: 1.01, 4_590: 1.05, 510: 1.0}  # GGUF over bf16
ERROR = "relative difference"
ROUNDS, LIKELY = 3, 1.5  # passes of each, and how far from its bound one is likely to be


def way(compiled: bool) -> str:
    """What a way of running is called."""
    return "compiled" if compiled else "eager"


def configured(lab: Lab, name: str, compiled: bool, replayed: bool = False) -> None:
    """Attention as ``auto`` chooses it, blocks compiled or not, passes replayed or launched."""
    from gatekit import Execution, compute_capability
    from gatekit_wan22.attention import AUTO, choose
    from gatekit_wan22.attention_fp8 import NAME as EIGHT_BITS

    compute = FP8 if name in FP8_AIMS else lab.compute
    asked = EIGHT_BITS if name == FP8_ALL else AUTO
    attention = choose(asked, lab.device, compute, compute_capability(lab.device))
    how = Execution(attention=attention, compiled=compiled, replayed=replayed)
    lab.model(name).configure(how)


def forwards(lab: Lab, tokens: int, names: Sequence[str], compiled: bool) -> None:
    """Each of ``names`` and diffusers' eager model in turn, ``tokens`` tokens.

    Where they are compiled, each one's first pass is timed: it compiles. Passes of few tokens are
    replayed as graphs too.
    """
    able = able_here(lab, names)
    least = lab.bound(tokens) / lab.factor
    lab.findings.need(ROUNDS * LIKELY * least * (len(able) + 1), f"passes of {tokens} tokens")
    results: dict[str, Tensor] = {}

    def keeping(name: str, call: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            if name in FP8_AIMS:  # both are one model
                configured(lab, name, compiled)
            results[name] = call()

        return run

    calls = {PEER: keeping(PEER, lab.peer_forward(tokens))}
    for name in able:
        lab.findings.need(0 if not compiled else 40 if len(calls) == 1 else 10, f"compiling {name}")
        configured(lab, name, compiled)
        calls[name] = keeping(name, lab.forward(name, tokens))
        if compiled:
            first = lab.clock.once(calls[name])
            lab.findings.add(Row(f"first pass of {lab.label(name)}, compiling", first, "s"))
    if compiled:
        lab.clock.once(calls[PEER])
    budget = min(BUDGET, lab.findings.left / 3) if lab.cuda else 0.5
    times = lab.clock.turns(calls, budget, warm=compiled)
    for name in calls:
        lab.seconds[name, tokens, "eager" if name == PEER else way(compiled)] = times.of(name)
    video = f" ({VIDEOS[tokens]})" if tokens in VIDEOS else ""
    largest = tokens == max(lab.tokens) and lab.cuda
    for name in calls:
        took = times.of(name) * lab.factor
        how = "eager" if name == PEER else way(compiled)
        label = lab.label(name)
        over, aim = PEER, None
        if name == PLAIN:
            aim = BF16_AIM if compiled and largest else None
        elif name != PEER and PLAIN in calls:
            over = PLAIN
            stored = STORED_AIMS.get(tokens) if lab.cuda else None
            aim = stored
            if name in FP8_AIMS:
                aim = FP8_AIMS[name] if largest and compiled else None
        ratio = None if name == PEER else times.ratio(name, over)
        lab.findings.add(
            Row(
                f"{tokens} tokens{video}, {label}, {how}",
                took * 1e3,
                "ms",
                lab.bound(tokens, name in FP8_AIMS, name == FP8_ALL) * 1e3,
                over="" if ratio is None else lab.label(over),
                ratio=ratio,
                aim=aim,
                note=lab.note,
            )
        )
    compare(lab, tokens, results)
    configure = partial(configured, lab, compiled=compiled, replayed=True)
    graphs.replayed(lab, tokens, able, way(compiled), configure, results)
    for name in able:
        configured(lab, name, False)


def able_here(lab: Lab, names: Sequence[str]) -> list[str]:
    """Names that can be computed here; says why the others cannot."""
    from gatekit import ScheduleError, compute_capability

    found = list(names)
    if FP8 in found:
        from gatekit_wan22.fp8 import check_fp8

        try:
            check_fp8(lab.device, compute_capability(lab.device))
        except ScheduleError as why:
            found.remove(FP8)
            lab.findings.say(f"  {FP8} left out: {why.message}")
    if FP8 in found:
        from gatekit_wan22.attention import choose
        from gatekit_wan22.attention_fp8 import NAME

        try:
            choose(NAME, lab.device, FP8, compute_capability(lab.device))
            found.append(FP8_ALL)
        except ScheduleError as why:
            lab.findings.say(f"  {FP8_ALL} left out: {why.message}; {why.remedy}")
    if not found:
        raise LeftOut("none of these can be computed here")
    return found


def compare(lab: Lab, tokens: int, results: dict[str, Any]) -> None:
    """How far outputs are from diffusers', of models that have the same weights."""
    import math

    theirs = results[PEER].float()
    same = [PLAIN, FP8, FP8_ALL, *lab.types[:1]]
    for name, ours in results.items():
        if name == PEER or name not in same:
            continue
        error = float((ours.float() - theirs).norm() / theirs.norm())
        if not math.isfinite(error):
            raise ArithmeticError(f"{name} at {tokens} tokens: the output is not finite")
        lab.findings.add(
            Row(f"{tokens} tokens, {lab.label(name)}, {ERROR} from {lab.label(PEER)}", error, "")
        )


def again(lab: Lab, tokens: int) -> None:
    """The first pass of a later run: torch forgets its code and takes it from the disk."""
    import torch

    from gatekit_wan22 import compiling

    if (PLAIN, tokens, "compiled") not in lab.seconds:
        raise LeftOut("nothing was compiled")
    lab.findings.need(30, "compiling again")
    torch._dynamo.reset()
    compiling.compiled_forward.cache_clear()
    configured(lab, PLAIN, True)
    first = lab.clock.once(lab.forward(PLAIN, tokens))
    lab.findings.add(
        Row(f"first pass of {lab.label(PLAIN)}, {tokens} tokens, its code on disk", first, "s")
    )
    configured(lab, PLAIN, False)
