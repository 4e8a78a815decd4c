"""What code a result depends on: versions and hashes of the packages that take part."""

from __future__ import annotations

import hashlib
import importlib
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import gatekit

Source = tuple[str, str, str]  # package, version, hash of its source files


def sources_of(plan: gatekit.Plan) -> list[Source]:
    """Of gatekit and of every package whose classes the plan uses, those they derive from too."""
    parts: list[Any] = [plan.family, *(plan.variants[p.variant] for p in plan.phases)]
    for phase in plan.phases:
        parts += [phase.sampler, phase.strategy, phase.guidance, phase.history]
    modules = {cls.__module__.partition(".")[0] for part in parts for cls in type(part).__mro__}
    known = [source_of(name) for name in sorted(modules | {"gatekit"})]
    return [source for source in known if source is not None]


@cache
def source_of(package: str) -> Source | None:
    """Of one import package; None for one that comes with Python."""
    module = importlib.import_module(package)
    file = getattr(module, "__file__", None)
    if file is None or package in ("abc", "builtins", "typing"):
        return None
    place = Path(file)
    files = sorted(place.parent.rglob("*.py")) if place.name == "__init__.py" else [place]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(place.parent).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    distributions = _distributions().get(package, [])
    return package, version(distributions[0]) if distributions else "", digest.hexdigest()[:32]


@cache
def _distributions() -> Any:
    return packages_distributions()
