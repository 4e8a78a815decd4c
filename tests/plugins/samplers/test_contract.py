"""Every sampler against the whole contract, with its defaults and with what changes its formula."""

import pytest

from gatekit.testing import CHECKS, parametrize_with_checks
from gatekit_samplers import SAMPLERS

MADE = {cls.name: cls for cls in SAMPLERS}


def make(name, **params):
    return MADE[name](MADE[name].Params(**params))


@parametrize_with_checks([cls for cls in SAMPLERS if cls.name != "lcm"])
def test_contract(sampler, check):
    check(sampler)


# D of an ordinary model is a mean, and LCM wants a consistency function: test_stochastic has one.
@parametrize_with_checks(MADE["lcm"], skip=["check_distribution"])
def test_lcm(sampler, check):
    check(sampler)


@parametrize_with_checks(
    make("dpmpp_2m", coordinate="u"),
    make("dpmpp_2m", coordinate="theta"),
    make("dpmpp_3m", coordinate="s"),
    make("res_3m", coordinate="theta"),
    make("ipndm", order=2),
    make("deis", order=3, coordinate="theta"),
    make("res_3s", c2=0.4, c3=0.7),
    make("res_2s", c2=1.0, coordinate="theta"),
    make("unipc", coordinate="ve"),
    make("unipc", coordinate="u", weights="bh2"),
    make("unipc", weights="bh1"),
    make("unipc", order=3),
    make("unipc", order=3, weights="bh1"),
    make("unipc", order=1),
    make("unipc", corrector=False),
    make("euler_ancestral", rule="linear"),
    make("euler_ancestral", eta=0.5, rule="sde"),
    make("dpmpp_2m_sde", eta=0.0),
    make("dpmpp_3m_sde", eta=0.5, coordinate="u"),
    make("dpmpp_sde", eta=0.0),
    make("sa_solver", tau=0.0),
    make("sa_solver", order=2, coordinate="theta", sigma_low=0.2, sigma_high=0.95),
    make("er_sde", scale="ode", coordinate="theta"),
    make("er_sde", scale="sde"),
    make("seeds_2", eta=0.0),
    make("seeds_3", eta=0.0),
)
def test_variants(sampler, check):
    check(sampler)


def test_every_check_ran():
    assert len(CHECKS) >= 12 and len(MADE) == len(SAMPLERS)


@pytest.mark.parametrize("cls", SAMPLERS, ids=lambda cls: cls.name)
def test_docstrings_cite_their_source(cls):
    assert cls.__doc__ and "Source: " in cls.__doc__ and "valuation" in cls.__doc__
    if cls.Params.model_fields:
        assert cls.Params.__doc__ and all(
            f"{name}:" in cls.Params.__doc__ or name == "coordinate"
            for name in cls.Params.__annotations__
        )
