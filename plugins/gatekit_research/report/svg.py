"""Charts as inline SVG, in the page's own colours: light and dark by the same drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 40
COLOURS = 8
DASHES = ("", "6 3", "2 3")
Points = Sequence[tuple[float, float]]


def colour(index: int) -> str:
    """The page's colour of a series, as CSS."""
    return f"var(--c{index % COLOURS})"


def dash(index: int) -> str:
    """Beyond the colours there are, lines are dashed."""
    return DASHES[index // COLOURS % len(DASHES)]


def number(value: float) -> str:
    """Short: three significant digits."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e")


@dataclass(frozen=True)
class Axis:
    """One direction of a chart.

    Attributes:
        label: What it shows.
        low: Its least value.
        high: Its greatest.
        log: Whether it is logarithmic.
    """

    label: str
    low: float
    high: float
    log: bool = False

    @classmethod
    def over(
        cls, label: str, values: Iterable[float], *, log: bool = False, zero: bool = False
    ) -> Axis:
        """An axis with room for all values; ``zero``: from 0 on."""
        known = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [0.1, 1.0]
        low, high = min(known), max(known)
        if log:
            wide = max(high / low, 1.5) ** 0.08
            return cls(label, low / wide, high * wide, True)
        low = min(low, 0.0) if zero else low
        wide = high - low if high - low > 1e-9 * abs(high) else 0.0  # less is rounding
        room = (wide or abs(high) or 1.0) * 0.08
        return cls(label, low if zero and low == 0 else low - room, high + room)

    def share(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        if self.log:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """A few round values."""
        if self.log:
            return self._log_ticks()
        rough = (self.high - self.low) / 4.5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(k * unit for k in (1, 2, 5, 10) if k * unit >= rough)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [k * step for k in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        tens = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for parts in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            found = [k * 10.0**e for e in tens for k in parts]
            found = [v for v in found if self.low <= v <= self.high]
            if len(found) >= 3:
                break
        every = math.ceil(len(found) / 6)
        return found[::every]


@dataclass
class Chart:
    """A drawing area with two axes; things are drawn in the order they are added."""

    x: Axis
    y: Axis
    about: str
    height: int = HEIGHT
    _parts: list[str] = field(default_factory=list[str])

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        across, down = WIDTH - LEFT - RIGHT, self.height - TOP - BOTTOM
        return LEFT + across * self.x.share(x), TOP + down * (1.0 - self.y.share(y))

    def line(self, points: Points, series: int, *, thin: bool = False, name: str = "") -> None:
        """A line through points."""
        path = " ".join("{:.1f},{:.1f}".format(*self.at(*p)) for p in points)
        width = 1.0 if thin else 2.0
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour(series)}" '
            f'stroke-width="{width}" stroke-dasharray="{dash(series)}">{_title(name)}</polyline>'
        )

    def dot(self, x: float, y: float, series: int, name: str = "", size: float = 4.5) -> None:
        """A point; beyond the colours there are, a square."""
        px, py = self.at(x, y)
        if dash(series):
            shape = f'<rect x="{px - size:.1f}" y="{py - size:.1f}" width="{2 * size}" '
            shape += f'height="{2 * size}" fill="{colour(series)}">{_title(name)}</rect>'
        else:
            shape = f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{size}" fill="{colour(series)}">'
            shape += f"{_title(name)}</circle>"
        self._parts.append(shape)

    def bar(self, x0: float, y0: float, x1: float, y1: float, series: int) -> None:
        """A thin line between two points: an interval."""
        (ax, ay), (bx, by) = self.at(x0, y0), self.at(x1, y1)
        self._parts.append(
            f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}" '
            f'stroke="{colour(series)}" stroke-width="1.5" opacity="0.7"/>'
        )

    def front(self, points: Points) -> None:
        """A dashed line through what nothing beats."""
        path = " ".join("{:.1f},{:.1f}".format(*self.at(*p)) for p in points)
        self._parts.append(f'<polyline points="{path}" class="front"/>')

    def across(self, x: float, label: str) -> None:
        """A vertical line that means something."""
        px, _ = self.at(x, self.y.low)
        base = self.height - BOTTOM
        self._parts.append(
            f'<line x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{base}" class="mark"/>'
            f'<text x="{px + 4:.1f}" y="{TOP + 10}" class="note">{escape(label)}</text>'
        )

    def word(self, y: float, text: str) -> None:
        """A label at the left end of a row."""
        _, py = self.at(self.x.low, y)
        self._parts.append(
            f'<text x="{LEFT + 4}" y="{py - 7:.1f}" class="note">{escape(text)}</text>'
        )

    def svg(self, *, y_ticks: bool = True) -> str:
        """The whole chart."""
        base = self.height - BOTTOM
        box = f'viewBox="0 0 {WIDTH} {self.height}"'
        parts = [f'<svg {box} role="img" aria-label="{escape(self.about)}">']
        for tick in self.x.ticks():
            px, _ = self.at(tick, self.y.low)
            parts.append(f'<line x1="{px:.1f}" y1="{TOP}" x2="{px:.1f}" y2="{base}" class="grid"/>')
            parts.append(
                f'<text x="{px:.1f}" y="{base + 15}" class="tick mid">{number(tick)}</text>'
            )
        for tick in self.y.ticks() if y_ticks else ():
            _, py = self.at(self.x.low, tick)
            parts.append(
                f'<line x1="{LEFT}" y1="{py:.1f}" x2="{WIDTH - RIGHT}" y2="{py:.1f}" class="grid"/>'
                f'<text x="{LEFT - 6}" y="{py + 4:.1f}" class="tick end">{number(tick)}</text>'
            )
        parts.append(f'<path d="M{LEFT} {TOP}V{base}H{WIDTH - RIGHT}" class="axis"/>')
        parts += self._parts
        middle, low = (LEFT + WIDTH - RIGHT) / 2, self.height - 6
        label = escape(self.x.label)
        parts.append(f'<text x="{middle}" y="{low}" class="label mid">{label}</text>')
        if self.y.label:
            turned = (TOP + base) / 2
            parts.append(
                f'<text x="13" y="{turned}" class="label mid" transform="rotate(-90 13 {turned})">'
                f"{escape(self.y.label)}</text>"
            )
        return "".join([*parts, "</svg>"])


def _title(name: str) -> str:
    return f"<title>{escape(name)}</title>" if name else ""
