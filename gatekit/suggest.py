"""Remedies, for the end of an error message: the nearest of the valid names, what to install."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN = 12
FEW = 8
LONGEST = 200  # characters of a name that is compared with others


def install_extra(name: str) -> str:
    """The remedy where a package of one of gatekit's extras is missing.

    By the distribution's name pip takes the gatekit that is installed, in any folder, and an
    editable one stays editable.
    """
    return f"install the extra '{name}': pip install \"gatekit-diffusion[{name}]\""


def nearest(name: object, names: Iterable[str]) -> str | None:
    """The valid name that ``name`` was probably meant to be, or None; one it begins comes first."""
    if not isinstance(name, str) or len(name) > LONGEST:
        return None
    folded = {known.lower().replace("-", "_"): known for known in names}
    given = name.lower().replace("-", "_")
    begun = [known for known in folded if len(given) > 1 and known.startswith(given)]
    close = sorted(begun, key=len) or get_close_matches(given, folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def one_of(value: object, values: Iterable[str]) -> str:
    """The remedy for a value that is none of the known ones: where they are few, all of them."""
    known = sorted(values)
    remedy = did_you_mean(value, known)
    if remedy.startswith("did you mean") and len(known) <= FEW:
        remedy += f" known: {', '.join(known)}"
    return remedy


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
