"""A gated run from its files to its end: loads, switches, compiled code from disk, every step."""

from __future__ import annotations

import time
from math import prod
from pathlib import Path
from typing import Any

import gatekit
from gatekit_bench.files import Random, weights_of, write_gguf, write_safetensors
from gatekit_bench.findings import Row
from gatekit_bench.lab import FP8, FP8_ALL, PEER, PLAIN, Lab
from gatekit_bench.part_forward import LIKELY, able_here
from gatekit_bench.part_gated import GATE, SCALE, SHIFT, STEPS, SWITCH, Gate, gate, seconds_of
from gatekit_bench.part_memory import Watch, common, forget_compiled, give_back
from gatekit_wan22.sizes import expected_shapes

AIM = 0.5  # over diffusers with two experts, loading included
PHASES = ("commit", "structure", "polish")


def run(lab: Lab) -> None:
    """Two runs: all in fp8 with its attention, where that can be, and in the plain arithmetic."""
    fill, shapes = Random(lab.device), expected_shapes(lab.sizes)
    kinds = lab.types[0], lab.types[-1]
    need = 2 * sum(prod(s) for s in shapes.values()) + sum(weights_of(lab.sizes, k) for k in kinds)
    lab.room(1.1 * need)
    lab.findings.need(45 if lab.cuda else 0, "writing three files")
    lab.close()
    files = [lab.folder / name for name in ("run_0.gguf", "run_1.gguf", "run.safetensors")]
    try:
        for file, kind in zip(files, kinds, strict=False):
            write_gguf(file, lab.sizes, kind, fill)
        write_safetensors(files[-1], shapes, fill)
        runs(lab, files)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def runs(lab: Lab, files: list[Path]) -> None:
    """Each run on the three files."""
    able = able_here(lab, [FP8, PLAIN] if FP8 in lab.variants and lab.cuda else [PLAIN])
    fastest = next((name for name in (FP8_ALL, FP8) if name in able), PLAIN)
    for name in dict.fromkeys((fastest, PLAIN)):
        lab.findings.need(likely(lab, name), f"a run in {lab.label(name)}")
        forget_compiled()  # as a later run finds it: on disk
        measured(lab, name, files)


def likely(lab: Lab, name: str) -> float:
    """Seconds that a run will take."""
    passes = gate()
    if (found := seconds_of(lab, (name, name, name), passes)) is not None:
        return 1.2 * found[0] / lab.factor + 10
    return LIKELY * passes.total * lab.bound(max(lab.tokens)) / lab.factor + 10


def schedule(lab: Lab, name: str, files: list[Path]) -> gatekit.Schedule:
    """The three phases of ``gate``, with guidance, on models of the bench's own sizes."""
    how: dict[str, Any] = {
        "sampler": "unipc", "guidance": {"use": "cfg", "scale": SCALE}, "compute": lab.compute,
    }  # fmt: skip
    if name != PLAIN:
        how["compute"] = FP8
    if name == FP8_ALL:
        from gatekit_wan22.attention_fp8 import NAME

        how["attention"] = NAME
    until: list[dict[str, Any]] = [{"until": GATE}, {"until": SWITCH}, {}]
    kinds: list[dict[str, Any]] = [{"use": "gguf"}, {"use": "gguf"}, {"use": "safetensors"}]
    return gatekit.Schedule.from_dict(
        {
            **common(lab, "run"),
            "variants": {
                phase: {**kind, "file": str(file)}
                for phase, kind, file in zip(PHASES, kinds, files, strict=True)
            },
            "sigmas": {"use": "shifted_linear", "steps": STEPS, "shift": SHIFT},
            "phases": [
                {"name": phase, "variant": phase, **end, **how}
                for phase, end in zip(PHASES, until, strict=True)
            ],
        }
    )  # fmt: skip


def measured(lab: Lab, name: str, files: list[Path]) -> None:
    """One run by the clock, and what of it was no step."""
    watch, began = Watch(), time.perf_counter()
    plan = gatekit.resolve(schedule(lab, name, files), device=lab.device, require_files=True)
    try:
        gatekit.run(plan, gatekit.Inputs(prompt="bench"), observers=[watch], decode=False)
        took, steps = time.perf_counter() - began, sum(s for _, _, s in watch.ended)
    finally:
        give_back(plan)
    passes = gate()
    theirs = peer(lab, passes)
    note = ", ".join(
        filter(None, ("from files in the page cache to the last latent", lab.measured))
    )
    how = lab.label(name)
    lab.findings.add(
        Row(
            f"a run of {STEPS} steps with guidance, {passes.total} passes, {how}", took, "s",
            over=f"{lab.label(PEER)}, two experts, loading included", ratio=took / theirs,
            aim=AIM if lab.cuda and lab.factor == 1.0 else None,
            note=note,
        )
        if theirs
        else Row(f"a run of {STEPS} steps with guidance, {how}", took, "s", note=note)
    )  # fmt: skip
    lab.findings.add(
        Row(f"of it no steps: loads, switches, compiled code, {how}", took - steps, "s")
    )


def peer(lab: Lab, passes: Gate) -> float | None:
    """Seconds of diffusers' run of as many layers: its measured passes and loads."""
    each = lab.seconds.get((PEER, max(lab.tokens), "eager"))
    load = lab.loads.get(PEER)
    return None if each is None or load is None else 2 * load + each * passes.total
