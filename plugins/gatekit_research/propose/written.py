"""A proposal as a schedule that runs: the profiled one with other phases and variants."""

from __future__ import annotations

import copy
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gatekit
from gatekit_research.profile.document import RISK_FROM, Profile
from gatekit_research.propose.problem import Proposal


def schedule_of(
    profile: Profile,
    plan: gatekit.Plan,
    proposal: Proposal,
    out: Path,
    models_dir: Sequence[Path] | None = None,
) -> dict[str, Any]:
    """The schedule as plain data, its files named so that they are found from beside ``out``."""
    data = plan.schedule.to_dict()
    keys = list(dict.fromkeys(key for _, _, key in proposal.pieces))
    specs = {key: copy.deepcopy(data["variants"][key]) for key in keys}
    for spec in specs.values():  # of those that stood there, as they were named
        file = Path(spec["file"])
        spec["file"] = file.name if file.is_absolute() else str(file)
    folder = out.absolute().parent
    data |= {"name": out.stem, "variants": specs, "phases": _phases(profile, plan, proposal)}
    if _own_steps(plan):
        steps = profile.steps
        values = [*(step.sigma for step in steps), steps[-1].sigma_next]
        data["sigmas"] = {"use": "explicit", "values": values}
    return _found(data, plan, folder, models_dir)


def _own_steps(plan: gatekit.Plan) -> bool:
    """Whether the grid depends on the phases."""
    schedule = plan.schedule
    by_phase = any(p.steps or p.share or p.sigmas for p in schedule.phases)
    return by_phase or schedule.sigmas.allot is not None


def _phases(profile: Profile, plan: gatekit.Plan, proposal: Proposal) -> list[dict[str, Any]]:
    given = {p["name"]: p for p in plan.schedule.to_dict()["phases"]}
    steps = profile.steps
    bases = [steps[start].phase for start, _, _ in proposal.pieces]
    made: list[dict[str, Any]] = []
    for i, (_, end, key) in enumerate(proposal.pieces):
        base = copy.deepcopy(given[bases[i]])
        name = base["name"]
        if bases.count(name) > 1:
            name += f"-{1 + bases[:i].count(name)}"
        phase = {"name": name}
        if end < len(steps):
            phase["until"] = _until(profile, given, end)
        dropped = ("name", "until", "steps", "share", "sigmas")
        rest = {k: v for k, v in base.items() if k not in dropped}
        made.append(phase | rest | {"variant": key})
    return made


def _until(profile: Profile, given: Mapping[str, Any], end: int) -> Any:
    """A boundary before step ``end``: as it was given there, else a short number between."""
    before, after = profile.steps[end - 1], profile.steps[end]
    if before.phase != after.phase and given[before.phase].get("until") is not None:
        until = given[before.phase]["until"]
        return until.get("sigma", until)
    for digits in range(1, 9):
        value = round((before.sigma + after.sigma) / 2, digits)
        if after.sigma + 1e-5 < value < before.sigma - 1e-5:
            return value
    return before.sigma


def _found(
    data: dict[str, Any],
    plan: gatekit.Plan,
    folder: Path,
    models_dir: Sequence[Path] | None,
) -> dict[str, Any]:
    """File names that are not found from ``folder``, or found elsewhere, become paths."""
    trial = gatekit.resolve(gatekit.Schedule.from_dict(data, folder), models_dir=models_dir)
    wanted, found = plan.family.components.given(), trial.family.components.given()
    for section, spec in wanted.items():
        if spec.file is not None and not _same(found[section].file, spec.file):
            data[section]["file"] = str(spec.file)
    for key, spec in data["variants"].items():
        original = plan.variants[key]
        if trial.variants[key].files() != original.files():
            params = original.params.model_dump(mode="json", exclude_defaults=True)
            data["variants"][key] = {"use": spec["use"], **params}
    return data


def _same(a: Path | None, b: Path) -> bool:
    return a is not None and a.exists() and a.resolve() == b.resolve()


def text_of(data: Mapping[str, Any], header: str) -> str:
    """YAML with a header comment; what is a mapping of values alone stands on one line."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 4096
    stream = io.StringIO()
    order = ("version", "name", "family", "text_encoder", "vae", "variants", "video", "sigmas")
    ordered = {key: data[key] for key in order if key in data}
    yaml.dump(ordered | {k: v for k, v in data.items() if k not in order}, stream)
    lines = [line for part in header.splitlines() for line in textwrap.wrap(part, 96) or [""]]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + stream.getvalue()


def header_of(
    profile: Profile, source: str, proposal: Proposal, budget: str, risk_weight: float
) -> str:
    """What the schedule is, and what is predicted of it."""
    steps = profile.steps
    served = ", then ".join(
        f"{key} from sigma {steps[start].sigma:.4g}" for start, _, key in proposal.pieces
    )
    return (
        f"Proposed by 'gatekit propose' from {source}, a profile of {profile.made.name}, for "
        f"{budget or 'no budget'}, risk weight {risk_weight:g}: {served}.\n"
        f"Predicted: error E {proposal.error:.4g} (sum of |ds| rms(v_q - v), about the rms change "
        f"of the final latent), commitment risk {proposal.risk:.4g} (its part from sigma "
        f"{RISK_FROM} up), {proposal.bits:.2f} bits a weight, {proposal.seconds:.3g} s of "
        f"evaluations on {profile.made.device}, {proposal.switches} switches, "
        f"{proposal.vram / 2**20:.0f} MiB for the largest model.\n"
        f"E orders schedules; how true its size is on this model, measure (docs/profiles.md)."
    )
