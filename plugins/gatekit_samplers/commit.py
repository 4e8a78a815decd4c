"""The sampler of the commit phase."""

from __future__ import annotations

from pydantic import Field

from gatekit_samplers.coordinate import Coordinate
from gatekit_samplers.limited import LimitedParams, LimitedUniPC


class CommitParams(LimitedParams):
    """Parameters of ``commit``.

    Attributes:
        coordinate: lam, in which the prediction at sigma 1 has no weight.
        order: The paper's p, at most 2: at the first steps order 3 gives outliers.
    """

    coordinate: Coordinate = "lam"
    order: int = Field(2, ge=1, le=2)


class Commit(LimitedUniPC):
    """UniPC with p = 2 along lam and a limiter, for high noise. Order 3, one evaluation a step.

    Near sigma 1 a guided model answers an error in the state many times as large. A line
    through the prediction at sigma 1, as along s, u or theta, is then too bold at few
    evaluations; along lam that prediction has no weight and the second step is of order 1.

    Measured on the small model (docs/samplers.md), not on Wan weights.

    Source: Zhao et al., arXiv 2302.04867: UniP, UniC and B(h) = e^h - 1; the limiter is this
    project's.
    """

    name = "commit"
    Params = CommitParams
