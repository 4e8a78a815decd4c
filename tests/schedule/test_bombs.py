"""YAML made to fill the memory, to take seconds, or to steer a terminal is refused at once."""

import time
import tracemalloc
from itertools import pairwise

import pytest

import gatekit
from gatekit.errors import shown
from gatekit.yamlparse import MAX_BYTES, parse

CASES = {
    "aliases of aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi")),
    "an alias of itself": "a: &a [*a]",
    "many values": "- a\n" * 200_000,
    "many keys in one line": "{" + "a," * 250_000 + "}",
    "deep lists": "[" * 500_000,
    "deep mappings": "".join(" " * i + "a:\n" for i in range(1200)),
    "deep dashes": "- " * 500_000,
    "a tag of a megabyte": "a: !" + "x" * 1_000_000,
    "larger than a schedule": "a: b\n" * (MAX_BYTES // 5 + 1),
    "an integer of 4,000 digits": "a: " + "9" * 4000,
    "an integer that Python does not print": "a: 0x" + "f" * 900_000,
    "a Python object": "a: !!python/object/apply:os.system [true]",
    "a control character": 'a: "\\e[2J"',
    "a surrogate": 'a: "\\ud800"',
    "a NUL": 'extends: "a\\0b"',
    "a control character in a key": '"\\e]0;x\\a": 1',
}


@pytest.mark.parametrize("case", CASES)
def test_refused_within_bounds(case, tmp_path):
    (tmp_path / "a.yaml").write_text(CASES[case])
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(gatekit.ScheduleError) as caught:
        gatekit.load_schedule(tmp_path / "a.yaml")
    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 2000 and str(caught.value).isprintable()
    assert peak < 256 << 20
    assert seconds < 30  # with every allocation traced; untraced under 2 s, as the fuzzer checks


def test_what_schedules_hold_still_parses():
    node = parse("a: &a [1, 2.5]\nb: *a\nc: |\n  two\n  lines\nd: 18446744073709551615\n", "f")
    assert node.plain() == {
        "a": [1, 2.5],
        "b": [1, 2.5],
        "c": "two\nlines\n",
        "d": 18446744073709551615,
    }
    assert parse("a: &a x\nb: &a y\nc: *a", "f").plain()["c"] == "y"  # and warns of nothing


def test_a_value_in_a_message_is_short():
    assert len(shown("x" * 10**6)) < 250
    assert shown(1 << 20_000) == "a number of 20,001 bits"
    assert len(str(gatekit.ScheduleError("x", value=[1 << 20_000], remedy="y"))) < 250


@pytest.mark.parametrize("name", ["x" * 100_000, "euler" * 3000])
def test_a_name_of_any_length_is_only_unknown(project, name):
    for change in ("phases.high.sampler", "sigmas.use", "variants.coarse.file", "family.use"):
        with pytest.raises(gatekit.UserError):
            plan = gatekit.load_schedule(project / "fake.yaml", {change: name})
            gatekit.resolve(plan, require_files=True)


@pytest.mark.parametrize("size", ["9" * 400 + "GiB", "1" + "0" * 20 + "TiB"])
def test_a_size_that_cannot_be(project, size):
    with pytest.raises(gatekit.ScheduleError, match="a size is a number and a unit"):
        gatekit.load_schedule(project / "fake.yaml", {"memory.vram": size})
