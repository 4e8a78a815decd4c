"""The whole contract of a gatekit sampler, and what is this one's own."""

import gatekit
import torch
from gatekit.testing import Gaussian, parametrize_with_checks

from gatekit_pece import PECE, PECEParams


@parametrize_with_checks(PECE, PECE(PECEParams(corrections=2)))
def test_contract(sampler, check):
    """Order, exactness, cuts, resumes, batches, dtypes, boundaries, ..."""
    check(sampler)


def test_it_is_found_by_name():
    """Installed, any schedule can say ``sampler: {use: pece}``."""
    assert gatekit.list_samplers()["pece"] is PECE


def test_it_beats_heun_at_the_same_cost():
    """On a target whose flow has a closed form, with two evaluations a step for both."""
    field, x = Gaussian(), torch.linspace(-2, 2, 9, dtype=torch.float64)[None]
    sigmas = [0.9 - 0.7 * i / 20 for i in range(20)] + [0.2]
    truth = field.flow(x, 0.9, 0.2)
    errors = {
        name: float((gatekit.sample(field, x, sigmas, sampler=name) - truth).abs().max())
        for name in ("heun", "pece")
    }
    assert errors["pece"] < errors["heun"] / 3, errors
