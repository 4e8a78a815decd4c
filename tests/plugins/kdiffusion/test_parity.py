"""The functions give what they give anywhere else, and what gatekit's own samplers give."""

import importlib.util
import sys
import types
from functools import cache

import pytest
import torch

import gatekit
import gatekit_kdiffusion
from gatekit.testing import Gaussian, Mixture
from gatekit_kdiffusion.source import sampling_file

GRID = [1.0, 0.97, 0.9, 0.8, 0.62, 0.5, 0.31, 0.15, 0.04]
DETERMINISTIC = ["euler", "heun", "dpm_2", "lms", "dpmpp_2m"]


def draw(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@cache
def plain_module(file):
    """k-diffusion's module with the true torch, apart from how the plugin loads it."""
    package = types.ModuleType("plain_k_diffusion")
    package.__path__ = []
    package.utils = types.ModuleType("plain_k_diffusion.utils")
    package.utils.append_dims = lambda x, n: x.reshape(x.shape + (1,) * (n - x.ndim))
    sys.modules |= {"plain_k_diffusion": package, "plain_k_diffusion.utils": package.utils}
    spec = importlib.util.spec_from_file_location("plain_k_diffusion.sampling", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def theirs(name, denoise, x, sigmas, *args, **options):
    """The function itself, called as its package is called, in float64."""
    function = getattr(plain_module(sampling_file()), f"sample_{name}")
    torch.set_default_dtype(torch.float64)
    try:
        grid = [torch.tensor(sigmas)] if sigmas is not None else args
        with torch.random.fork_rng():
            return function(
                lambda x, sigma: denoise(x, float(sigma[0])), x, *grid, disable=True, **options
            )
    finally:
        torch.set_default_dtype(torch.float32)


def close(a, b, limit=1e-12):
    gap = float((a - b).abs().max())
    assert gap <= limit, f"differs by {gap:.3g}"


@pytest.mark.parametrize("end", [[], [0.0]])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_run_is_the_functions_own_run(name, end):
    denoise, x = Mixture(), draw(2, 6)
    ours = gatekit.sample(denoise, x, GRID + end, sampler=f"k_diffusion/{name}")
    close(ours, theirs(name, denoise, x, GRID + end))


def test_dpm_fast_is_the_functions_own_run():
    denoise, x = Mixture(), draw(2, 6)
    for steps in (4, 5, 6, 8):
        ours = gatekit.sample(denoise, x, GRID[: steps + 1], sampler="k_diffusion/dpm_fast")
        own = theirs("dpm_fast", denoise, x, None, GRID[steps], GRID[0], steps)
        close(ours, own)


@pytest.mark.parametrize("params", [{}, {"order": 2, "rtol": 0.01}, {"pcoeff": 0.2, "dcoeff": 0.1}])
def test_dpm_adaptive_is_the_functions_own_run(params):
    denoise, x = Mixture(), draw(2, 6)
    ours = gatekit.sample(
        denoise, x, [1.0, 0.5, 0.03], sampler="k_diffusion/dpm_adaptive", **params
    )
    close(ours, theirs("dpm_adaptive", denoise, x, None, 0.03, 1.0, **params), 1e-10)


@pytest.mark.parametrize(
    ("name", "native", "params"),
    [
        ("euler", "euler", {}),
        ("heun", "heun", {}),
        ("dpmpp_2m", "dpmpp_2m", {"coordinate": "u"}),
    ],
)
@pytest.mark.parametrize("path", ["flow", "ve"])
def test_agrees_with_the_native_sampler(name, native, params, path):
    scale = 1.0 if path == "flow" else 10.0
    sigmas, x = [scale * s for s in [*GRID, 0.0]], scale * draw(2, 6)
    denoise = Mixture(
        path=gatekit.RectifiedFlow() if path == "flow" else gatekit.VarianceExploding()
    )
    ours = gatekit.sample(denoise, x, sigmas, sampler=f"k_diffusion/{name}", path=path)
    close(ours, gatekit.sample(denoise, x, sigmas, sampler=native, path=path, **params), 1e-11)


def test_dpmpp_2m_is_not_the_native_one_in_lam():
    denoise, x = Mixture(), draw(2, 6)
    ours = gatekit.sample(denoise, x, [*GRID, 0.0], sampler="k_diffusion/dpmpp_2m")
    lam = gatekit.sample(denoise, x, [*GRID, 0.0], sampler="dpmpp_2m", coordinate="lam")
    assert float((ours - lam).abs().max()) > 1e-4


@pytest.mark.parametrize(
    "name", ["dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_2s_ancestral", "dpmpp_sde"]
)
def test_noise_on_ve_is_the_functions_own(name):
    """On a VE path they run as they are: the same noise gives the same run."""
    denoise, x = Mixture(path=gatekit.VarianceExploding()), 10 * draw(1, 6)
    sigmas, given = [10 * s for s in [*GRID, 0.0]], []

    class Recording(gatekit.NoiseSource):
        def like(self, *args, **options):
            given.append(super().like(*args, **options))
            return given[-1]

        def brownian(self, *args, **options):
            given.append(super().brownian(*args, **options))
            return given[-1]

    from gatekit import functional

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functional, "NoiseSource", Recording)
        ours = gatekit.sample(denoise, x, sigmas, sampler=f"k_diffusion/{name}", path="ve")
    replay = iter(given)
    own = theirs(name, denoise, x, sigmas, noise_sampler=lambda a, b: next(replay))
    close(ours, own, 1e-10)
    assert next(replay, None) is None


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde"])
def test_the_lift_is_exact(name):
    """With the same noise, a flow gives what its lift gives, from the same state."""
    field, x = Gaussian(), draw(1, 400)
    grid, given = GRID[1:], []
    cls = gatekit.list_samplers()[f"k_diffusion/{name}"]

    def step_noise(i):
        return draw(1, 400, seed=100 + i)

    from gatekit_kdiffusion import interval

    def fixed(call, start=None, to=None):
        if 0 < call.asked <= len(call.past):
            return 0.0
        given.append(1)
        return step_noise(len(given))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interval.Call, "draw", fixed)
        ours = gatekit.sample(field, x, grid, sampler=cls())
    ve = [s / (1 - s) for s in grid]
    count = iter(range(1, 99))
    own = theirs(
        name,
        lambda y, v: field(y / (1 + v), v / (1 + v)),
        x / (1 - grid[0]),
        ve,
        noise_sampler=lambda a, b: step_noise(next(count)),
    )
    close(ours, own * (1 - grid[-1]), 1e-12)


def test_every_function_is_there():
    names = {cls.name for cls in gatekit_kdiffusion.sampler_classes()}
    text = sampling_file().read_text()
    expected = {
        line[11:].split("(")[0] for line in text.splitlines() if line.startswith("def sample_")
    }
    assert names == {f"k_diffusion/{name}" for name in expected}
    assert len(names) == 13
    assert names <= set(gatekit.list_samplers())
