"""What a phase changes in its variant: planned early, run without loading again."""

from __future__ import annotations

import json

import jsonschema
import pytest

import gatekit
from gatekit import InputError, Inputs, ModelVariant, ScheduleError, load_schedule, resolve
from gatekit.schema import json_schema

ONE = "phases.high.variant=fine"


def planned(project, *overrides):
    return resolve(load_schedule(project / "fake.yaml", list(overrides)))


def test_the_field_knows_and_the_plan_shows(project):
    base = planned(project, ONE, "phases.high.guidance=none")
    assert base.phases[0].field == base.phases[1].field
    plan = planned(project, ONE, "phases.high.guidance=none", "phases.high.adjust.gain=0.5")
    first, second = plan.phases
    assert (first.params.gain, second.params.gain) == (0.5, 1.0)
    assert first.field != second.field == base.phases[1].field
    assert plan.variants["fine"].phases == (first.params, second.params)
    assert "  adjust: {gain: 0.5}" in plan.explain()
    assert [p["adjust"] for p in plan.to_json()["phases"]] == [{"gain": 0.5}, {}]
    # Said in the phase or in the variant: what predicts is the same.
    said = planned(project, ONE, "phases.high.guidance=none", "variants.fine.gain=0.5")
    assert said.phases[0].field == first.field


def test_a_run_changes_what_is_loaded_and_loads_once(project, fake):
    fake.LOG.clear()
    plan = planned(project, ONE, "phases.high.adjust.gain=0.5")
    result = gatekit.run(plan, Inputs(prompt="x", seed=4))
    told = [line for line in fake.LOG if "fine" in line]
    assert told == ["adjust fine 0.5", "load fine", "adjust fine 1", "unload fine"]
    plain = gatekit.run(planned(project, ONE), Inputs(prompt="x", seed=4))
    assert not result.latent.equal(plain.latent)


def test_a_run_that_was_adjusted_otherwise_is_not_resumed(project, tmp_path):
    gatekit.run(planned(project, ONE), Inputs(seed=1), run_dir=tmp_path / "run")
    other = planned(project, ONE, "phases.low.adjust.gain=0.25")
    with pytest.raises(InputError, match=r"adjust"):
        gatekit.run(other, Inputs(seed=1), resume=tmp_path / "run")


@pytest.mark.parametrize(
    ("adjust", "expected"),
    [
        ("adjust.gian=1", r"phases\[0\].adjust.gian.*unknown key 'gian'; did you mean 'gain'"),
        ("adjust.gain=-1", r"phases\[0\].adjust.gain.*greater than or equal to 0"),
        ("adjust.gain=10", r"phases\[0\].adjust.*gain above 9.*10"),
        ("adjust=3", r"phases\[0\].adjust.*must be a mapping"),
    ],
)
def test_what_cannot_be_is_told_by_the_plan(project, adjust, expected):
    with pytest.raises(ScheduleError, match=expected):
        planned(project, f"phases.high.{adjust}")


def test_a_variant_that_is_fixed_says_so(project, fake, monkeypatch):
    for name in ("Adjust", "adjusted", "adjust"):
        monkeypatch.delattr(fake.Number, name)
    assert fake.Number.Adjust is ModelVariant.Adjust
    with pytest.raises(ScheduleError, match=r"'coarse' has nothing that a phase can change"):
        planned(project, "phases.high.adjust.gain=1")
    plan = planned(project)
    variant = plan.variants["fine"]
    variant.adjust(variant.params)
    with pytest.raises(InputError, match="cannot change"):
        variant.adjust(plan.variants["coarse"].params)


def test_the_json_schema_has_it(project):
    schema, data = json_schema(), planned(project, "phases.high.adjust.gain=1").schedule.to_dict()
    jsonschema.validate(json.loads(json.dumps(data)), schema)
    data["phases"][0]["adjust"] = {"gian": 1}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(json.dumps(data)), schema)


def test_nested_files_are_looked_up_everywhere(project, fake):
    """In a schedule and for one variant alone, each missing one with its place."""
    loras = [{"file": "coarse.num", "strength": 1.0}, {"file": "nowhere.num"}]
    plan = planned(project, f"variants.fine.loras={json.dumps(loras)}")
    (missing,) = plan.missing
    assert missing.name == "nowhere.num" and "variants.fine.loras[1].file" in missing.where
    assert plan.variants["fine"].files()[1] == project / "coarse.num"
    assert f"fine: {project / 'coarse.num'} (" in plan.explain()
    spec = {"use": "number", "file": str(project / "fine.num"), "loras": loras}
    with pytest.raises(gatekit.WeightsError, match=r"loras\.0\.file.*coarse"):
        gatekit.open_variant(spec, family="fake", device="cpu")
    assert spec["loras"] == loras  # what is given stays as it is
