"""Video to video: where the grid is cut, what the first state is, and what a video gives."""

from __future__ import annotations

import pytest
import torch

import gatekit
from gatekit import (
    Cancelled,
    InputError,
    Inputs,
    NoiseSource,
    ScheduleError,
    load_schedule,
    resolve,
)
from gatekit.cli import call
from gatekit.path import as_path

av = pytest.importorskip("av")


def plan_of(project, *overrides):
    return resolve(load_schedule(project / "fake.yaml", list(overrides)))


def brightness(frames=5, size=32):
    """Tiles of 8 pixels, other ones in each frame: what the fake family's latent can hold."""
    tiles = torch.rand(frames, size // 8, size // 8, generator=torch.Generator().manual_seed(1))
    tiles = 0.2 + 0.6 * tiles
    tiles = tiles.repeat_interleave(8, 1).repeat_interleave(8, 2)
    return tiles[..., None].repeat(1, 1, 1, 3)


class Seen:
    """Notes the states of a run."""

    def __init__(self, stop=None):
        self.states, self.stop = [], stop

    def __call__(self, state, record, denoised):
        self.states.append(state)
        if len(self.states) == self.stop:
            raise Cancelled


WHOLE = [5 * u / (1 + 4 * u) for u in (1 - i / 8 for i in range(9))]


@pytest.mark.parametrize(
    ("start", "index"),
    [
        ("0.7", 5),
        ("0.8", 4),  # the grid has 0.8333 and 0.75
        ("1.0", 0),
        ("0", 7),
        ("{timestep: 893}", 3),
        ("{step: 2}", 2),
        ("{step: 7}", 7),
        ("{fraction: 0.5}", 4),
        ("{log_snr: 0.0}", 7),
    ],
)
def test_the_grid_is_cut_at_the_nearest_sigma(project, start, index):
    plan = plan_of(project, f"start={start}")
    assert plan.run_sigmas == pytest.approx(WHOLE[index:])
    assert plan.start is not None and plan.start.sigma == plan.run_sigmas[0]
    assert [row.step for row in plan.table()] == list(range(len(plan.run_sigmas) - 1))


@pytest.mark.parametrize("own", [False, True])
def test_phases_wholly_above_are_skipped_and_said(project, own):
    steps = ["sigmas.steps=null", "phases.high.steps=3", "phases.low.steps=5"] if own else []
    plan = plan_of(project, *steps, "start=0.5")
    whole = plan_of(project, *steps)
    assert [p.name for p in plan.phases] == ["low"]
    assert plan.run_sigmas == whole.run_sigmas[-len(plan.run_sigmas) :]
    text = plan.explain()
    assert "starts from a video, noised to sigma" in text and "skips high" in text
    assert plan.to_json()["start"]["skipped"] == ("high",)
    both = plan_of(project, *steps, "start={step: 1}")
    assert [len(p.sigmas) - 1 for p in both.phases] == [2, 5]
    assert both.start.skipped == ()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("{step: 8}", "leaves out at least one and leaves one"),
        ("{fraction: 1.0}", "leaves out at least one"),
        ("{fraction: 0.0}", "leaves out at least one"),
        ("1.5", "a boundary is a sigma from 0 to 1"),
        ("half", "a boundary is a sigma, or a form of it"),
        ("{step: 2, sigma: 0.5}", "exactly one of"),
    ],
)
def test_impossible_starts(project, start, message):
    with pytest.raises(ScheduleError, match=message) as caught:
        plan_of(project, f"start={start}")
    assert "start" in caught.value.where


def test_a_skipped_phase_is_still_checked(project):
    with pytest.raises(gatekit.PluginError, match="unknown sampler"):
        plan_of(project, "start=0.3", "phases.high.sampler=eulr")


@pytest.fixture
def exploding(fake):
    """The fake family on a variance-exploding path."""
    from gatekit.registry import registry

    class Exploding(fake.FakeFamily):
        name = "exploding"
        path = "ve"

    class Plugin:
        @gatekit.hookimpl
        def gatekit_register_families(self):
            return [Exploding]

    registry().register(Plugin(), "exploding")
    yield
    registry().remove("exploding")


@pytest.mark.usefixtures("exploding")
@pytest.mark.parametrize("family", ["fake", "exploding"])
def test_the_first_state_is_the_noised_video(project, family):
    """And what follows is what the core makes of that state."""
    grid = "sigmas={use: exponential, steps: 6, sigma_min: 0.05, sigma_max: 0.95}"
    plan = plan_of(project, f"family={family}", grid, "start=0.6", "phases.low.sampler=euler")
    video, path = brightness(), as_path(plan.family.path)
    seen = Seen()
    result = gatekit.run(plan, Inputs(prompt="x", seed=3, video=video), observers=[seen])
    sigma = plan.run_sigmas[0]
    x0 = plan.family.encode_video(video, plan.video, "cpu")
    noise = NoiseSource(3).normal(tuple(x0.shape), step=0, purpose="start")
    x = (1 - sigma if family == "fake" else 1.0) * x0 + sigma * noise

    def denoise(x, sigma):
        return x - sigma * (x - 0.8 * x.tanh() - 1 / 50) / max(sigma, 1e-3)

    again = gatekit.sample(denoise, x, plan.run_sigmas, sampler="euler", seed=3, path=path)
    assert torch.allclose(result.latent, again[0], atol=1e-6)
    assert [s.step for s in seen.states] == list(range(1, len(plan.run_sigmas)))


