"""What k-diffusion's functions do not say of themselves: order, evaluations, memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """Of a function whose steps depend on the last few evaluations only.

    Attributes:
        order: Of convergence without noise, as measured by ``gatekit.testing``.
        nfe: Evaluations a step.
        history: Past evaluations that its step uses.
    """

    order: int
    nfe: int = 1
    history: int = 0


STEPWISE = {
    "euler": Facts(1),
    "euler_ancestral": Facts(1),
    "heun": Facts(2, nfe=2),
    "dpm_2": Facts(2, nfe=2),
    "dpm_2_ancestral": Facts(2, nfe=2),
    "dpmpp_2s_ancestral": Facts(2, nfe=2),
    "dpmpp_sde": Facts(2, nfe=2),
    "lms": Facts(2, history=3),  # the first step is Euler's, and its error stays
    "dpmpp_2m": Facts(2, history=1),
    "dpmpp_2m_sde": Facts(2, history=1),
    "dpmpp_3m_sde": Facts(2, history=2),
}
"""Functions that can be run one interval at a time. Any other owns its loop."""

CHOICES = {("dpm_adaptive", "order"): (2, 3)}
"""Limits that a function checks too deep for its own text to show."""
