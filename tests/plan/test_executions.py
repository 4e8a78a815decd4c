"""How phases compute: what a plan asks a family, says, hashes, and tells the variant."""

import pytest

import gatekit
from gatekit import Execution, InputError, ScheduleError, load_schedule, resolve


def planned(project, *overrides):
    return resolve(load_schedule(project / "fake.yaml", list(overrides)))


@pytest.fixture
def chooser(fake, monkeypatch):
    """The fake family chooses what is asked for; its variant notes what it is told."""
    asked = []

    def executions(self, asks, video, device):
        asked.append(tuple(asks))
        return [
            Execution(
                attention="plain" if ask.attention == "auto" else ask.attention,
                compiled=ask.compile is True,
                changes="rough" if ask.attention == "rough" else "",
                remarks=(f"{ask.passes} passes",),
                replayed=ask.compile is not True,
            )
            for ask in asks
        ]

    monkeypatch.setattr(fake.FakeFamily, "executions", executions)
    told = lambda self, execution: fake.LOG.append(f"configure {execution.attention}")  # noqa: E731
    monkeypatch.setattr(fake.Number, "configure", told)
    return asked


def test_a_family_without_a_choice_refuses_one(project):
    for key, value in (("attention", "sage"), ("compile", "true")):
        with pytest.raises(ScheduleError, match=rf"phases\[1\].{key}: .*no choice of '{key}'"):
            planned(project, f"phases.low.{key}={value}")
    for value in ("attention=auto", "compile=auto", "compile=false"):
        plan = planned(project, f"phases.low.{value}")
        assert plan.phases[1].execution == Execution()


@pytest.mark.parametrize("value", ["maybe", "1", "yes", "[]"])
def test_compile_is_one_of_three(project, value):
    with pytest.raises(ScheduleError, match=r"phases\[1\]\.compile: .*auto, true or false"):
        planned(project, f"phases.low.compile={value}")


def test_the_keys_are_in_the_schema():
    import jsonschema

    from gatekit.schema import json_schema

    schema = json_schema()["else"]["properties"]["phases"]["anyOf"][0]["items"]["properties"]
    jsonschema.validate("cudnn", schema["attention"])
    for value, good in (("auto", True), (False, True), ("maybe", False)):
        assert jsonschema.Draft202012Validator(schema["compile"]).is_valid(value) is good


def test_the_family_is_asked_with_the_passes_of_each_phase(project, chooser):
    plan = planned(project, "phases.low.attention=rough", "phases.low.compile=true")
    high, low = chooser[-1]
    assert (high.name, high.passes, high.attention, high.compile) == ("high", 6, "auto", "auto")
    assert (low.name, low.passes, low.attention, low.compile) == ("low", 5, "rough", True)
    assert low.found and low.variant is plan.variants["fine"] and low.compute == "fp32"


def test_a_family_is_told_of_step_caches(project, chooser, fake, monkeypatch):
    monkeypatch.setattr(fake.Number, "in_blocks", True)
    planned(project, "phases.low.cache.use=first_block", "phases.low.cache.threshold=0.1")
    assert [ask.cached for ask in chooser[-1]] == [False, True]


def test_the_plan_says_how_phases_compute(project, chooser):
    plan = planned(project, "phases.low.attention=rough", "phases.low.compile=true")
    text = plan.explain()
    assert "computed in fp32, attention plain)" in text
    assert "computed in fp32, attention rough, compiled)" in text and "  5 passes" in text
    high, low = plan.to_json()["phases"]
    assert (high["attention"], high["compiled"]) == ("plain", False)
    assert (low["attention"], low["compiled"]) == ("rough", True)
    assert (high["replayed"], low["replayed"]) == (True, False)


def test_only_what_changes_predictions_is_part_of_the_field(project, chooser):
    def field(*overrides):
        return planned(project, *overrides).phases[1].field

    assert field() == field("phases.low.attention=other") == field("phases.low.compile=true")
    assert len({field(), field("phases.low.attention=rough"), field("phases.low.compute=fp8")}) == 3


def test_variants_are_told_before_each_phase(project, chooser, fake):
    fake.LOG.clear()
    gatekit.run(planned(project, "phases.low.attention=rough"), gatekit.Inputs(prompt="a"))
    told = [line for line in fake.LOG if line.split()[0] in ("configure", "load")]
    assert told == ["configure plain", "load coarse", "configure rough", "load fine"]


def test_a_phase_that_the_start_skips_is_checked_too(project):
    with pytest.raises(ScheduleError, match=r"phases\[0\].attention"):
        planned(project, "start=0.5", "phases.high.attention=sage")


def test_a_variant_of_one_way_says_so(fake, project):
    variant = planned(project).variants["fine"]
    variant.configure(Execution())
    with pytest.raises(InputError, match="computes in one way only"):
        variant.configure(Execution(attention="math"))
    with pytest.raises(InputError, match="computes in one way only"):
        variant.configure(Execution(replayed=True))


def test_memory_by_compute():
    facts = gatekit.VariantFacts("Q2_K", 1, 1, 2.6, 10, resident_by_compute={"fp8": 14})
    assert [facts.resident_for(c) for c in ("bf16", "fp16", "fp32", "fp8")] == [10, 10, 20, 14]


def test_no_capability_without_a_gpu():
    assert gatekit.compute_capability("cpu") is None
    assert gatekit.compute_capability("cuda:17") is None
