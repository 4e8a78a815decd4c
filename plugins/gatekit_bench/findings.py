"""What a bench has found: rows by part, printed as they come and written after each part."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gatekit

TIMES = ("ms", "s")
CLOSE = 0.97  # of a bound; what is nearer may be the clock


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        what: What it is of.
        value: The figure.
        unit: ``ms``, ``s``, ``GB/s``, ``TFLOP/s``; empty for a ratio.
        bound: The least (of a rate: the most) this hardware allows, in the same unit.
        over: What ``ratio`` is over; empty: the bound.
        ratio: Value over that.
        aim: What the ratio should be at most.
        note: What else has to be known, such as an extrapolation.
    """

    what: str
    value: float
    unit: str
    bound: float | None = None
    over: str = ""
    ratio: float | None = None
    aim: float | None = None
    note: str = ""

    def __str__(self) -> str:
        text = f"  {self.what}: {self.value:.4g} {self.unit}".rstrip()
        if self.bound is not None:
            text += f", bound {self.bound:.4g}"
            if self.unit in TIMES and self.value < CLOSE * self.bound:
                text += " (which is beaten: this machine was slower when its rates were measured)"
        if self.ratio is not None:
            text += f", {self.ratio:.3f} x {self.over or 'the bound'}"
        if self.aim is not None and self.ratio is not None:
            met = "met" if self.ratio <= self.aim else f"missed by {self.ratio / self.aim - 1:.0%}"
            text += f" (aim {self.aim:g}: {met})"
        return f"{text} [{self.note}]" if self.note else text


class LeftOut(Exception):  # noqa: N818  # no error: a part that cannot be here
    """A part, or the rest of one, that is not measured here, and why."""


@dataclass
class Findings:
    """Rows of each part, and what became of it.

    Attributes:
        about: Device, versions, sizes, for the file.
        until: When nothing more should begin, on ``time.monotonic``'s clock.
        file: Where all is written after each part; None: nowhere.
    """

    about: dict[str, Any]
    until: float
    file: Path | None = None
    parts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    say: Callable[[str], None] = lambda text: print(text, flush=True)

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.until - time.monotonic()

    @property
    def failed(self) -> list[str]:
        """Names of parts that failed."""
        return [part["name"] for part in self.parts if part["status"] == "failed"]

    def add(self, row: Row) -> None:
        """One more figure of the part in hand."""
        self.parts[-1]["rows"].append(asdict(row))
        self.say(str(row))

    def need(self, seconds: float, what: str) -> None:
        """Raise LeftOut unless so many seconds are left."""
        if self.left < seconds:
            left = f"{max(0.0, self.left):.0f} s are left"
            raise LeftOut(f"{what}: about {seconds:.0f} s, and {left}")

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part: whatever happens in it is recorded, and the next one can begin."""
        began = time.monotonic()
        found: dict[str, Any] = {"name": name, "status": "running", "rows": [], "why": ""}
        self.parts.append(found)
        self.say(name)
        try:
            yield
            found["status"] = "done"
        except LeftOut as why:
            found |= {"status": "left out", "why": str(why)}
            self.say(f"  left out: {why}")
        except KeyboardInterrupt:
            found |= {"status": "interrupted", "why": "interrupted"}
            raise
        except Exception as error:
            text = gatekit.one_line(error)
            found |= {"status": "failed", "why": text, "traceback": _trace(error)}
            self.say(f"  FAILED: {text}")
        finally:
            found["seconds"] = round(time.monotonic() - began, 2)
            self.write()

    def write(self) -> None:
        """All of it to the file."""
        if self.file is not None:
            text = json.dumps({**self.about, "parts": self.parts}, indent=1) + "\n"
            gatekit.write_atomic(self.file, text.encode(), "name another file with --json")


def _trace(error: BaseException) -> list[str]:
    import traceback

    return traceback.format_exception(error)[-12:]
