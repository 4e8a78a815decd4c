"""The conformance kit: one decorator runs the whole contract on a sampler.

from gatekit.testing import parametrize_with_checks

@parametrize_with_checks(AdamsBashforth2, Heun(HeunParams(rate=2)))
def test_contract(sampler, check):
    check(sampler)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gatekit.sampler import Sampler
from gatekit.testing.checks import CHECKS
from gatekit.testing.fields import Constant, Gaussian, Mixture

__all__ = ["CHECKS", "Check", "Constant", "Gaussian", "Mixture", "parametrize_with_checks"]


class Check:
    """One check, bound to one sampler; called without arguments, or with another sampler."""

    def __init__(self, function: Callable[[Sampler], None], sampler: Sampler) -> None:
        self.function, self.sampler = function, sampler
        self.__name__ = function.__name__

    def __call__(self, sampler: Sampler | type[Sampler] | None = None) -> None:
        """Raise AssertionError if the sampler breaks this part of the contract."""
        self.function(self.sampler if sampler is None else ready(sampler))


def ready(sampler: Sampler | type[Sampler]) -> Sampler:
    """An instance: a class is made with its default parameters."""
    return sampler() if isinstance(sampler, type) else sampler


def parametrize_with_checks(
    *samplers: type[Sampler] | Sampler | Iterable[type[Sampler] | Sampler],
    skip: Sequence[str] = (),
) -> Callable[[Any], Any]:
    """Parametrise a pytest function ``(sampler, check)`` or ``(check)`` with every check.

    Args:
        *samplers: Classes (made with default parameters), instances, or lists of them.
        skip: Names of checks that do not apply, such as ``check_order``; say why beside it.

    Returns:
        A decorator. The function's body is ``check(sampler)``, or ``check()``.
    """
    import pytest

    found: list[Sampler] = []
    for given in samplers:
        one = isinstance(given, (Sampler, type))
        found += [ready(s) for s in ([given] if one else given)]  # type: ignore[list-item, union-attr]
    unknown = set(skip) - {check.__name__ for check in CHECKS}
    if unknown:
        raise ValueError(f"no such checks: {', '.join(sorted(unknown))}")
    pairs = [
        (sampler, Check(check, sampler), f"{label(sampler)}-{check.__name__}")
        for sampler in found
        for check in CHECKS
        if check.__name__ not in skip
    ]

    def decorate(function: Any) -> Any:
        if "sampler" in inspect.signature(function).parameters:
            cases = [pytest.param(sampler, check, id=name) for sampler, check, name in pairs]
            return pytest.mark.parametrize(("sampler", "check"), cases)(function)
        cases = [pytest.param(check, id=name) for _, check, name in pairs]
        return pytest.mark.parametrize("check", cases)(function)

    return decorate


def label(sampler: Sampler) -> str:
    """Name and the parameters that are not defaults."""
    changed = sampler.params.model_dump(exclude_defaults=True)
    return "-".join([sampler.name, *(f"{k}={v}" for k, v in changed.items())])
