"""Linear multistep, as k-diffusion's users know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import Evaluation, StepContext
from gatekit_samplers.adams import AdamsBashforth

if TYPE_CHECKING:
    from torch import Tensor


class LMS(AdamsBashforth):
    """Adams-Bashforth over up to four velocities, started as it comes. One evaluation a step.

    x' = x + ds sum_j b_j v_j, always with every velocity there is. ``ipndm`` is the same but for
    three things that its order needs: it redoes the first step, uses fewer velocities towards
    the end, and where steps grow abruptly. Order 2: the first step is Euler's, and its error
    stays. Equal to ComfyUI's ``lms`` (``tests/parity/comfyui.py``).

    Source: Crowson, k-diffusion ``sample_lms``; Hairer, Norsett, Wanner, "Solving Ordinary
    Differential Equations I", section III.5.
    """

    name, order, history, points = "lms", 2, 3, 4

    def choose(
        self, c: StepContext, denoised: Tensor
    ) -> tuple[tuple[Evaluation, ...], tuple[float, ...]]:
        """All there are."""
        known = (Evaluation(c.sigma, c.x, denoised, ""), *c.past)
        return known, self.weights(c.path, c.sigma, c.sigma_next, known)

    def corrected(self, c: StepContext, denoised: Tensor) -> Tensor:
        """As it came."""
        return c.x
