"""Every sampler by its name in a schedule: the plan counts what the run does."""

import pytest

import gatekit
from gatekit_samplers import SAMPLERS


@pytest.mark.parametrize("cls", SAMPLERS, ids=lambda cls: cls.name)
def test_the_plan_counts_what_the_run_does(project, cls):
    overrides = [f"phases.{phase}.sampler={cls.name}" for phase in ("high", "low")]
    schedule = gatekit.load_schedule(project / "fake.yaml", overrides)
    plan = gatekit.resolve(schedule)
    run = gatekit.run(plan, gatekit.Inputs(prompt="a ball", seed=3))
    assert bool(run.latent.isfinite().all())
    assert plan.exact is not cls.adaptive
    if not cls.adaptive:
        assert [(r.nfe, r.passes) for r in run.trajectory] == [
            (row.nfe, row.passes) for row in plan.table()
        ]


@pytest.mark.parametrize("guidance", ["cfg", "cfg_zero_star", "apg"])
def test_guidance_in_a_range_costs_what_the_plan_says(project, guidance):
    overrides = [f"phases.high.guidance.use={guidance}", "phases.high.guidance.start=0.97"]
    plan = gatekit.resolve(gatekit.load_schedule(project / "fake.yaml", overrides))
    run = gatekit.run(plan, gatekit.Inputs(prompt="a ball", negative_prompt="a cube"))
    assert [r.passes for r in run.trajectory] == [row.passes for row in plan.table()]
    assert [r.passes for r in run.trajectory][:3] == [1, 1, 2]  # 1, 0.972, 0.938
