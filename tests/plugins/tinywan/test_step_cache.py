"""Step caches in runs of the small model: memory through the state, reset with the model."""

import copy
import json
from pathlib import Path

import pytest
import torch

import gatekit
from gatekit.cli import call

ROOT = Path(__file__).parents[3]
SMALL = ["video.width=32", "video.height=32", "video.frames=5", "sigmas.steps=12", "device=cpu"]
CACHE = '{"use": "first_block", "threshold": 0.3}'
PROFILE = [[1.0, 1.0], [0.85, 0.95], [0.2, 0.6]]
MAG = json.dumps({"use": "mag", "threshold": 0.1, "max_skips": 1, "profile": PROFILE})
PHASES = ("commit", "structure", "polish")
INPUTS = gatekit.Inputs(prompt="a large red circle", seed=3)


def plan(*changes):
    schedule = gatekit.load_schedule(ROOT / "schedules" / "quickstart.yaml", [*SMALL, *changes])
    return gatekit.resolve(schedule, require_files=True)


def everywhere(cache):
    return [f"phases.{name}.cache={cache}" for name in PHASES]


def run(*changes, **more):
    return gatekit.run(plan(*changes), INPUTS, decode=False, **more)


def off(made, exact):
    return float((made.latent - exact.latent).norm() / exact.latent.norm())


@pytest.fixture(scope="module")
def exact():
    return run()


@pytest.mark.parametrize("cache", [CACHE, MAG], ids=["first_block", "mag"])
def test_a_cache_skips_and_stays_near(cache, exact):
    made = run(f"phases.polish.cache={cache}")
    skipped = sum(r.skipped for r in made.trajectory)
    assert 0 < skipped < sum(r.passes for r in made.trajectory)
    careless = run('phases.polish.cache={"use": "first_block", "threshold": 100}')
    assert 0 < off(made, exact) < 0.4 < off(careless, exact)
    assert sum(r.skipped for r in exact.trajectory) == 0


def test_a_threshold_of_zero_changes_no_bit(exact):
    made = run(*everywhere('{"use": "first_block", "threshold": 0}'))
    assert torch.equal(made.latent, exact.latent)


def test_the_first_step_after_a_change_of_model_is_whole():
    made = run(*everywhere('{"use": "first_block", "threshold": 100}'))
    first = {}
    for record in made.trajectory:
        first.setdefault(record.phase, record.skipped)
    assert set(first.values()) == {0}
    assert all(r.skipped == 2 for r in made.trajectory if r.sigma < 0.8)  # both passes of guidance


@pytest.mark.parametrize("cache", [CACHE, MAG], ids=["first_block", "mag"])
def test_a_phase_cut_in_two_gives_the_same_bits(cache):
    whole = run(*everywhere(cache))
    original = plan(*everywhere(cache)).schedule.to_dict()
    late = {**copy.deepcopy(original["phases"][-1]), "name": "late"}
    original["phases"][-1]["until"] = {"sigma": 0.75}
    original["phases"].append(late)
    schedule = gatekit.Schedule.from_dict(original)
    cut = gatekit.run(gatekit.resolve(schedule, require_files=True), INPUTS, decode=False)
    assert torch.equal(cut.latent, whole.latent)
    assert [r.skipped for r in cut.trajectory] == [r.skipped for r in whole.trajectory]
    assert sum(r.skipped for r in cut.trajectory if r.phase == "late") > 0


@pytest.mark.parametrize("cache", [CACHE, MAG], ids=["first_block", "mag"])
def test_a_resumed_run_gives_the_same_bits(cache, tmp_path):
    whole = run(*everywhere(cache))
    skips = [r.skipped for r in whole.trajectory]
    stop = next(i for i, n in enumerate(skips) if n) - 1  # the next step reads the memory

    def interrupt(state, record, denoised):
        if record.step == stop:
            raise gatekit.Cancelled

    with pytest.raises(gatekit.Cancelled):
        run(*everywhere(cache), run_dir=tmp_path / "run", observers=[interrupt])
    resumed = run(*everywhere(cache), resume=tmp_path / "run")
    assert torch.equal(resumed.latent, whole.latent)
    assert [r.skipped for r in resumed.trajectory] == skips


def test_the_field_is_another_with_a_cache_and_the_old_one_without(exact):
    plain, cached = plan(), plan(*everywhere(CACHE))
    off = plan(*everywhere("none"))
    assert [p.field for p in off.phases] == [p.field for p in plain.phases]
    assert not {p.field for p in cached.phases} & {p.field for p in plain.phases}
    assert len({p.field for p in plan("phases.polish.cache=" + CACHE).phases}) == 3


