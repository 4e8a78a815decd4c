"""The same plan gives the same bits, and what torch is told for that is told back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gatekit
from gatekit import Execution, GatekitError, Inputs, ScheduleError, load_schedule, resolve
from gatekit.determinism import FIXED, WORKSPACE, deterministic

ROOT = Path(gatekit.__file__).parent.parent


def told():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        os.environ.get(WORKSPACE),
    )


WITHIN = (True, False, True, False, False, FIXED[0])


def run(project, *overrides, **given):
    plan = resolve(load_schedule(project / "fake.yaml", list(overrides)))
    return gatekit.run(plan, Inputs(prompt="a ball", seed=3), **given)


def test_torch_is_told_and_told_back(monkeypatch):
    monkeypatch.delenv(WORKSPACE, raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = told()
    with deterministic(False):
        assert told() == before
    with deterministic(True):
        assert told() == WITHIN
        with deterministic(True):
            assert told() == WITHIN
        assert told() == WITHIN
    assert told() == before
    with pytest.raises(KeyError), deterministic(True):
        raise KeyError
    assert told() == before


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv(WORKSPACE, FIXED[1])
    with deterministic(True):
        assert os.environ[WORKSPACE] == FIXED[1]
    monkeypatch.setenv(WORKSPACE, ":0:0")
    with deterministic(True):
        assert os.environ[WORKSPACE] == FIXED[0]
    assert os.environ[WORKSPACE] == ":0:0"


def test_an_operation_that_cannot_repeat_is_one_clear_error():
    index, values = torch.tensor([0, 0]), torch.tensor([1.0, 2.0])
    with pytest.raises(GatekitError, match=r"put_.*--set deterministic=false"), deterministic(True):
        torch.zeros(2).put_(index, values)
    with pytest.raises(GatekitError, match=f"{WORKSPACE}=:4096:8 before"), deterministic(True):
        raise RuntimeError(f"you must set the environment variable {WORKSPACE}=:4096:8 or ...")
    with pytest.raises(RuntimeError, match="of the model"), deterministic(True):
        raise RuntimeError("of the model")


def test_a_run_is_within_all_of_it(project, fake, monkeypatch):
    seen, before = [], told()
    for name in ("encode", "decode"):
        real = getattr(fake.FakeFamily, name)

        def noting(self, *given, real=real):
            seen.append(told())
            return real(self, *given)

        monkeypatch.setattr(fake.FakeFamily, name, noting)
    watch = [lambda state, record, denoised: seen.append(told())]
    run(project, "deterministic=true", observers=watch)
    late = run(project, "deterministic=true", observers=watch, decode=False)
    assert late.video is not None
    assert len(seen) == 2 * (1 + 8 + 1)
    assert set(seen) == {WITHIN}
    assert told() == before
    run(project, observers=watch)
    assert seen[-1] == before


def test_the_same_plan_gives_the_same_bits(project):
    once = run(project, out=project / "a.mp4")
    again = run(project, out=project / "b.mp4")
    strict = run(project, "deterministic=true", out=project / "c.safetensors")
    assert torch.equal(once.latent, again.latent)
    assert torch.equal(once.latent, strict.latent)
    assert (project / "a.mp4").read_bytes() == (project / "b.mp4").read_bytes()


SMALL = """
import hashlib, sys, torch, gatekit
def made(schedule, *overrides):
    torch.set_num_threads(1)
    size = ["sigmas.steps=4", "video.width=64", "video.height=64", "video.frames=5", "device=cpu"]
    plan = gatekit.resolve(gatekit.load_schedule(schedule, [*size, *overrides]))
    result = gatekit.run(plan, gatekit.Inputs(prompt="a red circle moves right slowly", seed=1))
    values = result.latent.numpy().tobytes() + result.video.numpy().tobytes()
    return hashlib.sha256(values).hexdigest()
if __name__ == "__main__":
    print(made(*sys.argv[1:]))
"""


def test_processes_agree_on_the_small_model():
    schedule = str(ROOT / "schedules" / "quickstart.yaml")
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", SMALL, schedule, "deterministic=true"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "2"},
    )
    assert done.returncode == 0, done.stderr
    here = {"__name__": "small"}
    exec(SMALL, here)
    assert done.stdout.split()[-1] == here["made"](schedule)


def test_the_plan_says_so_and_tells_the_family(project, fake, monkeypatch):
    asked = []

    def executions(self, asks, video, device):
        asked.extend(ask.deterministic for ask in asks)
        return [Execution() for _ in asks]

    monkeypatch.setattr(fake.FakeFamily, "executions", executions)
    plan = resolve(load_schedule(project / "fake.yaml", ["deterministic=true"]))
    assert asked == [True, True]
    assert "deterministic: the same bits" in plan.explain()
    assert plan.resolved()["deterministic"] is True
    assert "deterministic:" not in resolve(load_schedule(project / "fake.yaml")).explain()
    with pytest.raises(ScheduleError, match="deterministic"):
        load_schedule(project / "fake.yaml", ["deterministic=7"])
