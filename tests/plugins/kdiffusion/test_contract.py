"""The whole contract, for every function, with its defaults and with noise."""

import pytest

from gatekit import InputError, list_samplers
from gatekit.functional import make
from gatekit.testing import CHECKS

STEPWISE = [
    *("euler", "heun", "dpm_2", "lms", "dpmpp_2m"),
    *("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral"),
    *("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"),
]
LOOPING = ["dpm_fast", "dpm_adaptive"]

CASES = [
    *((name, {}) for name in STEPWISE + LOOPING),
    ("dpmpp_3m_sde", {"eta": 0.0}),
    *((name, {"s_churn": 4.0}) for name in ("euler", "dpm_2")),
    *((name, {"eta": 0.7}) for name in LOOPING),
    ("lms", {"order": 2}),
    ("dpmpp_2m_sde", {"solver_type": "heun"}),
]
# Churn goes up before it evaluates, so D at the step's start is of no use to it.
CHURN_EVALUATES_ABOVE = {"check_nfe", "check_interval"}


def label(case):
    return "-".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])


@pytest.mark.parametrize(
    ("case", "check"),
    [
        pytest.param(case, check, id=f"{label(case)}-{check.__name__}")
        for case in CASES
        for check in CHECKS
        if not ("s_churn" in case[1] and check.__name__ in CHURN_EVALUATES_ABOVE)
    ],
)
def test_contract(case, check):
    name, params = case
    sampler = make("sampler", f"k_diffusion/{name}", params, "here")
    check(sampler)


@pytest.mark.parametrize("name", STEPWISE + LOOPING)
def test_what_is_declared_without_an_instance(name):
    cls = list_samplers()[f"k_diffusion/{name}"]
    one = cls()
    for word in ("order", "history", "stochastic", "adaptive", "nfe_per_step"):
        assert getattr(one, word) == getattr(cls, word), word
    assert f"sample_{name}" in cls.__doc__


@pytest.mark.parametrize(
    ("name", "params", "told"),
    [
        ("dpmpp_2m_sde", {"solver_type": "huen"}, "'heun' or 'midpoint'"),
        ("dpm_adaptive", {"order": 4}, "2 or 3"),
        ("euler", {"s_churn": -1.0}, "greater than or equal to 0"),
        ("euler", {"noise_sampler": 1}, "takes: s_churn, s_tmin, s_tmax, s_noise"),
        ("lms", {"order": 0}, "greater than or equal to 1"),
    ],
)
def test_parameters_are_checked_before_anything_runs(name, params, told):
    with pytest.raises(InputError, match=told):
        make("sampler", f"k_diffusion/{name}", params, "here")
