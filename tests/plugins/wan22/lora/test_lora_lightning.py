"""The shipped four-step schedules: their grid, their boundary, their files."""

from pathlib import Path

import pytest

import gatekit

ROOT = Path(__file__).parents[4] / "schedules"


@pytest.mark.parametrize(("task", "boundary"), [("t2v", 0.875), ("i2v", 0.9)])
def test_four_steps(task, boundary):
    """u = 1, 3/4, 1/2, 1/4 after shift 5, two steps in each expert, one pass each."""
    plan = gatekit.resolve(gatekit.load_schedule(ROOT / f"wan22_lightning_{task}_4step.yaml"))
    u = [1.0, 0.75, 0.5, 0.25, 0.0]
    assert plan.run_sigmas == pytest.approx([5 * v / (1 + 4 * v) for v in u], abs=1e-12)
    assert plan.schedule.phases[0].until.sigma == boundary
    assert [row.model for row in plan.table()] == ["high", "high", "low", "low"]
    assert plan.passes == plan.nfe == 4
    for expert, variant in plan.variants.items():
        model, lora = (path.name for path in variant.files())
        assert expert in model and f"{expert}_noise" in lora and task in model and task in lora
        assert variant.params.expert == expert and variant.params.loras[0].strength == 1.0
        assert variant.params.timesteps == "exact"