def test_a_start_near_0_gives_the_video_back(project):
    """As far as the autoencoder can: what decoding the encoded video gives."""
    grid = "sigmas={use: explicit, values: [1.0, 0.5, 0.00001, 0.0]}"
    plan = plan_of(project, grid, "sigmas.steps=null", "start=0.00001", "phases.high.until=0.9")
    video = brightness()
    result = gatekit.run(plan, Inputs(prompt="", video=video))
    expected = plan.family.decode(
        plan.family.encode_video(video, plan.video, "cpu")[0], plan.video, "cpu"
    )
    assert torch.allclose(result.video[0], video[0], atol=4e-3)
    assert torch.allclose(result.video, expected, atol=4e-3)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde"])
def test_cutting_a_phase_and_resuming_change_no_bit(project, tmp_path, sampler):
    changes = ["start=0.95", f"phases.low.sampler={sampler}", "phases.high.variant=fine"]
    changes += ["phases.high.guidance=none", f"phases.high.sampler={sampler}"]
    inputs = Inputs(prompt="x", seed=5, video=brightness())
    latents = [
        gatekit.run(plan_of(project, *changes, f"phases.high.until={until}"), inputs).latent
        for until in (0.9, 0.6)
    ]
    assert torch.equal(*latents)
    plan = plan_of(project, *changes)
    with pytest.raises(Cancelled):
        gatekit.run(plan, inputs, run_dir=tmp_path / "r", observers=[Seen(stop=2)])
    rest = gatekit.run(plan, inputs, resume=tmp_path / "r")
    assert torch.equal(rest.latent, latents[0])
    other = Inputs(prompt="x", seed=5, video=brightness().flip(0))
    with pytest.raises(Cancelled):
        gatekit.run(plan, inputs, run_dir=tmp_path / "s", observers=[Seen(stop=2)])
    with pytest.raises(InputError, match="the run to resume had another"):
        gatekit.run(plan, other, resume=tmp_path / "s")


def test_a_resumed_run_encodes_no_video(project, tmp_path, fake):
    plan, inputs = plan_of(project, "start=0.95"), Inputs(prompt="x", video=brightness())
    with pytest.raises(Cancelled):
        gatekit.run(plan, inputs, run_dir=tmp_path / "r", observers=[Seen(stop=2)])
    fake.LOG.clear()
    gatekit.run(plan, inputs, resume=tmp_path / "r")
    assert "encode video" not in fake.LOG


def test_start_and_video_belong_together(project, capsys, monkeypatch, fake):
    monkeypatch.chdir(project)
    assert call(["run", "fake.yaml", "-p", "x", "-o", "v.mp4"]) == 0
    capsys.readouterr()
    fake.LOG.clear()
    for argv, message in (
        (["--video", "v.mp4"], "--video: a video to start from, but nothing says how far"),
        (["--start", "1.5"], "gatekit: --start 1.5: start: a boundary is a sigma from 0 to 1"),
        (
            ["--start", "700"],
            "--start 700: start: a boundary is a sigma from 0 to 1 (got 700.0); a",
        ),
        (["--start", "0.7"], "start: sigma 0.7: the schedule starts in the midst of the path"),
        (["--start", "0.7", "--video", "w.mp4"], "w.mp4: no such video"),
        (["--start", "0.7", "--video", "fake.yaml"], "fake.yaml: no readable video"),
        (
            ["--start", "0.7", "--video", "v.mp4", "--set", "video.frames=9"],
            "v.mp4: this video lasts for 5 frames at 16 a second, the run has 9",
        ),
    ):
        assert call(["run", "fake.yaml", "-p", "x", "-o", "o.mp4", *argv]) == 2
        assert message in capsys.readouterr().err
    assert fake.LOG == []


def test_a_result_from_a_video_is_made_again(project, capsys, monkeypatch):
    monkeypatch.chdir(project)
    assert call(["run", "fake.yaml", "-p", "x", "-o", "v.mp4"]) == 0
    argv = ["run", "fake.yaml", "-p", "y", "--video", "v.mp4", "--start", "{step: 4}"]
    assert call([*argv, "-o", "o.mp4"]) == 0
    assert call(["run", "o.mp4", "-o", "again.mp4"]) == 0
    assert (project / "again.mp4").read_bytes() == (project / "o.mp4").read_bytes()
    assert str(project).encode() not in (project / "o.mp4").read_bytes()
    (project / "v.mp4").unlink()
    assert call(["run", "o.mp4", "-o", "again.mp4"]) == 2
    assert "--video: the video of the earlier run is gone or has changed" in capsys.readouterr().err
