"""The arms as data: which file in which phase, which sampler, which text encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import gatekit
from gatekit_tinywan.gating.weights import EXPERTS, KINDS, TEXTS, file_of, spec_of

Table = Literal["precision", "samplers", "text encoder"]
TABLES: tuple[Table, ...] = ("precision", "samplers", "text encoder")
GATE, FP16 = "gate", "fp16"
COMMIT, SWITCH, STEPS, SHIFT = 0.96, 0.875, 20, 5.0  # as schedules/quickstart.yaml (a test)
GATE_KINDS = ("Q2_K", "Q5_K_S", "fp16")
BOUNDS = (("high", COMMIT), ("high", SWITCH), ("low", None))
PHASE_SAMPLERS = ("commit", "structure", "polish")
NEAR = 0.05  # of the mean bits: a control within it counts as equal, as in `gatekit report`
Triple = tuple[str, str, str]
Counts = tuple[int, int, int]
Bits = Callable[[str], float]


@dataclass(frozen=True)
class Part:
    """One phase: an expert in one file down to ``until``; None: to the end."""

    expert: str
    kind: str
    until: float | None


@dataclass(frozen=True)
class Arm:
    """One arm.

    Attributes:
        name: Unique.
        table: Where it is reported, and with which arms its tests are corrected together.
        parts: Its phases.
        samplers: One a part.
        text: Precision of the text encoder.
        baseline: Arm that its differences are taken to; None for the baseline itself.
    """

    name: str
    table: Table
    parts: tuple[Part, ...]
    samplers: tuple[str, ...]
    text: str = "fp16"
    baseline: str | None = GATE


def parts_of(kinds: Sequence[str]) -> tuple[Part, ...]:
    """The three phases of the gate, each in its kind of file."""
    return tuple(Part(e, k, until) for (e, until), k in zip(BOUNDS, kinds, strict=True))


def arms_of(counts: Counts, bits: Bits, proposed: Sequence[Part] = ()) -> list[Arm]:
    """Every arm; fp16, which all are compared with, is the first.

    Args:
        counts: Steps in each of the three phases.
        bits: Kind -> mean bits a weight.
        proposed: Phases that ``gatekit propose`` found at the gate's bits.
    """

    def arm(name: str, *kinds: str, **more: Any) -> Arm:
        triple = kinds * 3 if len(kinds) == 1 else kinds
        return Arm(name, more.pop("table", "precision"), parts_of(triple), ("unipc",) * 3, **more)

    def sampled(name: str, kinds: Triple, samplers: Triple, baseline: str) -> Arm:
        return Arm(name, "samplers", parts_of(kinds), samplers, baseline=baseline)

    gate, fine = GATE_KINDS, ("fp16", "fp16", "fp16")
    even, late = controls(gate, counts, bits)
    found = [
        *(arm(kind, kind) for kind in KINDS),
        arm(GATE, *gate, baseline=None),
        arm("reversed", "fp16", "Q5_K_S", "Q2_K"),
        arm("swapped", "Q5_K_S", "Q2_K", "fp16"),
        arm("sandwich", "fp16", "Q2_K", "fp16"),
        arm("two phases: Q2_K fp16", "Q2_K", "Q2_K", "fp16"),
        arm("two phases: Q5_K_S fp16", "Q5_K_S", "Q5_K_S", "fp16"),
        arm(f"even: {' '.join(even)}", *even),
        arm(f"late: {' '.join(late)}", *late),
    ]
    if proposed:
        text = " ".join(part.kind for part in proposed)
        unipc = ("unipc",) * len(proposed)
        found.append(Arm(f"proposed: {text}", "precision", tuple(proposed), unipc))
    euler = ("euler", "euler", "euler")
    for name, kinds in ((FP16, fine), (GATE, gate)):
        found.append(sampled(f"{name}: euler", kinds, euler, name))
        found.append(sampled(f"{name}: commit structure polish", kinds, PHASE_SAMPLERS, name))
    for text in list(TEXTS)[1:]:
        found.append(arm(f"text {text}", FP16, text=text, table="text encoder", baseline=FP16))
    return found


def mean_bits(kinds: Sequence[str], counts: Sequence[int], bits: Bits) -> float:
    """Over the steps."""
    return sum(n * bits(k) for n, k in zip(counts, kinds, strict=True)) / sum(counts)


def bits_of(arm: Arm, starts: Sequence[float], bits: Bits) -> float:
    """Mean bits a weight over the steps that start at ``starts``."""
    found = [
        next(p.kind for p in arm.parts if p.until is None or sigma >= p.until - 1e-6)
        for sigma in starts
    ]
    return sum(map(bits, found)) / len(found)


def controls(gate: Triple, counts: Counts, bits: Bits) -> tuple[Triple, Triple]:
    """Two other ways to spend the gate's bits: as evenly as can be, and fine before coarse.

    ``even`` varies least over the steps among those within ``NEAR`` of the gate's
    mean; ``late``
    has the high-noise expert in fp16 and the low-noise one in what comes nearest.
    """
    aim = mean_bits(gate, counts, bits)

    def spread(kinds: Triple) -> float:
        mean = mean_bits(kinds, counts, bits)
        return sum(n * (bits(k) - mean) ** 2 for n, k in zip(counts, kinds, strict=True))

    def off(kinds: Triple) -> float:
        return abs(mean_bits(kinds, counts, bits) - aim)

    every = [k for k in product(KINDS, KINDS, KINDS) if k != gate]
    late: Triple = min((("fp16", "fp16", k) for k in KINDS), key=off)
    near = [k for k in every if off(k) <= NEAR * aim and k != late]
    return min(near or every, key=(lambda k: (spread(k), off(k))) if near else off), late


def schedule_of(arm: Arm, video: dict[str, int], steps: int, compute: str) -> gatekit.Schedule:
    """The arm's schedule."""
    named = {f"{p.expert}-{p.kind.lower()}": spec_of(p.expert, p.kind) for p in arm.parts}
    phases: list[dict[str, Any]] = []
    for i, (part, sampler) in enumerate(zip(arm.parts, arm.samplers, strict=True)):
        phase: dict[str, Any] = {
            "name": PHASE_SAMPLERS[i] if len(arm.parts) == 3 else f"phase{i + 1}",
            "variant": f"{part.expert}-{part.kind.lower()}",
            "sampler": {"use": sampler},
            "guidance": {"use": "cfg", "scale": 3.0},
            "history": "carry",
            "compute": compute,
        }
        phases.append(phase if part.until is None else phase | {"until": part.until})
    return gatekit.Schedule.from_dict(
        {
            "version": 1,
            "name": arm.name,
            "family": {"use": "tinywan"},
            "text_encoder": {"file": TEXTS[arm.text]},
            "vae": {"file": "tinywan_vae_fp16.safetensors"},
            "variants": named,
            "video": video,
            "sigmas": {"use": "shifted_linear", "steps": steps, "shift": SHIFT},
            "phases": phases,
        }
    )


