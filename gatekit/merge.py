"""Merging schedules: ``extends`` takes another file, ``--set`` changes one value.

Mappings merge key by key; ``null`` takes a key out; anything else replaces. A mapping
whose ``use`` changes keeps nothing of the other plugin's parameters. Phases are addressed
by name (or number) and merge with the phase of that name.
"""

from __future__ import annotations

from collections.abc import Mapping

from gatekit.errors import ScheduleError
from gatekit.suggest import did_you_mean
from gatekit.yamlsource import Node, dotted_path, entries, items

Items = dict[str, Node]
PLUGIN_KEYS = {"sampler", "strategy", "guidance", "history", "sigmas"}
KEPT = {"sigmas": {"steps", "allot"}}


def merge(base: Node, over: Node, key: str = "") -> Node:
    """``over`` laid on ``base``.

    Args:
        base: The tree that is extended.
        over: What replaces parts of it.
        key: The key both are the value of.
    """
    if key == "phases":
        return _merge_phases(base, over)
    below, above = items(base), items(over)
    if key in PLUGIN_KEYS:
        below = _spelled(base) if below is None else below
        above = _spelled(over) if above is None else above
    if below is None or above is None:
        return _without_nulls(over)
    if key in PLUGIN_KEYS and _other_plugin(below, above):
        below = {k: v for k, v in below.items() if k in KEPT.get(key, ())}
    merged = dict(below)
    for name, child in above.items():
        if child.value is None:
            merged.pop(name, None)
        elif name in merged:
            merged[name] = merge(merged[name], child, name)
        else:
            merged[name] = _without_nulls(child)
    return Node(merged, over.place, over.key)


def override(root: Node, dotted: str, value: Node, where: str) -> Node:
    """The tree with one value replaced: ``phases.high.sampler.eta``.

    Args:
        root: The schedule.
        dotted: Keys joined by dots; phases by name or number.
        value: The new value; null takes the key out.
        where: The option, for messages.

    Raises:
        ScheduleError: The path leads through something that is no mapping, or names no phase.
    """
    parts = [part for part in dotted.replace("[", ".").replace("]", "").split(".") if part]
    if not parts:
        raise ScheduleError("an override needs a key", where=where, remedy="KEY=VALUE")
    return _set(root, tuple(parts), (), value, where)


def _set(node: Node, parts: tuple[str, ...], done: tuple[str, ...], value: Node, at: str) -> Node:
    if not parts:
        return Node(value.value, value.place, node.key or value.place)
    head, rest = parts[0], parts[1:]
    listed = entries(node)
    if listed is not None:
        index = _index(listed, head, (*done, head), at)
        if not rest and value.value is None:
            return Node(listed[:index] + listed[index + 1 :], node.place, node.key)
        changed = list(listed)
        changed[index] = _set(listed[index], rest, (*done, head), value, at)
        return Node(changed, node.place, node.key)
    children = items(node)
    if children is None and node.value is None:
        children = {}
    if children is None and done and done[-1] in PLUGIN_KEYS:
        children = _spelled(node)
    if children is None:
        raise ScheduleError(
            f"{dotted_path(done)} is a single value and has no key {head!r}",
            where=at,
            value=node.value,
            remedy="name the key itself, or one that holds others",
        )
    children = dict(children)
    if not rest and value.value is None:
        children.pop(head, None)
        return Node(children, node.place, node.key)
    if head == "use" and not rest and done and done[-1] in PLUGIN_KEYS:
        new = {"use": value}
        if _other_plugin(children, new):
            children = {k: v for k, v in children.items() if k in KEPT.get(done[-1], ())}
    child = children.get(head, Node(None, value.place, value.key or value.place))
    children[head] = _set(child, rest, (*done, head), value, at)
    return Node(children, node.place, node.key)


def _index(listed: list[Node], name: str, path: tuple[str, ...], where: str) -> int:
    names = [_name(entry) or "" for entry in listed]
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(listed):
        return int(name)
    known = [known for known in names if known] or [str(i) for i in range(len(listed))]
    raise ScheduleError(
        f"{dotted_path(path[:-1])} has no entry {name!r}",
        where=where,
        remedy=did_you_mean(name, known),
    )


def _merge_phases(base: Node, over: Node) -> Node:
    listed = list(entries(base) or [])
    by_name = items(over)
    if by_name is not None:
        for name, change in by_name.items():
            index = _index(listed, name, ("phases", name), str(change.key or change.place))
            if change.value is None:
                del listed[index]
            else:
                listed[index] = merge(listed[index], change)
        return Node(listed, base.place, base.key)
    changes = entries(over)
    if changes is None:
        return over
    at = 0
    for change in changes:
        names = [_name(entry) for entry in listed]
        name = _name(change)
        if name is not None and name in names:
            at = names.index(name)
            listed[at] = merge(listed[at], change)
        else:
            listed.insert(at, change)
        at += 1
    return Node(listed, over.place, over.key)


def _name(entry: Node) -> str | None:
    name = (items(entry) or {}).get("name")
    return name.value if name is not None and isinstance(name.value, str) else None


def _spelled(node: Node) -> Items | None:
    """``euler`` is short for ``{use: euler}``."""
    return {"use": Node(node.value, node.place)} if isinstance(node.value, str) else None


def _other_plugin(below: Mapping[str, Node], above: Mapping[str, Node]) -> bool:
    return "use" in above and "use" in below and above["use"].value != below["use"].value


def _without_nulls(node: Node) -> Node:
    children = items(node)
    if children is None:
        return node
    kept = {k: _without_nulls(v) for k, v in children.items() if v.value is not None}
    return Node(kept, node.place, node.key)
