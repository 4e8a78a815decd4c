"""DPM-Solver++ with noise, single step."""

from __future__ import annotations

from gatekit_samplers.seeds import SEEDS2Params
from gatekit_samplers.stages import Stages, TwoStages


class DPMppSDE(TwoStages):
    """DPM-Solver++(2S) on the reverse SDE. Two evaluations a step; order 2 at eta 0.

    As ``seeds_2``, but the mean is D + (D(x_2, s_2) - D)/(2 c_2): the second prediction alone at
    c_2 = 1/2. k-diffusion splits its steps by the rule ``lift``, here it is ``sde``: the same at
    eta 0 and 1.

    Source: Lu et al., arXiv 2211.01095, algorithm 1; Crowson, k-diffusion ``sample_dpmpp_sde``.
    """

    name, stochastic = "dpmpp_sde", True
    Params = SEEDS2Params

    def weight(self, stages: Stages) -> float:
        """1/(2 c_2)."""
        return 0.5 / self.params.c2
