"""Every hook is documented and does what the page says; a new one without either fails here."""

import inspect
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import gatekit
from gatekit import Cancelled, GuidanceParams, Inputs, PluginError, SamplerParams, hookimpl, hooks
from gatekit.cli import call
from gatekit.kinds import KINDS
from gatekit.registry import Registry, registry

PAGE = (Path(__file__).parent.parent / "docs" / "publishing-a-plugin.md").read_text()
HOOKS = {
    name: function
    for name, function in vars(hooks).items()
    if name.startswith("gatekit_") and inspect.isfunction(function)
}


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_is_documented_and_tested(name):
    assert HOOKS[name].__doc__
    arguments = ", ".join(inspect.signature(HOOKS[name]).parameters)
    signature = rf"`{name}\({arguments}\)`" if arguments else f"`{name}`"
    assert re.search(signature, PAGE), f"{name}({arguments}) is not in publishing-a-plugin.md"
    assert f"test_{name.removeprefix('gatekit_')}" in globals(), f"{name} has no test in this file"


def test_the_page_names_no_hook_that_is_not_there():
    named = set(re.findall(r"\bgatekit_[a-z_]+", PAGE)) - {"gatekit_pece"}
    assert named <= set(HOOKS), named - set(HOOKS)


@pytest.fixture
def plugin():
    """Registers objects as plugins, for one test."""
    names = []

    def register(made):
        names.append(f"hooks-{len(names)}")
        registry().register(made, names[-1])
        return made

    yield register
    for name in names:
        registry().remove(name)


def offering(hook, *classes):
    """A plugin that offers classes through one hook."""
    return type("Offering", (), {hook: hookimpl(lambda self: list(classes), specname=hook)})()


def run(project, *overrides, **inputs):
    plan = gatekit.resolve(gatekit.load_schedule(project / "fake.yaml", list(overrides)))
    return gatekit.run(plan, Inputs(prompt="a ball", **inputs))


class HalfParams(SamplerParams):
    share: float = 0.5


class Half(gatekit.Sampler):
    """Euler."""

    name, Params = "half", HalfParams

    def step(self, c):
        denoised = c.denoise(c.x, c.sigma)
        return gatekit.StepResult(c.transfer(c.x, denoised, c.sigma_next), denoised)


def test_register_samplers(project, plugin):
    plugin(offering("gatekit_register_samplers", Half))
    result = run(project, "phases.high.sampler.use=half", "phases.high.sampler.share=0.25")
    assert result.trajectory[0].sampler == "half"
    assert gatekit.list_samplers()["half"] is Half


def test_register_phases(project, plugin):
    class EveryOther(gatekit.Phase):
        """Takes two intervals in one step."""

        name = "every-other"

        def next(self, state):
            below = [s for s in self.sigmas if s < state.sigma]
            return gatekit.Step(below[min(1, len(below) - 1)]) if below else None

        def intervals(self):
            kept = (*self.sigmas[:-1:2], self.sigmas[-1])
            return tuple(pairwise(kept))

    plugin(offering("gatekit_register_phases", EveryOther))
    assert len(run(project, "phases.low.strategy.use=every-other").trajectory) < 8


def test_register_history(project, plugin):
    class Noting(gatekit.Carry):
        """Carry, and say so."""

        name = "noting"

        def enter(self, state, denoise):
            return replace(state, note="noted")

    plugin(offering("gatekit_register_history", Noting))
    notes = [r.note for r in run(project, "phases.low.history=noting").trajectory]
    assert notes.count("noted") == 1


def test_register_guidance(project, plugin):
    class Doubled(gatekit.Guidance):
        """Twice the conditional velocity."""

        name, Params = "doubled", GuidanceParams

        def velocity(self, predict, x, sigma, memory):
            (v,) = predict(x, sigma, ["positive"])
            return 2 * v, memory

    plugin(offering("gatekit_register_guidance", Doubled))
    result = run(project, "phases.high.guidance.use=doubled")
    assert [r.passes for r in result.trajectory if r.phase == "high"] == [1, 1, 1]
    assert not torch.equal(result.latent, run(project).latent)


def test_register_sigmas(project, plugin):
    class Even(gatekit.SigmaGrid):
        """Even in sigma."""

        name = "even"

        def points(self, start, end, steps):
            return [start + (end - start) * i / steps for i in range(steps + 1)]

    plugin(offering("gatekit_register_sigmas", Even))
    result = run(project, "sigmas.use=even", "phases.high.until=0.5")
    assert result.trajectory.sigmas == pytest.approx([1 - i / 8 for i in range(9)])


def test_register_families(project, fake, plugin):
    class Renamed(fake.FakeFamily):
        """The fake family under another name."""

        name = "renamed"

    plugin(offering("gatekit_register_families", Renamed))
    assert torch.equal(run(project, "family.use=renamed").latent, run(project).latent)


def test_register_variants(project, fake, plugin):
    class Halved(fake.Number):
        """Half the number."""

        name = "halved"

        def load(self, device, compute):
            super().load(device, compute)
            self._gain /= 2

    plugin(offering("gatekit_register_variants", Halved))
    changed = run(project, "variants.fine.use=halved").latent
    assert not torch.equal(changed, run(project).latent)


