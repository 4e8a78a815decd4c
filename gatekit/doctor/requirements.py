"""Packages that gatekit asks for: which are there, told by their metadata; none is imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, requires, version

from gatekit.check import Check, Finding
from gatekit.doctor.asking import Asked

PACKAGE = "gatekit-diffusion"
_LINE = re.compile(
    r"([A-Za-z0-9._-]+)\s*(?:>=\s*([0-9.]+))?[^;]*(?:;\s*extra\s*==\s*[\"'](.+)[\"'])?"
)
APART = "torch"  # has a line of its own

# What each extra is for, and whether the built-in models need it.
EXTRAS: dict[str, tuple[str, bool]] = {
    "wan": ("Wan and the small model, videos", True),
    "k-diffusion": ("samplers k_diffusion/*", False),
    "fit": ("gatekit fit", False),
    "quant": ("writing quantised GGUF files", False),
    "ray": ("sweeps on several machines", False),
    "report": ("plan --plot, gatekit report", False),
}


def required(lines: Iterable[str] | None = None) -> dict[str, list[tuple[str, str]]]:
    """Extra -> (package, least version); gatekit's own requirements are under ``""``.

    Args:
        lines: As ``importlib.metadata.requires`` gives them; those of gatekit if None.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for line in requires(PACKAGE) or () if lines is None else lines:
        match = _LINE.match(line)
        if match is not None and not match[1].startswith(PACKAGE):
            found.setdefault(match[3] or "", []).append((match[1], match[2] or ""))
    return found


def lacking(packages: Sequence[tuple[str, str]]) -> list[str]:
    """What has to be installed of these, as pip takes it: ``diffusers>=0.35``."""
    return [
        f"{name}>={least}" if least else name
        for name, least in packages
        if not _installed(name, least)
    ]


def _installed(name: str, least: str) -> bool:
    try:
        return numbers(version(name)) >= numbers(least)
    except PackageNotFoundError:
        return False


def numbers(text: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` -> (2, 13, 0)."""
    return tuple(int(n) for n in re.findall(r"\d+", text.partition("+")[0]))


def checks(imports: Asked) -> list[Check]:
    """Lines for what gatekit itself requires, and one line for each extra."""
    by_extra = required()
    own = [p for p in by_extra.get("", []) if p[0] != APART]
    found = [Check("requirements", "everything", lambda: _own(own, imports), needed=True)]
    for extra, (purpose, needed) in EXTRAS.items():
        packages = by_extra.get(extra, [])
        found.append(Check(f"extra {extra}", purpose, _finder(extra, packages), needed))
    return found


def _own(packages: Sequence[tuple[str, str]], imports: Asked) -> Finding:
    if not packages:
        raise PackageNotFoundError(PACKAGE)
    if absent := lacking(packages):
        return Finding("missing", ", ".join(absent), pip(absent))
    for name in imports.names:
        answer = imports.answer(name)
        if isinstance(answer, Finding):
            return Finding(
                answer.state, f"{name}: {answer.found}", f"pip install --force-reinstall {name}"
            )
    return Finding("ok", f"{len(packages)} packages: {', '.join(imports.names)} import")


def _finder(extra: str, packages: Sequence[tuple[str, str]]) -> Callable[[], Finding]:
    def find() -> Finding:
        if not packages:
            remedy = "install gatekit again"
            return Finding("broken", "its metadata is of an older gatekit", remedy)
        if absent := lacking(packages):
            return Finding("missing", ", ".join(absent), f'pip install "{PACKAGE}[{extra}]"')
        return Finding("ok", ", ".join(f"{name} {version(name)}" for name, _ in packages))

    return find


def pip(packages: Sequence[str]) -> str:
    """``pip install "a>=1" b``."""
    return "pip install " + " ".join(f'"{p}"' if ">" in p else p for p in packages)
