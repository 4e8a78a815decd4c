"""Parity with diffusers' schedulers, which follow Wan's own code, on a field of known form."""

import pytest
import torch

import gatekit
from gatekit.testing import Mixture

# diffusers 0.42 with numpy 2: its own business.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
FIELD = Mixture()


def drive(scheduler, x, leave=0):
    """Diffusers' loop without its last steps; the model output is the velocity n - x0."""
    count = len(scheduler.timesteps) - leave
    for t, sigma in zip(scheduler.timesteps[:count], scheduler.sigmas, strict=False):
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


def test_bh1_equals_diffusers():
    """To sigma 0 B(h) = h is infinite, so all steps but the last."""
    scheduler = make("UniPCMultistepScheduler", flow_shift=1.0, solver_type="bh1")
    scheduler.set_timesteps(20)
    # From 0.95: from sigma 1 the weight h/(2 - 2 e^-h) of bh1 amplifies the rounding of float32.
    sigmas = [0.95 * (1 - i / 20) for i in range(21)]
    scheduler.sigmas = torch.tensor(sigmas)
    ours = gatekit.sample(FIELD, start(), sigmas[:-1], sampler="unipc", weights="bh1")
    assert (ours - drive(scheduler, start(), leave=1)).abs().max() < 2e-5


def test_deis_equals_diffusers():
    """Its last step, to sigma 0, has no finite coefficient; all before it agree."""
    scheduler = make("DEISMultistepScheduler", flow_shift=3.0)
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas.tolist()
    ours = gatekit.sample(FIELD, start(), sigmas[:-1], sampler="deis", coordinate="lam")
    assert (ours - drive(scheduler, start(), leave=1)).abs().max() < 5e-5


@pytest.mark.parametrize("steps", [8, 30])
def test_dpmpp_2m_sde_equals_diffusers_given_its_noise(steps):
    scheduler = make(
        "DPMSolverMultistepScheduler", flow_shift=3.0, algorithm_type="sde-dpmsolver++"
    )
    scheduler.set_timesteps(steps)
    sigmas, x, noise = scheduler.sigmas.tolist(), start(), gatekit.NoiseSource(5)
    for i, (t, sigma) in enumerate(zip(scheduler.timesteps, sigmas, strict=False)):
        velocity = (x - FIELD(x, sigma)) / sigma
        drawn = noise.normal(x.shape, step=i)
        x = scheduler.step(velocity, t, x, variance_noise=drawn, return_dict=False)[0]
    ours = gatekit.sample(FIELD, start(), sigmas, sampler="dpmpp_2m_sde", seed=5)
    assert (ours - x).abs().max() < 5e-5
