"""``extends`` and overrides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekit import Schedule, ScheduleError, load_schedule
from gatekit.merge import merge, override
from gatekit.yamlsource import of_value

BASE = {
    "version": 1,
    "name": "base",
    "family": {"use": "fake"},
    "variants": {"a": {"use": "number", "file": "a.num"}},
    "sigmas": {"use": "shifted_linear", "steps": 8, "shift": 5.0},
    "phases": [
        {"name": "one", "until": 0.9, "variant": "a", "sampler": {"use": "unipc", "order": 2}},
        {"name": "two", "variant": "a", "sampler": "euler"},
    ],
}

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.dictionaries(st.sampled_from("abcd"), inner, max_size=3) | st.lists(inner, max_size=3)
    ),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(st.sampled_from("abcd"), TREES, max_size=4)


def without_nulls(value):
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return value


def merged(base, over):
    return merge(of_value(base, "base"), of_value(over, "over")).plain()


@given(MAPPINGS)
def test_a_tree_survives_the_round_trip(tree):
    assert of_value(tree, "x").plain() == tree


@given(MAPPINGS)
def test_merging_nothing_changes_nothing(tree):
    assert merged(tree, {}) == tree


@given(MAPPINGS)
def test_merging_into_nothing_keeps_all_but_nulls(tree):
    assert merged({}, tree) == without_nulls(tree)


@given(MAPPINGS, MAPPINGS)
def test_merging_twice_is_merging_once(base, over):
    once = merged(base, over)
    assert merged(once, over) == once


@given(MAPPINGS, st.lists(st.sampled_from("abcd"), min_size=1, max_size=3), st.integers())
def test_an_override_sets_its_key_and_no_other(tree, keys, value):
    root = of_value(tree, "base")
    try:
        changed = override(root, ".".join(keys), of_value(value, "o"), "o").plain()
    except ScheduleError:
        return
    assert root.plain() == tree
    found = changed
    for key in keys:
        found = found[key] if isinstance(found, dict) else found[int(key)]
    assert found == value
    assert {k: v for k, v in changed.items() if k != keys[0]} == {
        k: v for k, v in tree.items() if k != keys[0]
    }


def load(tmp_path, child: str, *overrides):
    import json

    (tmp_path / "base.yaml").write_text(json.dumps(BASE))
    (tmp_path / "child.yaml").write_text("extends: base.yaml\n" + child)
    return load_schedule(tmp_path / "child.yaml", *overrides)


def test_mappings_merge(tmp_path):
    schedule = load(tmp_path, "name: child\nsigmas: {steps: 12}\n")
    assert (schedule.name, schedule.sigmas.steps, schedule.sigmas.params) == (
        "child",
        12,
        {"shift": 5.0},
    )


def test_phases_are_addressed_by_name(tmp_path):
    by_list = load(tmp_path, "phases: [{name: two, sampler: heun}]\n")
    by_name = load(tmp_path, "phases: {two: {sampler: heun}}\n")
    assert by_list.to_dict() == by_name.to_dict()
    assert [p.sampler.use for p in by_list.phases] == ["unipc", "heun"]


def test_a_new_phase_goes_after_the_one_before_it(tmp_path):
    child = "phases: [{name: one}, {name: mid, until: 0.5, variant: a, sampler: euler}]\n"
    assert [p.name for p in load(tmp_path, child).phases] == ["one", "mid", "two"]


def test_null_takes_a_phase_out(tmp_path):
    assert [p.name for p in load(tmp_path, "phases: {one: null}\n").phases] == ["two"]


def test_another_plugin_keeps_no_foreign_parameters(tmp_path):
    schedule = load(tmp_path, "phases: {one: {sampler: {use: euler}}}\n")
    assert schedule.phases[0].sampler.params == {}
    same = load(tmp_path, "phases: {one: {sampler: {use: unipc, corrector: false}}}\n")
    assert same.phases[0].sampler.params == {"order": 2, "corrector": False}


def test_places_survive_a_merge(tmp_path):
    schedule = load(tmp_path, "name: child\nphases: {two: {history: {threshold: 0.5}}}\n")
    at = schedule.source.where(("phases", 1, "history", "threshold"))
    assert at.replace(str(tmp_path), "") == "/child.yaml:3:37: phases[1].history.threshold"
    assert "base.yaml:1:" in schedule.source.where(("phases", 0, "until"))


@pytest.mark.parametrize(
    ("stand", "asked", "base", "named"),
    [
        (".", "s/child.yaml", "../base.yaml", "base.yaml"),
        (".", "s/child.yaml", "more/base.yaml", "s/more/base.yaml"),
        ("s", "child.yaml", "../base.yaml", "../base.yaml"),
        ("s", "{}/s/child.yaml", "../base.yaml", "{}/base.yaml"),
        ("s", "child.yaml", "{}/base.yaml", "{}/base.yaml"),
    ],
)
def test_what_is_extended_is_named_as_one_asked(tmp_path, monkeypatch, stand, asked, base, named):
    import json

    root = str(tmp_path)
    (tmp_path / "s" / "more").mkdir(parents=True)
    (tmp_path / "s" / base.format(root)).write_text(json.dumps(BASE))
    (tmp_path / "s" / "child.yaml").write_text(f"extends: {base.format(root)}\n")
    monkeypatch.chdir(tmp_path / stand)
    schedule = load_schedule(asked.format(root), allow_outside=True)
    assert schedule.source.where(("name",)).startswith(f"{named.format(root)}:1:")
    assert schedule.folder == tmp_path / "s"


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        ("extends: bas.yaml", "no such schedule to extend"),
        ("extends: [a]", "'extends' is the path of one schedule"),
        ("extends: child.yaml", "'extends' leads in a circle: child.yaml -> child.yaml"),
    ],
)
def test_extends_that_leads_nowhere(tmp_path, child, expected):
    (tmp_path / "base.yaml").write_text("name: x")
    (tmp_path / "child.yaml").write_text(child)
    with pytest.raises(ScheduleError, match=r"child.yaml:1:10: extends: ") as caught:
        load_schedule(tmp_path / "child.yaml")
    assert expected in str(caught.value)


def test_overrides_from_python_and_from_text_agree(tmp_path):
    texts = ["phases.one.sampler.order=3", "phases.1.sampler=heun", "sigmas.steps=4"]
    values = {
        "phases.one.sampler.order": 3,
        "phases[1].sampler": {"use": "heun"},
        "sigmas.steps": 4,
    }
    a, b = load(tmp_path, "", texts), load(tmp_path, "", values)
    assert a.to_dict() == b.to_dict()
    assert a.phases[1].sampler.use == "heun"


def test_an_override_of_use_drops_foreign_parameters(tmp_path):
    schedule = load(tmp_path, "", ["phases.one.sampler.use=euler", "sigmas.use=karras"])
    assert schedule.phases[0].sampler.params == {}
    assert (schedule.sigmas.steps, schedule.sigmas.params) == (8, {})


def test_a_schedule_survives_the_round_trip(tmp_path):
    schedule = load(tmp_path, "memory: {vram: 16GiB}\n")
    assert schedule.memory.vram == 16 << 30
    assert Schedule.from_dict(schedule.to_dict()).to_dict() == schedule.to_dict()
