"""The sampler of the structure phase."""

from __future__ import annotations

from pydantic import Field

from gatekit_samplers.coordinate import Coordinate
from gatekit_samplers.limited import LimitedParams, LimitedUniPC


class StructureParams(LimitedParams):
    """Parameters of ``structure``.

    Attributes:
        coordinate: theta = atan2(alpha, s): even at both ends of the path.
        order: The paper's p, at most 2.
    """

    coordinate: Coordinate = "theta"
    order: int = Field(2, ge=1, le=2)


class Structure(LimitedUniPC):
    """UniPC with p = 2 along theta and a limiter, for the middle of the path.

    Order 3, one evaluation a step.

    Measured on the small model (docs/samplers.md), not on Wan weights.

    Source: Zhao et al., arXiv 2302.04867, with weights exact in c = theta (``gatekit.multistep``);
    the limiter is this project's.
    """

    name = "structure"
    Params = StructureParams
