"""What stands for a GPU's graphs on a CPU, in tests and rehearsals."""

from __future__ import annotations

import torch

from gatekit_wan22.graphs import Work


class Recorder:
    """Stands for a device: what was captured is done again, into the same memory.

    As on a device, nothing is computed by capturing it.
    """

    def __init__(self) -> None:
        self.captured, self.replayed = 0, 0

    def __call__(self, work: Work) -> Work:
        """Count, and return what does the work again."""
        self.captured += 1
        out = torch.full_like(work(), torch.nan)

        def replay() -> torch.Tensor:
            self.replayed += 1
            return out.copy_(work())

        return replay
