"""Bytes as people write them."""

from __future__ import annotations

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Bytes for people: ``8.3 GiB``."""
    unit = 0
    while count >= 1024 and unit + 1 < len(UNITS):
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 else f"{count:.1f} {UNITS[unit]}"


def as_setting(count: int) -> str:
    """Bytes as a schedule takes them, rounded up to a tenth of their unit: ``8.4GiB``."""
    unit = 0
    while count >= 1024 << (10 * unit) and unit + 1 < len(UNITS):
        unit += 1
    tenths = -(-count * 10 // (1 << (10 * unit)))
    return f"{tenths / 10:g}{UNITS[unit]}" if unit else f"{count}B"
