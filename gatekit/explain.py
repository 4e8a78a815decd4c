"""A plan in words, in rows, and as plain data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.memoryplan import as_data, expected_limit, lines, memory_plan
from gatekit.sizetext import size

if TYPE_CHECKING:
    from gatekit.plan import Plan, PlannedPhase, PlannedStep
    from gatekit.variant import VariantFacts

DETERMINISTIC = "deterministic: the same bits from run to run on the same device and versions"
_SHARD = re.compile(r"-\d{5}-of-(\d{5})(?=\.\w+$)")


def arguments(name: str, params: Any, always: Sequence[str] = ()) -> str:
    """``cfg(scale=3.5)``: a plugin with the parameters that are not its defaults.

    Those in ``always`` are shown in any case, where the plugin has them.
    """
    every = params.model_dump(mode="json")
    given = {k: v for k, v in every.items() if k in always}
    given |= params.model_dump(mode="json", exclude_defaults=True)
    return name + ("(" + ", ".join(f"{k}={v}" for k, v in given.items()) + ")" if given else "")


def counted(number: int, what: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def columns(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows of cells as lines with aligned columns."""
    table = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell.rjust(widths[i]) if i in right else cell.ljust(widths[i])
            for i, cell in enumerate(row)
        ).rstrip()
        for row in table
    ]


def summary(plan: Plan) -> list[str]:
    """What is made, in what, on what."""
    video, rows = plan.video, plan.table()
    seconds = video.frames / video.fps
    about = "" if plan.exact else "about "
    cost = f"{about}{counted(len(rows), 'step')}, {counted(plan.nfe, 'evaluation')}"
    if plan.passes != plan.nfe:
        cost += f", {plan.passes} model passes"
    lines = [
        f"{plan.schedule.name}: family {plan.family.name}, {video.width}x{video.height}, "
        f"{video.frames} frames at {video.fps:g} fps ({seconds:.1f} s), on {plan.device}",
        cost,
        *_sharing(plan),
        *([DETERMINISTIC] if plan.schedule.deterministic else []),
    ]
    return [*lines, str(plan.start)] if plan.start is not None else lines


def _sharing(plan: Plan) -> list[str]:
    """By what the steps are shared between phases, where they are."""
    sigmas, phases = plan.schedule.sigmas, plan.schedule.phases
    shares = [f"{phase.share:g}" for phase in phases if phase.share is not None]
    if sigmas.allot is None and not shares:
        return []
    by = f"their length in {sigmas.allot}" if sigmas.allot else "shares " + " : ".join(shares)
    by = "the steps of a fine grid" if sigmas.allot == "grid" else by
    counts = " + ".join(str(len(phase.sigmas) - 1) for phase in plan.phases)
    left = " left by the start" if plan.start is not None else ""
    return [f"{sigmas.steps} steps shared by {by}: {counts}{left}"]


def phase_line(plan: Plan, phase: PlannedPhase, first: bool) -> list[str]:
    """What one phase does, as lines."""
    storage = plan.facts[phase.variant].storage if phase.variant in plan.facts else "not found"
    sampler = arguments(phase.sampler.name, phase.sampler.params)
    if phase.strategy.name != "grid":
        sampler += f" by {arguments(phase.strategy.name, phase.strategy.params)}"
    lines = [
        f"{phase.name}: from sigma {phase.sigmas[0]:.4g} {phase.boundary}; "
        f"{counted(len(phase.strategy.intervals()), 'step')} of {sampler}",
        f"  model {phase.variant} ({storage}, {computed(phase)}), "
        f"guidance {arguments(phase.guidance.name, phase.guidance.params, ('scale',))}",
    ]
    if phase.cache is not None:
        cache = arguments(phase.cache.name, phase.cache.params, ("threshold",))
        lines.append(f"  step cache {cache}: passes may leave blocks out")
    lines += [f"  {remark}" for remark in phase.execution.remarks]
    if adjust := _adjust(plan, phase):
        lines.append(f"  adjust: {flow(adjust)}")
    if remark := phase.strategy.remark():
        lines.append(f"  {phase.strategy.name}: {remark}")
    if not first:
        lines.append(f"  history: {arguments(phase.history.name, phase.history.params)}")
    return lines


def computed(phase: PlannedPhase) -> str:
    """``computed in bf16, attention cudnn, compiled``."""
    parts = [f"computed in {phase.compute}"]
    if phase.execution.attention:
        parts.append(f"attention {phase.execution.attention}")
    return ", ".join([*parts, *(["compiled"] if phase.execution.compiled else [])])


def flow(value: Any) -> str:
    """Plain data as one line of YAML."""
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.allow_unicode = True, 1_000_000, True
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue().strip()


def _adjust(plan: Plan, phase: PlannedPhase) -> dict[str, Any]:
    """What the phase changes in its variant, as its schedule says."""
    (entry,) = (p for p in plan.schedule.phases if p.name == phase.name)
    return entry.adjust


