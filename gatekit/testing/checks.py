"""What every sampler must satisfy. Each check takes a Sampler and raises AssertionError."""

from __future__ import annotations

from collections.abc import Callable

from gatekit.sampler import Sampler
from gatekit.testing.accuracy import (
    check_constant,
    check_distribution,
    check_finite,
    check_order,
    check_reset,
    check_spread,
)
from gatekit.testing.common import draw
from gatekit.testing.mechanics import (
    check_batch,
    check_boundary,
    check_declaration,
    check_interval,
    check_nfe,
    check_parameters,
    check_pure,
    check_random,
    check_resume,
    check_source,
    check_split,
    check_types,
)

__all__ = ["CHECKS", "draw"]

CHECKS: tuple[Callable[[Sampler], None], ...] = (
    check_declaration,
    check_source,
    check_parameters,
    check_order,
    check_reset,
    check_constant,
    check_spread,
    check_distribution,
    check_finite,
    check_nfe,
    check_interval,
    check_pure,
    check_split,
    check_resume,
    check_batch,
    check_random,
    check_types,
    check_boundary,
)
