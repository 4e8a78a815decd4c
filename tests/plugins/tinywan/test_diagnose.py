"""From true clips down: the plan is cut where a run would stand, and errors are counted right."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

import gatekit
from gatekit_tinywan import diagnose
from gatekit_tinywan.batch import Batch, embed
from gatekit_tinywan.world import HELD_OUT_SEED, judge, render, sample_scenes
from gatekit_tinywan.world.judge import compare
from gatekit_tinywan.world.judge_measure import measure

SCHEDULE = Path(__file__).parents[3] / "schedules" / "tinywan_fp16.yaml"


@pytest.fixture(scope="module")
def plan():
    return gatekit.resolve(gatekit.load_schedule(SCHEDULE), device="cpu")


def test_from_the_first_sigma_it_is_the_plan(plan):
    assert diagnose.plan_from(plan, 1.0).phases == plan.phases


@pytest.mark.parametrize(
    ("start", "names"),
    [(0.96, ["high", "low"]), (0.875, ["high", "low"]), (0.87, ["low"]), (0.3, ["low"])],
)
def test_the_expert_is_the_one_of_the_start(plan, start, names):
    cut = diagnose.plan_from(plan, start)
    assert [p.name for p in cut.phases] == names
    below = [s for p in plan.phases if p.name in names for s in p.sigmas if s < start]
    assert [s for p in cut.phases for s in p.sigmas] == [start, *below]


@pytest.mark.parametrize("start", [0.0, 1.5])
def test_a_start_beyond_the_grid(start, capsys):
    assert diagnose.main([str(SCHEDULE), "--starts", str(start), "--clips", "1"]) == 2
    assert "give levels above 0 and up to 1" in capsys.readouterr().err


def test_counts_of_what_is_wrong():
    scenes = sample_scenes(HELD_OUT_SEED, range(4), split="held_out")
    video = render(scenes)
    reading = measure(video, scenes.codes.colour)
    none = diagnose.wrong(compare(reading, scenes.codes), scenes, reading.shape)
    assert all(v.startswith("0/") for v in none["wrong_shapes"].values())
    assert sum(int(v.split("/")[1]) for v in none["wrong_shapes"].values()) == 8
    assert sum(int(v.split("/")[1]) for v in none["wrong_marks"].values()) == 8
    assert none["of_wrong_shapes_another"] == "0/0"

    # Asked for the next shape, every one is another; what is not read is none.
    codes = scenes.codes
    asked = sample_scenes(HELD_OUT_SEED, range(4), split="held_out")
    asked.codes.shape.copy_((codes.shape + 1) % 4)
    all_wrong = diagnose.wrong(judge(video, asked), asked, reading.shape)
    assert all_wrong["of_wrong_shapes_another"] == "8/8"
    unread = diagnose.wrong(judge(video, asked), asked, torch.full_like(reading.shape, -1))
    assert unread["of_wrong_shapes_another"] == "0/8"


def test_a_low_start_shows_the_true_clip(plan):
    (line,) = diagnose.diagnose(plan, [0.1], 1, device="cpu", batch=1)
    assert line["steps"] == 1 and line["colour"] == 1.0 and line["relation"] == 1.0


def test_from_noise_it_is_a_run(plan):
    scenes = sample_scenes(HELD_OUT_SEED, range(1), split="held_out")
    prompts = embed(plan, scenes.captions(), [0], "cpu")
    run, cut = Batch(plan, prompts, "cpu"), Batch(diagnose.plan_from(plan, 1.0), prompts, "cpu")
    with torch.no_grad():
        assert torch.equal(run.sample(), cut.sample())
