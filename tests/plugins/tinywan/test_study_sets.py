"""Sets of cells: plans, evaluations, and the schedules they stand for."""

from pathlib import Path

import pytest

import gatekit
from gatekit_tinywan.study import flow
from gatekit_tinywan.study.bench import Bench
from gatekit_tinywan.study.cell import BASES
from gatekit_tinywan.study.dry import STAND_IN, stand_in
from gatekit_tinywan.study.prompts import scenes_of, seeds_of
from gatekit_tinywan.study.sets import SETS

SCHEDULES = Path(__file__).parents[3] / "schedules"


@pytest.fixture(scope="module")
def bench(weights):
    return Bench("cpu", models_dir=weights[0])


@pytest.mark.parametrize("name", SETS)
def test_every_cell_is_planned_within_its_evaluations(name, bench):
    cells = [c for c in SETS[name]() if c.peer is None and "k_diffusion" not in c.row]
    assert len({(c.row, c.evaluations) for c in cells}) == len(cells)
    least = min(c.evaluations for c in cells)
    for cell in (c for c in cells if c.evaluations == least):
        plan = bench.fitted(cell.with_measured(STAND_IN, stand_in))
        assert cell.evaluations // 2 < plan.nfe <= cell.evaluations, cell.name
        assert plan.passes == 2 * plan.nfe
        if "restart" not in cell.row and "close" not in cell.row:
            assert plan.nfe == cell.evaluations, cell.name


@pytest.mark.parametrize(("base", "shipped"), [("fp16", "tinywan_fp16"), ("gate", "quickstart")])
def test_a_base_is_the_shipped_schedule(base, shipped, bench):
    ours, theirs = (
        gatekit.resolve(gatekit.load_schedule(path), models_dir=bench._models, device="cpu")
        for path in (BASES / f"{base}.yaml", SCHEDULES / f"{shipped}.yaml")
    )
    assert ours.video == theirs.video and ours.family.name == theirs.family.name
    for one, other in zip(ours.phases, theirs.phases, strict=True):
        assert (one.name, one.sigmas, one.field) == (other.name, other.sigmas, other.field)


def test_the_coarsest_reference_that_is_taken_can_be_halved():
    half = flow.LEAST_STEPS // 2
    for boundaries in flow.BOUNDARIES.values():
        assert sum(len(g) - 1 for g in flow.fine_grids(boundaries, half)) == half
    with pytest.raises(gatekit.GatekitError):
        flow.fine_grids(flow.BOUNDARIES["gate"], half - 1)


def test_close_pays_for_its_evaluation(bench):
    cells = {c.row: c for c in SETS["history"]() if c.evaluations == 12}
    close, carry = (bench.fitted(cells[f"unipc, {p}"]) for p in ("close", "carry"))
    assert close.nfe == carry.nfe == 12
    assert len(close.run_sigmas) == len(carry.run_sigmas) - 1


def test_prompts_tuned_on_are_not_reported():
    tuned, reported = (scenes_of(split, range(64)) for split in ("tune", "report"))
    assert not set(tuned.captions()) & set(reported.captions())
    assert not set(seeds_of("tune", range(2000))) & set(seeds_of("report", range(2000)))


@pytest.mark.parametrize("name", ["fp16", "gate"])
def test_the_reference_hits_every_switch_and_the_lower_phase_starts_there(name, bench):
    plan = bench.plan(name, flow.changes(name, 60))
    ends = [phase.sigmas[-1] for phase in plan.phases]
    assert ends == [*flow.BOUNDARIES[name], 0.0] and plan.nfe == 60
    assert [p.history.name for p in plan.phases[1:]] == ["reset"] * len(flow.BOUNDARIES[name])
    assert plan.phases[-1].sigmas[-2] == pytest.approx(flow.LEAST)


def test_the_reference_converges_over_a_switch():
    import torch

    from gatekit.testing import Gaussian

    fields = Gaussian(1.5, 0.4), Gaussian(1.0, 0.6)
    x = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    truth = fields[1].flow(fields[0].flow(x, 1.0, 0.875), 0.875, 0.0)
    errors = []
    for steps in (25, 50, 100):
        phases = [
            gatekit.FunctionPhase(
                field, "dpmpp_3m", sigmas, str(i), "reset", {"coordinate": "theta"}
            )
            for i, (field, sigmas) in enumerate(
                zip(fields, flow.fine_grids((0.875,), steps), strict=True)
            )
        ]
        errors.append(float((gatekit.sample_phases(phases, x) - truth).abs().max()))
    assert errors[2] < errors[1] / 4 < errors[0] / 16 and errors[2] < 2e-4
