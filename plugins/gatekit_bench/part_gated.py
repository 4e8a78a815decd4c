"""A three-phase gated denoise beside diffusers with two experts, from measured passes."""

from __future__ import annotations

from dataclasses import dataclass

import gatekit
from gatekit_bench.findings import LeftOut, Row
from gatekit_bench.lab import FP8, FP8_ALL, PEER, PLAIN, Lab

STEPS, SCALE, SHIFT, GATE, SWITCH = 20, 3.5, 5.0, 0.96, 0.9
AIM = 0.6


@dataclass(frozen=True)
class Gate:
    """Passes of each phase."""

    commit: int
    structure: int
    polish: int

    @property
    def total(self) -> int:
        """Passes of the run."""
        return self.commit + self.structure + self.polish


def gate(steps: int = STEPS) -> Gate:
    """Passes as a plan counts them: commit to 0.96, structure to 0.9, polish; with guidance."""
    guided = {"sampler": "unipc", "guidance": {"use": "cfg", "scale": SCALE}}
    data = {
        "version": 1,
        "name": "gate",
        "family": {"use": "wan22", "task": "t2v-a14b"},
        "text_encoder": {"file": "none"},
        "vae": {"file": "none"},
        "variants": {key: {"use": "gguf", "file": key} for key in ("a", "b", "c")},
        "sigmas": {"use": "shifted_linear", "steps": steps, "shift": SHIFT},
        "phases": [
            {"name": "commit", "until": GATE, "variant": "a", **guided},
            {"name": "structure", "until": SWITCH, "variant": "b", **guided},
            {"name": "polish", "variant": "c", **guided},
        ],
    }
    rows = gatekit.resolve(gatekit.Schedule.from_dict(data), device="cpu").table()
    counts: dict[str, int] = dict.fromkeys(("commit", "structure", "polish"), 0)
    for row in rows:
        counts[row.phase] += row.passes
    return Gate(**counts)


def arms(lab: Lab) -> dict[str, tuple[str, str, str]]:
    """What each phase is computed with, by what it is called."""
    coarse, fine, plain = lab.types[0], lab.types[-1], lab.label(PLAIN)
    return {
        f"{coarse}, {fine}, {plain}": (coarse, fine, PLAIN),
        f"{coarse}, {fine}, {plain}, all multiplied in fp8": (FP8, FP8, FP8),
        f"{coarse} and {fine} multiplied in fp8, {plain}": (FP8, FP8, PLAIN),
        f"{coarse}, {fine}, {plain}, all in fp8 with its attention": (FP8_ALL, FP8_ALL, FP8_ALL),
        f"{coarse} and {fine} in fp8 with its attention, {plain}": (FP8_ALL, FP8_ALL, PLAIN),
    }


def seconds_of(lab: Lab, names: tuple[str, str, str], passes: Gate) -> tuple[float, str] | None:
    """A run's passes added up, and how they ran; None where one of them was not measured."""
    each = (passes.commit, passes.structure, passes.polish)
    for how in ("compiled", "eager"):
        found = [lab.seconds.get((name, max(lab.tokens), how)) for name in names]
        if None not in found:
            return lab.factor * sum(n * (s or 0.0) for n, s in zip(each, found, strict=True)), how
    return None


def gated(lab: Lab) -> None:
    """Sums of passes: in the plain arithmetic, and in fp8."""
    passes, tokens = gate(), max(lab.tokens)
    theirs = lab.seconds.get((PEER, tokens, "eager"))
    if theirs is None:
        raise LeftOut(
            f"diffusers' pass of {tokens} tokens was not measured; it is in the part 'forward'"
        )
    total = theirs * passes.total * lab.factor
    note = f"sum of measured passes, without loading{', ' + lab.note if lab.note else ''}"
    said = f"{STEPS} steps with guidance, {passes.total} passes"
    lab.findings.add(Row(f"{said}, {lab.label(PEER)}, two experts", total, "s", note=note))
    splits = f"{passes.commit} + {passes.structure} + {passes.polish}"
    for title, names in arms(lab).items():
        if (found := seconds_of(lab, names, passes)) is None:
            continue
        ours, how = found
        lab.findings.add(
            Row(
                f"{said} ({splits}), {title}, {how}", ours, "s",
                over=lab.label(PEER), ratio=ours / total,
                aim=AIM if lab.cuda else None, note=note,
            )
        )  # fmt: skip
