"""SDE-DPM-Solver++(3M)."""

from __future__ import annotations

from gatekit import SamplerParams
from gatekit_samplers.coordinate import NoisyMultistepParams
from gatekit_samplers.dpmpp_3m import DPMpp3M


class DPMpp3MSDE(DPMpp3M):
    """DPM-Solver++(3M) on the reverse SDE. One evaluation a step; eta 0 is ``dpmpp_3m``.

    x' = (s'/s) e^(-eta h) x + sum_j W_j D_j + s' sqrt(1 - e^(-2 eta h)) n: the parabola under
    the density e^(eta lam). Order 3 at eta 0.

    Source: Crowson, k-diffusion ``sample_dpmpp_3m_sde``, with the whole integral of the second
    difference (see ``dpmpp_3m``).
    """

    name, stochastic = "dpmpp_3m_sde", True
    Params = NoisyMultistepParams

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.eta = self.params.eta
        self.stochastic = self.eta > 0.0
