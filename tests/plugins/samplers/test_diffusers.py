"""Parity with diffusers' schedulers, which follow Wan's own code, on a field of known form."""

import pytest
import torch

import gatekit
from gatekit.testing import Mixture

# diffusers 0.42 with numpy 2: its own business.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FIELD = Mixture()


def drive(scheduler, x):
    """Diffusers' loop; the model output is the velocity n - x0."""
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        velocity = (x - FIELD(x, float(sigma))) / float(sigma)
        x = scheduler.step(velocity, t, x, return_dict=False)[0]
    return x


def make(kind, **options):
    import diffusers

    return getattr(diffusers, kind)(
        prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=2, **options
    )


def start():
    return torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shift", [1.0, 5.0, 12.0])
@pytest.mark.parametrize("steps", [4, 20, 40])
@pytest.mark.parametrize(
    ("name", "kind"),
    [("unipc", "UniPCMultistepScheduler"), ("dpmpp_2m", "DPMSolverMultistepScheduler")],
)
def test_equals_diffusers(name, kind, steps, shift):
    scheduler = make(kind, flow_shift=shift)
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.tolist()
    assert sigmas[-1] == 0.0
    ours = gatekit.sample(FIELD, start(), sigmas, sampler=name)
    assert (ours - drive(scheduler, start())).abs().max() < 2e-5


@pytest.mark.parametrize("name", ["unipc", "dpmpp_2m"])
def test_equals_diffusers_over_wans_official_grid(name):
    kinds = {"unipc": "UniPCMultistepScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler"}
    grid = gatekit.registry.registry().get("grid", "shifted_linear")
    sigmas = grid(grid.Params(shift=12.0, start=0.999))(40)
    scheduler = make(kinds[name])
    scheduler.set_timesteps(40)
    scheduler.sigmas = torch.tensor(sigmas)
    ours = gatekit.sample(FIELD, start(), sigmas, sampler=name)
    assert (ours - drive(scheduler, start())).abs().max() < 2e-5


@pytest.mark.parametrize("name", ["unipc", "dpmpp_2m"])
def test_equals_diffusers_over_a_switch_of_experts(name):
    """Wan's code keeps one scheduler over both experts: history is carried."""
    kinds = {"unipc": "UniPCMultistepScheduler", "dpmpp_2m": "DPMSolverMultistepScheduler"}
    low = Mixture(means=(-1.0, 0.5, 1.2))
    scheduler = make(kinds[name], flow_shift=5.0)
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas.tolist()
    x = start()
    for t, sigma in zip(scheduler.timesteps, sigmas, strict=False):
        field = FIELD if sigma >= 0.875 else low
        x = scheduler.step((x - field(x, sigma)) / sigma, t, x, return_dict=False)[0]
    cut = sum(s >= 0.875 for s in sigmas)
    ours = gatekit.sample_phases(
        [
            gatekit.FunctionPhase(FIELD, name, sigmas[: cut + 1], field="high"),
            gatekit.FunctionPhase(low, name, sigmas[cut:], field="low", history="carry"),
        ],
        start(),
    )
    assert (ours - x).abs().max() < 2e-5


def test_order_three_equals_diffusers():
    scheduler = make("UniPCMultistepScheduler", flow_shift=5.0)
    scheduler.register_to_config(solver_order=3)
    scheduler = type(scheduler).from_config(scheduler.config)
    scheduler.set_timesteps(12)
    ours = gatekit.sample(FIELD, start(), scheduler.sigmas.tolist(), sampler="unipc", order=3)
    assert (ours - drive(scheduler, start())).abs().max() < 2e-5
