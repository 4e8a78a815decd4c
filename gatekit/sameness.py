"""Whether a checkpoint belongs to a run: what decides its bits, and what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from gatekit.device import kind_of
from gatekit.identity import file_identity
from gatekit.provenance import fingerprint, first_difference, inputs_record, versions

if TYPE_CHECKING:
    from gatekit.family import Inputs
    from gatekit.plan import Plan

PLUGIN = "plugin "
IDLE = {"python", "av"}  # versions that change no latent
SCHEDULE = "another schedule, prompt, seed or weights"
VERSIONS, DEVICE = "other versions", "another kind of device"


def mark(plan: Plan, inputs: Inputs) -> dict[str, Any]:
    """What decides the bits of a run, as plain data."""
    return {
        "fingerprint": fingerprint(plan, inputs),
        "schedule": plan.resolved(),
        "inputs": inputs_record(inputs),
        "files": [list(file_identity(file)) for file in plan.files()],
        "versions": versions(),
        "device": plan.device,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What a run would do otherwise than the one that a checkpoint is of; empty if nothing.

    Plugins that came or went meanwhile, and keys of the schedule that decide no bit, such
    as ``memory``, may differ.

    Returns:
        What differs (``SCHEDULE``, ``VERSIONS``, ``DEVICE``) -> the first of it, with both values.
    """
    found: dict[str, str] = {}
    if before.get("fingerprint") != now["fingerprint"]:
        trees = [{k: m.get(k) for k in ("schedule", "inputs")} for m in (before, now)]
        first = _other_file(before.get("files", []), now["files"])
        first = first or first_difference(trees[0], trees[1])
        found[SCHEDULE] = first or "a weight file is not the same"
    old, new = _versions(before.get("versions", {})), _versions(now["versions"])
    either = {name for name in (*old, *new) if not name.startswith(PLUGIN)}
    names = [name for name in (*old, *new) if name in either or (name in old and name in new)]
    first = first_difference({n: old.get(n) for n in names}, {n: new.get(n) for n in names})
    if first:
        found[VERSIONS] = first
    kinds = kind_of(str(before.get("device", ""))), kind_of(now["device"])
    if kinds[0] != kinds[1]:
        found[DEVICE] = f"device was {kinds[0]!r}, is {kinds[1]!r}"
    return found


def _versions(given: Mapping[str, Any]) -> dict[str, Any]:
    """Versions by name, plugins among them."""
    flat = {name: value for name, value in given.items() if name not in {*IDLE, "plugins"}}
    plugins = cast("Mapping[str, Any]", given.get("plugins") or {})
    return flat | {f"{PLUGIN}{name}": value for name, value in plugins.items()}


def _other_file(before: list[Any], now: list[Any]) -> str | None:
    """A file of the same name and another content, where the same names are in use."""
    if [name for name, *_ in before] != [name for name, *_ in now]:
        return None
    for (name, was, *_), (_, size, *_), same in (
        (a, b, list(a) == list(b)) for a, b in zip(before, now, strict=True)
    ):
        if not same:
            sizes = f", {was:,} bytes before and {size:,} now" if was != size else ""
            return f"a weight file is not the same: {name}{sizes}"
    return None
