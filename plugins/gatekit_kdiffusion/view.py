"""View: a state of the path as k-diffusion wants to see it, directly or lifted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gatekit import Path

if TYPE_CHECKING:
    from torch import Tensor


class View:
    """Directly (x, s, D), or lifted to variance exploding: x/alpha, s/alpha, D.

    dx/ds = (x - D)/s holds on both, so functions without noise run directly. Those that add
    noise add it for alpha = 1 and are right only when lifted.

    Args:
        path: The run's.
        lifted: Which of the two.
        marks: Sigmas that must come back exactly.
    """

    def __init__(self, path: Path, lifted: bool, *marks: float) -> None:
        self.path, self.lifted = path, lifted
        self.marks = {self.level(sigma): sigma for sigma in marks if self.regular(sigma)}

    def level(self, sigma: float) -> float:
        """The sigma that k-diffusion sees; infinite where there is no signal to lift."""
        return self.path.ve(sigma) if self.lifted else sigma

    def regular(self, sigma: float) -> bool:
        """Whether a state at ``sigma`` can be shown at all."""
        return math.isfinite(self.level(sigma))

    def sigma(self, level: float) -> float:
        """The path's sigma of what k-diffusion calls ``level``."""
        for known, sigma in self.marks.items():
            if abs(known - level) <= 1e-9 * known:
                return sigma
        return self.path.from_ve(level) if self.lifted else level

    def enter(self, x: Tensor, sigma: float) -> Tensor:
        """The state as k-diffusion sees it."""
        return x / self.path.alpha(sigma) if self.lifted else x

    def leave(self, x: Tensor, sigma: float) -> Tensor:
        """The path's state again."""
        return x * self.path.alpha(sigma) if self.lifted else x