def test_register_caches(project, plugin):
    class Lazy(gatekit.StepCache):
        """Runs one block of two, ever."""

        name = "lazy"

        def through(self, blocks, hidden, sigma, memory):
            return gatekit.Cached(blocks[0](hidden), {"at": sigma}, skipped=True)

    plugin(offering("gatekit_register_caches", Lazy))
    result = run(project, "phases.high.cache=lazy")
    assert [r.skipped for r in result.trajectory] == [2, 2, 2, 0, 0, 0, 0, 0]
    assert not torch.equal(result.latent, run(project).latent)


def test_register_metrics():
    class Brightness(gatekit.Metric):
        """Mean of all pixels."""

        name, higher_is_better, perfect, needs = "brightness", True, 1.0, frozenset({"video"})

        def measure(self, sample):
            return float(sample.video.mean())

    known = Registry()
    known.register(offering("gatekit_register_metrics", Brightness), "measures")
    assert known.get("metric", "brightness") is Brightness
    assert Brightness().measure(gatekit.Sample(video=torch.full((1, 2, 2, 3), 0.5))) == 0.5
    with pytest.raises(PluginError, match="derived from Metric"):
        known.register(offering("gatekit_register_metrics", object), "no-metric")
    for lacking in ("higher_is_better", "perfect", "needs"):
        names = {"higher_is_better", "perfect", "needs"} - {lacking}
        said = {n: getattr(Brightness, n) for n in names} | {"name": f"no {lacking}"}
        other = type("Other", (gatekit.Metric,), said | {"measure": Brightness.measure})
        with pytest.raises(PluginError, match=f"Other has no class attribute '{lacking}'; add it"):
            known.register(offering("gatekit_register_metrics", other), f"no {lacking}")
        assert said["name"] not in known.metrics


def test_every_kind_of_class_is_asked_for():
    assert {about.hook for about in KINDS.values()} == {h for h in HOOKS if "_register_" in h} - {
        "gatekit_register_commands",
        "gatekit_register_checks",
    }


def test_register_commands(plugin, capsys):
    class Greeter:
        @hookimpl
        def gatekit_register_commands(self, app):
            @app.command("greet")
            def greet():
                print("good day")

    plugin(Greeter())
    assert call(["greet"]) == 0
    assert capsys.readouterr().out == "good day\n"


def test_register_checks(plugin, capsys):
    class Careful:
        @hookimpl
        def gatekit_register_checks(self):
            found = gatekit.Finding("missing", "no spare tyre", "buy one")
            return [gatekit.Check("tyre", "long ways", lambda: found, needed=True)]

    plugin(Careful())
    assert call(["doctor"]) == 1
    assert "tyre: buy one" in capsys.readouterr().out


def test_cross_boundary(project, plugin):
    class Zero:
        @hookimpl
        def gatekit_cross_boundary(self, state, leaving, entering):
            assert (leaving, entering) == ("high", "low")
            return replace(state, x=state.x * 0.0)

    class Silent:
        asked = 0

        @hookimpl(tryfirst=True)
        def gatekit_cross_boundary(self):
            Silent.asked += 1

    plain = run(project).latent
    plugin(Zero())
    plugin(Silent())
    assert not torch.equal(run(project).latent, plain)
    assert Silent.asked == 1


class Diary:
    """Writes down every event of a run."""

    def __init__(self):
        self.events = []

    @hookimpl
    def gatekit_run_start(self, plan, state):
        self.events.append(("run_start", plan.schedule.name, state.sigma))

    @hookimpl
    def gatekit_phase_start(self, phase, state):
        self.events.append(("phase_start", phase, state.sigma))

    @hookimpl
    def gatekit_step_end(self, state, record, denoised):
        assert denoised.shape == state.x.shape
        self.events.append(("step_end", record.phase, state.sigma))

    @hookimpl
    def gatekit_phase_end(self, phase, state):
        self.events.append(("phase_end", phase, state.sigma))

    @hookimpl
    def gatekit_run_end(self, plan, state):
        self.events.append(("run_end", plan.schedule.name, state.sigma))


@pytest.fixture
def diary(project, plugin):
    """Events of one run, and the run's sigmas."""
    made = plugin(Diary())
    return made.events, run(project).trajectory.sigmas


def test_run_start(diary):
    events, sigmas = diary
    assert events[0] == ("run_start", "fake", sigmas[0])


def test_phase_start(diary):
    events, sigmas = diary
    starts = [event for event in events if event[0] == "phase_start"]
    assert starts == [("phase_start", "high", sigmas[0]), ("phase_start", "low", sigmas[3])]
    assert events.index(starts[1]) == events.index(("phase_end", "high", sigmas[3])) + 1


def test_step_end(diary, project, plugin):
    events, sigmas = diary
    assert [e[2] for e in events if e[0] == "step_end"] == list(sigmas[1:])

    class Stop:
        @hookimpl
        def gatekit_step_end(self, record):
            raise Cancelled

    plugin(Stop())
    with pytest.raises(Cancelled):
        run(project)


def test_phase_end(diary):
    events, sigmas = diary
    ends = [event for event in events if event[0] == "phase_end"]
    assert ends == [("phase_end", "high", sigmas[3]), ("phase_end", "low", 0.0)]


def test_run_end(diary):
    events, _ = diary
    assert events[-1] == ("run_end", "fake", 0.0)


def test_a_misspelt_argument_is_told():
    class Wrong:
        @hookimpl
        def gatekit_step_end(self, recrd):
            pass

    with pytest.raises(PluginError, match="recrd"):
        Registry().register(Wrong(), "wrong")