def file_lines(plan: Plan) -> list[str]:
    """Every weight file: found where, how large, how many bits a weight."""
    lines: list[str] = []
    for key, variant in plan.variants.items():
        beside = variant.beside()
        for i, (place, paths) in enumerate(_sets(variant.files())):
            about = _about(paths, plan.facts.get(key) if not i else None)
            what = beside.get(paths[0])
            lines.append(f"{key}: {place} ({f'{what}, ' if what else ''}{about})")
    read = plan.family.component_files()
    for name in ("text_encoder", "vae"):
        wanted = getattr(plan.schedule, name)
        if wanted is None or getattr(plan.family.components, name) is None:
            continue
        found = _sets(read.get(name, ())) or [(str(wanted.file), list[Path]())]
        lines += [f"{name}: {place} ({_about(paths)})" for place, paths in found]
    return lines


def _sets(files: Iterable[Path]) -> list[tuple[str, list[Path]]]:
    """Files in order, the shards of one model together, under a name for all of them."""
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(_SHARD.sub(r"-*-of-\1", str(path)), []).append(path)
    return list(found.items())


def _about(paths: Sequence[Path], facts: VariantFacts | None = None) -> str:
    """Size of files, and what else is known of them."""
    if not paths or not all(path.exists() for path in paths):
        return "MISSING"
    number = [f"{len(paths)} files"] if len(paths) > 1 else []
    if facts is None:
        return ", ".join([*number, size(sum(map(_bytes, paths)))])
    return ", ".join(
        [
            *number,
            f"{facts.storage}, {size(facts.file_bytes)}",
            f"{facts.bits_per_weight:.2f} bits a weight",
            f"{size(facts.resident_bytes)} when loaded",
        ]
    )


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def memory_lines(plan: Plan) -> list[str]:
    """What is where in each phase, as far as headers tell."""
    memory = memory_plan(plan, expected_limit(plan))
    return lines(memory, plan) if memory is not None else []


def explain(plan: Plan) -> str:
    """The whole plan as text."""
    before, after = around(plan)
    table = columns([HEAD, *(cells(row) for row in plan.table())], RIGHT)
    return "\n".join([*before, *table, *after])


def around(plan: Plan) -> tuple[list[str], list[str]]:
    """The lines before the table of steps, and those after it."""
    before = [*summary(plan), ""]
    for i, phase in enumerate(plan.phases):
        before += phase_line(plan, phase, i == 0)
    after = ["", *file_lines(plan)]
    after += memory_lines(plan)
    after += missing_lines(plan)
    after += [f"warning: {warning}" for warning in plan.warnings]
    return [*before, ""], after


def missing_lines(plan: Plan) -> list[str]:
    """Files that were not found: where each is named, and once where gatekit looked."""
    if not plan.missing:
        return []
    lines = [f"missing: {m.where}: {m.name}" for m in plan.missing]
    for m in plan.missing:
        if m.hint:
            lines.append(f"missing: did you mean {m.hint!r} for {m.name}?")
    return [*lines, f"missing: {plan.missing[0].searched}"]


HEAD = ("step", "phase", "sigma", "to", "timestep", "model", "sampler", "evals", "passes")
RIGHT = (0, 2, 3, 4, 7, 8)


def cells(row: PlannedStep) -> tuple[str, ...]:
    """One row of the table as text."""
    return (
        str(row.step),
        row.phase,
        f"{row.sigma:.4f}",
        f"{row.sigma_next:.4f}",
        f"{row.timestep:.1f}",
        row.model,
        row.sampler,
        str(row.nfe),
        str(row.passes),
    )


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain data."""
    memory = memory_plan(plan, expected_limit(plan))
    return {
        "schedule": plan.schedule.to_dict(),
        "family": plan.family.name,
        "device": plan.device,
        "video": asdict(plan.video),
        "sigmas": list(plan.run_sigmas),
        "start": asdict(plan.start) if plan.start is not None else None,
        "nfe": plan.nfe,
        "passes": plan.passes,
        "exact": plan.exact,
        "phases": [
            {
                "name": p.name,
                "variant": p.variant,
                "adjust": _adjust(plan, p),
                "sampler": {"use": p.sampler.name, **p.sampler.params.model_dump(mode="json")},
                "strategy": {"use": p.strategy.name, **p.strategy.params.model_dump(mode="json")},
                "guidance": {"use": p.guidance.name, **p.guidance.params.model_dump(mode="json")},
                "cache": {"use": p.cache.name, **p.cache.params.model_dump(mode="json")}
                if p.cache
                else None,
                "history": {"use": p.history.name, **p.history.params.model_dump(mode="json")},
                "compute": p.compute,
                "attention": p.execution.attention or None,
                "compiled": p.execution.compiled,
                "replayed": p.execution.replayed,
                "field": p.field,
                "remark": p.strategy.remark(),
                "boundary": asdict(p.boundary),
                "sigmas": list(p.sigmas),
            }
            for p in plan.phases
        ],
        "steps": [asdict(row) for row in plan.table()],
        "variants": {
            key: {
                "files": [str(f) for f in variant.files()],
                "facts": asdict(plan.facts[key]) if key in plan.facts else None,
            }
            for key, variant in plan.variants.items()
        },
        "resident_bytes": plan.resident_bytes,
        "memory": as_data(memory, plan) if memory is not None else None,
        "missing": [
            {"name": m.name, "where": m.where, "looked": [str(p) for p in m.looked]}
            for m in plan.missing
        ],
        "warnings": list(plan.warnings),
    }
