"""SEEDS: exponential solvers of the reverse SDE with inner stages."""

from __future__ import annotations

from pydantic import Field, model_validator

from gatekit_samplers.coordinate import NoisyMultistepParams
from gatekit_samplers.res_3s import check_nodes
from gatekit_samplers.stages import ThreeStages, TwoStages


class SEEDS2Params(NoisyMultistepParams):
    """Parameters of ``seeds_2``.

    Attributes:
        coordinate: Axis of the stages; lam is the paper's.
        eta: Strength of the noise; 1 is the paper's.
        c2: Where in the step the second evaluation lies.
    """

    c2: float = Field(0.5, gt=0, le=1)


class SEEDS2(TwoStages):
    """Two exponential stages on the reverse SDE. Two evaluations a step.

    x_2 = (s_2/s) (y/y_2)^eta x + W D + s_2 sqrt(1 - (y/y_2)^(2 eta)) n_1; x' likewise with the line
    through D and D(x_2, s_2), its noise being n_1 carried on plus a fresh n_2. With noise no
    order above 1 is claimed; eta 0 is ``res_2s`` in the same coordinate, of order 2.

    Source: Gonzalez et al., arXiv 2305.14267, SEEDS-2, written in the prediction of x0.
    """

    name, stochastic = "seeds_2", True
    Params = SEEDS2Params


class SEEDS3Params(NoisyMultistepParams):
    """Parameters of ``seeds_3``.

    Attributes:
        coordinate: Axis of the stages; lam is the paper's.
        eta: Strength of the noise; 1 is the paper's.
        c2: Where in the step the second evaluation lies.
        c3: Where the third lies.
    """

    c2: float = Field(1 / 3, gt=0, le=1)
    c3: float = Field(2 / 3, gt=0, le=1)

    @model_validator(mode="after")
    def _solvable(self) -> SEEDS3Params:
        check_nodes(self.c2, self.c3)
        return self


class SEEDS3(ThreeStages):
    """Three exponential stages on the reverse SDE. Three evaluations a step.

    As ``seeds_2`` with one stage more; with c_3 = 2/3 gamma is 0 and the last mean leans on the
    third stage alone, as in DPM-Solver-3. With noise no order above 1 is claimed; eta 0 has
    order 3.

    Source: Gonzalez et al., arXiv 2305.14267, SEEDS-3, written in the prediction of x0.
    """

    name, stochastic = "seeds_3", True
    Params = SEEDS3Params