def test_the_plan_tells_the_cache():
    planned = plan("phases.polish.cache=first_block")
    assert "step cache first_block(threshold=0.05)" in planned.explain()
    told = [p["cache"] for p in planned.to_json()["phases"]]
    assert told[:2] == [None, None]
    assert told[2]["use"] == "first_block"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param("cache=firstblock", "did you mean 'first_block'?", id="name"),
        pytest.param("cache.threshold=0.1", "add 'use', such as use: first_block", id="no use"),
        pytest.param("cache={use: first_block, start: 5}", "cache.start: no noise", id="start"),
        pytest.param("cache={use: first_block, end: 0.9}", "cache.end: the phase begins", id="end"),
        pytest.param("cache={use: first_block, treshold: 1}", "did you mean 'threshold'", id="key"),
        pytest.param("cache={use: first_block, threshold: -1}", "greater than", id="value"),
        pytest.param("cache=mag", "add 'profile'", id="no profile"),
    ],
)
def test_what_is_wrong_is_told_at_plan_time(change, message):
    with pytest.raises(gatekit.UserError, match=r"phases\[2\]\.cache") as caught:
        plan(f"phases.polish.{change}")
    assert message in str(caught.value)


def test_the_command_prints_error_and_skips(capsys):
    args = ["step-cache", str(ROOT / "schedules" / "quickstart.yaml"), "-p", "a red circle"]
    args += [arg for text in SMALL for arg in ("--set", text)]
    assert call([*args, "--threshold", "0", "--threshold", "0.3", "--steps", "6", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in told["rows"]]
    assert names == ["uncached", "threshold 0", "threshold 0.3", "uncached, 6 steps"]
    none, zero, some, fewer = told["rows"]
    assert none["error"] == zero["error"] == 0.0 < min(some["error"], fewer["error"])
    assert sum(zero["skipped"].values()) == 0 < sum(some["skipped"].values())
    assert (none["passes"], fewer["passes"]) == (24, 12)
    for points in told["profiles"].values():
        assert points[0][1] == 1.0
        assert len(points) >= 1
    # What was measured is a profile that 'mag' takes.
    planned = plan(
        f"phases.polish.cache={json.dumps({'use': 'mag', 'profile': told['profiles']['polish']})}"
    )
    assert planned.phases[-1].cache is not None


def test_a_phase_of_one_step_has_no_profile(capsys):
    args = ["step-cache", str(ROOT / "schedules" / "quickstart.yaml"), "-p", "a", "--profile"]
    args += [arg for text in [*SMALL, "sigmas.steps=4"] for arg in ("--set", text)]
    assert call(args) == 0
    told = capsys.readouterr().out
    assert "structure: evaluated at one sigma; a profile for 'mag' takes 2\n" in told
    assert "polish: {use: mag, profile: [[" in told
    assert "as the schedule says" not in told  # it says nothing of caches


def test_without_a_cache_there_must_be_something_to_measure(capsys):
    args = ["step-cache", str(ROOT / "schedules" / "quickstart.yaml"), "-p", "a"]
    assert call(args) == 2
    assert "no phase has a cache; give --threshold 0.1" in capsys.readouterr().err


def test_thresholds_go_to_the_phases_that_have_a_cache():
    from gatekit_basics.cache_error import variations

    some = plan("phases.polish.cache=first_block").schedule
    (changes,) = variations(some, [0.2], []).values()
    assert changes == ['phases.polish.cache={"use": "first_block", "threshold": 0.2}']
    (changes,) = variations(plan().schedule, [0.2], []).values()
    assert [change.split(".cache=")[0] for change in changes] == [f"phases.{n}" for n in PHASES]
    assert list(variations(some, [], [6])) == ["as the schedule says", "uncached, 6 steps"]
    assert list(variations(plan().schedule, [], [6])) == ["uncached, 6 steps"]


def test_a_streamed_model_skips_the_same_and_gives_the_same_bits():
    planned = plan(*everywhere(CACHE), "memory.vram=14MiB")
    assert "5 streamed through 2 slots" in planned.explain()
    whole, streamed = run(*everywhere(CACHE)), gatekit.run(planned, INPUTS, decode=False)
    assert torch.equal(streamed.latent, whole.latent)
    assert [r.skipped for r in streamed.trajectory] == [r.skipped for r in whole.trajectory]
