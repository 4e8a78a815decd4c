"""How the package is found and loaded, and what happens where it is not."""

import importlib.util
import subprocess
import sys
import threading

import pytest
import torch

import gatekit
import gatekit_kdiffusion
from gatekit import FunctionPhase, PluginError
from gatekit.functional import trace_phases
from gatekit.registry import Registry
from gatekit.testing import Gaussian, Mixture
from gatekit_kdiffusion import package as loading
from gatekit_kdiffusion.source import functions, sampling_file

GRID = [1.0, 0.96, 0.9, 0.8, 0.65, 0.5, 0.3, 0.15, 0.0]


def draw(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_registering_imports_neither_torch_nor_the_package(package):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from gatekit.registry import registry\n"
        "assert 'k_diffusion/lms' in registry().samplers\n"
        "loaded = {'torch', 'scipy', 'k_diffusion'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "import torch, gatekit\n"
        "x = torch.zeros(1, 2)\n"
        "gatekit.sample(lambda x, s: x, x, [1.0, 0.5, 0.0], sampler='k_diffusion/lms')\n"
        "assert 'k_diffusion' not in sys.modules\n"
    )
    argv = [sys.executable, "-c", code, str(package)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_the_package_nothing_is_offered_and_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    gatekit_kdiffusion.sampler_classes.cache_clear()
    assert gatekit_kdiffusion.sampler_classes() == []
    lacking = {"k_diffusion/": f"install the package: {loading.INSTALL}"}
    monkeypatch.setattr(gatekit_kdiffusion, "UNAVAILABLE", lacking)
    known = Registry()
    known.register(gatekit_kdiffusion, "kdiffusion")
    with pytest.raises(PluginError, match="unknown sampler 'k_diffusion/lms'; install the package"):
        known.get("sampler", "k_diffusion/lms")
    with pytest.raises(PluginError, match=r"not installed; pip install --no-deps k-diffusion"):
        loading.sampling(sampling_file())


def test_a_missing_dependency_is_named(tmp_path):
    file = tmp_path / "sampling.py"
    file.write_text("import no_such_package_of_ours\n")
    said = r"need the package no_such.*\"gatekit-diffusion\[k-diffusion\]\""
    with pytest.raises(PluginError, match=said):
        loading.sampling(file)


def test_a_function_of_another_version_runs_as_one_that_owns_its_loop(tmp_path):
    """Unknown names are offered too: stepped from within, history kept inside the phase."""
    file = tmp_path / "sampling.py"
    file.write_text(
        "import torch\n\n\n"
        "def sample_new(model, x, sigmas, callback=None, disable=None, strength=1., mode='a', "
        "table={}):\n"
        '    """A new one."""\n'
        "    if mode not in {'a', 'b'}:\n"
        "        raise ValueError\n"
        "    for i in range(len(sigmas) - 1):\n"
        "        d = model(x, sigmas[i] * x.new_ones([len(x)]))\n"
        "        callback({'x': x, 'i': i, 'sigma': sigmas[i], 'denoised': d})\n"
        "        x = x + (x - d) / sigmas[i] * (sigmas[i + 1] - sigmas[i])\n"
        "    return x\n"
    )
    (function,) = functions(file)
    assert {n: (o.default, o.choices) for n, o in function.options.items()} == {
        "strength": (1.0, ()),
        "mode": ("a", ("a", "b")),
    }
    from gatekit_kdiffusion.samplers import make

    cls = make(function)
    assert cls.adaptive and cls.name == "k_diffusion/new"
    x, field = draw(1, 8).double(), Mixture()
    found = trace_phases([FunctionPhase(field, cls(), GRID)], x)
    assert found.sigmas == tuple(GRID)
    assert len(found.records) == found.nfe == 8
    assert torch.allclose(found.x, gatekit.sample(field, x, GRID, sampler="euler"), atol=1e-12)


def waiting():
    return [thread for thread in threading.enumerate() if thread.name == "k_diffusion"]


@pytest.mark.parametrize("name", ["dpm_fast", "dpm_adaptive"])
def test_a_stopped_run_leaves_no_thread(name):
    def stop(state, record, denoised):
        raise gatekit.Cancelled

    cls = gatekit.list_samplers()[f"k_diffusion/{name}"]
    stopped = False
    try:
        gatekit.sample(Mixture(), draw(1, 4), GRID, sampler=cls(), observers=[stop])
    except gatekit.Cancelled:
        stopped = True
    assert stopped
    assert not waiting()


def test_no_progress_bar_starts_a_thread(package):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import threading, torch, gatekit\n"
        "x, grid = torch.ones(1, 2), [1.0, 0.5, 0.2, 0.0]\n"
        "for name in ('heun', 'dpm_fast', 'dpm_adaptive'):\n"
        "    gatekit.sample(lambda x, s: 0.5 * x, x, grid, sampler='k_diffusion/' + name)\n"
        "names = [thread.name for thread in threading.enumerate()]\n"
        "assert names == ['MainThread'], names\n"
    )
    argv = [sys.executable, "-c", code, str(package)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_failing_model_fails_the_run_and_leaves_no_thread():
    def broken(x, sigma):
        if sigma < 0.9:
            raise ZeroDivisionError("of the model")
        return x * 0.5

    with pytest.raises(ZeroDivisionError, match="of the model"):
        gatekit.sample(broken, draw(1, 4), GRID, sampler="k_diffusion/dpm_adaptive")
    assert not waiting()


def test_steps_of_a_loop_are_told_as_they_happen():
    seen = []

    def watched(x, sigma):
        seen.append(sigma)
        return Gaussian()(x, sigma)

    def look(state, record, denoised):
        seen.append("step")

    gatekit.sample(watched, draw(1, 4), GRID, sampler="k_diffusion/dpm_adaptive", observers=[look])
    assert 3 <= seen.index("step") < len(seen) / 2


@pytest.mark.parametrize("name", ["lms", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde"])
def test_history_crosses_a_boundary_like_anybodys(name):
    """Carried it equals one run; reset it does not: the runner's history, not the function's."""
    field, x = Mixture(), draw(2, 6).double()
    ends = {}
    for policy in ("carry", "reset"):
        phases = [
            FunctionPhase(field, f"k_diffusion/{name}", GRID[:5], field="high"),
            FunctionPhase(field, f"k_diffusion/{name}", GRID[4:], field="low", history=policy),
        ]
        ends[policy] = gatekit.sample_phases(phases, x)
    whole = gatekit.sample(field, x, GRID, sampler=f"k_diffusion/{name}")
    assert ends["carry"].equal(whole)
    assert not ends["reset"].equal(whole)


def test_churn_is_shared_among_the_whole_runs_steps():
    """k-diffusion divides s_churn by the sigmas it is given; cut in two, it is still the run's."""
    field, x, asked = Mixture(), draw(1, 6).double(), []

    def watched(x, sigma):
        asked.append(sigma)
        return field(x, sigma)

    gatekit.sample(watched, x, [0.9, 0.5, 0.2], sampler="k_diffusion/euler", s_churn=0.5)
    ratio = (asked[2] / (1 - asked[2])) / (0.5 / 0.5)
    assert ratio == pytest.approx(1 + 0.5 / 2)


def test_churn_keeps_within_its_bounds_on_the_paths_own_sigma():
    asked = []

    def watched(x, sigma):
        asked.append(sigma)
        return Mixture()(x, sigma)

    params = {"s_churn": 3.0, "s_tmin": 0.4, "s_tmax": 0.7}
    gatekit.sample(watched, draw(1, 4), GRID, sampler="k_diffusion/euler", **params)
    churned = [s for s in GRID[:-1] if not any(abs(s - a) < 1e-9 for a in asked)]
    assert churned == [0.65, 0.5]
