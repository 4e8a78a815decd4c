"""SDE-DPM-Solver++(2M)."""

from __future__ import annotations

from gatekit import SamplerParams
from gatekit_samplers.coordinate import NoisyMultistepParams
from gatekit_samplers.dpmpp_2m import DPMpp2M


class DPMpp2MSDE(DPMpp2M):
    """DPM-Solver++(2M) on the reverse SDE. One evaluation a step; eta 0 is ``dpmpp_2m``.

    x' = (s'/s) e^(-eta h) x + alpha' (1 - e^(-(1 + eta) h)) D* + s' sqrt(1 - e^(-2 eta h)) n,
    with h = lam(s') - lam(s) and the D* of ``dpmpp_2m``. Order 2 at eta 0.

    Source: Lu et al., arXiv 2211.01095, SDE-DPM-Solver++(2M) (eta 1); Crowson, k-diffusion
    ``sample_dpmpp_2m_sde`` (midpoint) for other eta.
    """

    name, stochastic = "dpmpp_2m_sde", True
    Params = NoisyMultistepParams

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.eta = self.params.eta
        self.stochastic = self.eta > 0.0
