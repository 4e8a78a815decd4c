"""Did you mean: the nearest of the valid names, for the end of an error message."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 12


def nearest(name: object, names: Iterable[str]) -> str | None:
    """The valid name that ``name`` was probably meant to be, or None."""
    if not isinstance(name, str):
        return None
    folded = {known.lower().replace("-", "_"): known for known in names}
    close = get_close_matches(name.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(name: object, names: Iterable[str], *, otherwise: str | None = None) -> str:
    """The remedy for an unknown name: the nearest one, else all of them.

    Args:
        name: What was given.
        names: What would have been valid.
        otherwise: Said in place of the list where the list is long.
    """
    known = sorted(names)
    close = nearest(name, known)
    if close is not None:
        return f"did you mean {close!r}?"
    if not known:
        return otherwise or "there is none"
    if len(known) > SHOWN and otherwise:
        return otherwise
    shown = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
    return f"known: {shown}"
