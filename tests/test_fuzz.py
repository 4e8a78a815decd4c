"""A short run of the fuzzer, and schedules made by hypothesis: only gatekit's errors come out.

``python tests/bench/fuzz.py`` is the long run.
"""

import copy

import pytest
from fuzz import Found, blindly, mutated, try_one
from fuzz_targets import ROOT, SEEDS, TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gatekit
from gatekit.yamlsource import Node, Place

QUICKSTART = ROOT / "schedules" / "quickstart.yaml"
NUMBERS = {"gguf": 400, "safetensors": 400, "pth": 200, "schedule": 60, "carried": 60}


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_of_seeds(target, tmp_path):
    found = blindly(target, NUMBERS.get(target, 400), tmp_path)
    assert found.failures == {}
    assert found.inputs == NUMBERS.get(target, 400)


def test_seeds_reach_both_ends(tmp_path):
    """A harness that refuses everything at the door, or nothing, would find nothing."""
    for target in ("gguf", "safetensors", "pth", "schedule", "carried"):
        found = Found(target)
        for data in SEEDS[target]():
            try_one(found, data, tmp_path)
        assert found.outcomes["ok"] and found.inputs > found.outcomes["ok"], target


def test_a_failure_is_found(tmp_path, monkeypatch):
    """What raises, hangs or fills the memory is a failure with its input."""

    def raises(data, folder):
        raise KeyError("x")

    def fills(data, folder):
        raise MemoryError

    monkeypatch.setattr("fuzz.SECONDS", -1.0)
    monkeypatch.setitem(TARGETS, "schedule", lambda data, folder: None)
    slow = Found("schedule")
    try_one(slow, b"a", tmp_path)
    assert list(slow.failures.values()) == [b"a"]
    monkeypatch.setattr("fuzz.SECONDS", 2.0)
    for fault, name in ((raises, "KeyError"), (fills, "MemoryError")):
        monkeypatch.setitem(TARGETS, "schedule", fault)
        found = Found("schedule")
        try_one(found, b"b", tmp_path)
        ((what, data),) = found.failures.items()
        assert what.startswith(f"{name} at test_fuzz.py") and data == b"b"


def test_mutations_differ_and_repeat():
    import random

    seeds = SEEDS["gguf"]()
    one = [mutated(seeds, random.Random(i)) for i in range(50)]
    assert len(set(one)) > 45 and one == [mutated(seeds, random.Random(i)) for i in range(50)]


# -- hypothesis: any value at any place of a schedule that is right

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["euler", "cfg", "grid", "a", "1e999", "9" * 30 + "GiB", "../x", "~", "auto"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["use", "file", "steps", "name", "scale"]), inner)
    ),
    max_leaves=6,
)
BASE = gatekit.load_schedule(QUICKSTART).to_dict()


def paths(data, at=()):
    """Every key path of plain data."""
    pairs = (
        data.items() if isinstance(data, dict) else enumerate(data) if type(data) is list else ()
    )
    for key, value in pairs:
        yield (*at, key)
        yield from paths(value, (*at, key))


def node_of(value):
    """Nodes as of a file, so that what holds for strangers' files holds."""
    place = Place("f.yaml", 1, 1)
    if isinstance(value, dict):
        return Node({k: node_of(v) for k, v in value.items()}, place, place)
    if isinstance(value, list):
        return Node([node_of(v) for v in value], place, place)
    return Node(value, place, place)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_value_at_any_place(data):
    changed = copy.deepcopy(BASE)
    for _ in range(data.draw(st.integers(1, 2))):
        *above, last = data.draw(st.sampled_from(sorted(paths(changed), key=str)))
        holder = changed
        for key in above:
            holder = holder[key]
        holder[last] = data.draw(VALUES)
        if isinstance(holder, dict) and data.draw(st.booleans()):
            holder[data.draw(st.sampled_from(["steps", "sigmas", "until", "share", "eta"]))] = (
                data.draw(VALUES)
            )
    try:
        schedule = gatekit.Schedule.from_tree(node_of(changed), "f.yaml", None)
        plan = gatekit.resolve(schedule, device="cpu")
    except gatekit.UserError as error:
        assert str(error)
    else:
        assert plan.explain()


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["phases.commit", "sigmas", "x", "phases"]), VALUES)),
    st.text(max_size=30),
)
def test_any_override(overrides, text):
    try:
        gatekit.load_schedule(QUICKSTART, dict(overrides))
        gatekit.load_schedule(QUICKSTART, [text, f"sigmas.steps={text}"])
    except gatekit.UserError as error:
        assert str(error)
