"""x/alpha at sigma/alpha: what is defined by the signal-to-noise ratio does not see the path."""

import pytest
import torch

import gatekit
from gatekit.testing import Mixture

FIELD = Mixture()
X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIGMAS = [0.97, 0.9, 0.75, 0.6, 0.4, 0.15]


def on_flow(name, params):
    return gatekit.sample(FIELD, X, SIGMAS, sampler=name, seed=4, **params)


def lifted(name, params):
    """The same state and noise, on the variance-exploding path; brought back at the end."""
    x = gatekit.sample(
        lambda x, ve: FIELD(x / (1 + ve), ve / (1 + ve)),
        X / (1 - SIGMAS[0]),
        [s / (1 - s) for s in SIGMAS],
        sampler=name,
        seed=4,
        path="ve",
        **params,
    )
    return x * (1 - SIGMAS[-1])


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("euler", {}),
        ("euler_ancestral", {"eta": 0.7}),
        ("euler_ancestral", {"rule": "sde", "eta": 0.7}),
        ("dpmpp_2m", {}),
        ("dpmpp_3m", {"coordinate": "ve"}),
        ("dpmpp_2m_sde", {}),
        ("dpmpp_3m_sde", {"eta": 0.4}),
        ("dpmpp_sde", {}),
        ("res_2s", {"coordinate": "lam"}),
        ("res_3s", {"coordinate": "ve"}),
        ("seeds_2", {}),
        ("seeds_3", {"eta": 0.7}),
        ("unipc", {}),
        ("unipc", {"order": 3}),
        ("sa_solver", {}),
        ("er_sde", {}),
        ("deis", {"order": 3}),
        ("lcm", {}),
    ],
)
def test_the_lift_changes_nothing(name, params):
    assert torch.allclose(on_flow(name, params), lifted(name, params), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("heun", {}),
        ("ab2", {}),
        ("dpmpp_2m", {"coordinate": "u"}),
        ("unipc", {"coordinate": "s"}),
        ("euler_ancestral", {"rule": "linear"}),
    ],
)
def test_what_runs_along_sigma_does_see_the_path(name, params):
    """The same name gives another answer, run directly on a flow: both converge."""
    assert not torch.allclose(on_flow(name, params), lifted(name, params), rtol=0, atol=1e-4)