def proposed_parts(
    path: Path, sigmas: Sequence[float], most: float, models: Sequence[Path]
) -> list[Part]:
    """What ``gatekit propose --budget bits=MOST`` chooses from a profile of these steps.

    Raises:
        InputError: The profile is of other steps or of files that are not the study's.
    """
    from gatekit_research.profile.document import read_profile
    from gatekit_research.propose.budget import answer
    from gatekit_research.propose.problem import problem_of
    from gatekit_research.propose.profiled import profiled, stretches

    profile = read_profile(path)
    steps = profile.steps
    starts = [step.sigma for step in steps]
    if len(starts) != len(sigmas) or max(map(_apart, starts, sigmas)) > 1e-6:
        raise gatekit.InputError(
            f"the profile has {len(starts)} steps, not those {len(sigmas)} of the study",
            where=str(path),
            remedy="make it of schedules/tinywan_fp16.yaml as it is, with 'gatekit profile'",
        )
    problem = problem_of(profile, stretches(profile, profiled(profile, None, list(models))), 0.0)
    found: list[Part] = []
    for _, end, key in answer(problem, {"bits": most}, 3).chosen.pieces:
        name = Path(profile.variants[key].files[0][0]).name
        known = {file_of(e, k): (e, k) for e in EXPERTS for k in KINDS}
        if name not in known:
            raise gatekit.InputError(
                "the profile has a file that is none of the study's",
                where=str(path),
                value=name,
                remedy=f"profile some of: {', '.join(known)}",
            )
        until = None if end == len(steps) else _between(starts[end - 1], starts[end])
        found.append(Part(*known[name], until))
    return found


def _apart(one: float, other: float) -> float:
    return abs(one - other)


def _between(sigma: float, sigma_next: float) -> float:
    """A boundary after the step from ``sigma``; the experts' own where it is there."""
    own = sigma_next < SWITCH <= sigma
    return SWITCH if own else round((sigma + sigma_next) / 2, 6)
