"""Times: of one call, and of several that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Call = Callable[[], object]
FEWEST, MOST, BUDGET = 2, 15, 8.0  # rounds, and the seconds that all of them should take


@dataclass(frozen=True)
class Times:
    """Seconds of calls that took turns, by name, round by round."""

    rounds: Mapping[str, list[float]]

    def of(self, name: str) -> float:
        """The median."""
        return median(self.rounds[name])

    def ratio(self, name: str, to: str) -> float:
        """The median of the ratios of each round."""
        pairs = zip(self.rounds[name], self.rounds[to], strict=True)
        return median(a / b for a, b in pairs)


class Clock:
    """Measures on one device; on a GPU by events, so that waiting for the host counts too."""

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, device.startswith("cuda")

    def wait(self) -> None:
        """Until the device has done all it was asked for."""
        if self.cuda:
            import torch

            torch.cuda.synchronize(self.device)

    def once(self, call: Call) -> float:
        """Seconds of one call, from an idle device until its work is done."""
        self.wait()
        began = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - began

    def turns(self, calls: Mapping[str, Call], budget: float = BUDGET, warm: bool = False) -> Times:
        """All calls in turn, as often as the budget allows; each once before, unless ``warm``.

        On a GPU each is called twice in its turn and the second call is timed, as in a run a pass
        follows one of the same model: after another's, memory is first shared out anew, which
        took half a second where the card was nearly full.
        """
        if not warm and not self.cuda:
            for call in calls.values():
                self.once(call)
        first = {name: [self._second(call)] for name, call in calls.items()}
        total = sum(times[0] for times in first.values()) * (2 if self.cuda else 1)
        more = min(MOST, max(FEWEST, int(budget / max(total, 1e-6)))) - 1
        for _ in range(more):
            for name, call in calls.items():
                first[name].append(self._second(call))
        return Times(first)

    def _second(self, call: Call) -> float:
        if self.cuda:
            self.once(call)
        return self.once(call)
