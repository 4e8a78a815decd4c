"""Statistics and derived rows on numbers known beforehand."""

import math

import pytest

from gatekit_tinywan.study import derived, peer, values
from gatekit_tinywan.study.sets import SETS
from gatekit_tinywan.study.store import Store
from gatekit_tinywan.study.tables import Report


def test_errors_and_flips():
    found = values.errors([0.1, 0.2, 0.6])
    assert found.mean == pytest.approx(0.3) and found.median == 0.2
    assert found.flips == pytest.approx(1 / 3) and found.count == 3


def test_paired_difference_takes_the_samples_that_both_have():
    one = values.right({0: {"right": "11"}, 1: {"right": "11"}, 2: {"right": "10"}, 3: {}})
    other = values.right({0: {"right": "01"}, 1: {"right": "11"}, 5: {"right": "11"}})
    assert one == {0: 1.0, 1: 1.0, 2: 0.0}
    found = values.difference(one, other)
    assert found.mean == 0.5 and found.error == pytest.approx(0.5)
    assert values.difference(one, {}) is None


def test_changed_is_any_attribute_other_than_the_reference_has():
    rows = {0: {"right": "11"}, 1: {"right": "10"}}
    assert values.changed(rows, {0: "11", 1: "01"}) == 0.5
    assert values.changed(rows, {0: "", 1: ""}) is None


def test_auto_without_rho_resets():
    carried, reset = {0: {"fp16": 1.0}}, {0: {"fp16": 2.0}}
    assert derived.auto(100.0, carried, reset).rows[0]["fp16"] == 2.0
    assert derived.best([carried, reset], "fp16").rows[0]["fp16"] == 1.0


def test_a_switch_without_rho_keeps_its_place():
    runs = {
        (a, b): {0: {"v": a[0] + b[0], "rho": [None, 0.5]}}
        for a in ("carry", "reset")
        for b in ("carry", "reset")
    }
    assert derived.auto_twice(1.0, runs).rows[0]["v"] == "rc"


def test_the_second_decision_follows_the_first():
    runs = {
        ("carry", "carry"): {0: {"v": "cc", "rho": [5.0, 0.1]}},
        ("carry", "reset"): {0: {"v": "cr", "rho": [5.0, 0.1]}},
        ("reset", "carry"): {0: {"v": "rc", "rho": [5.0, 9.0]}},
        ("reset", "reset"): {0: {"v": "rr", "rho": [5.0, 9.0]}},
    }
    said = {t: derived.auto_twice(t, runs).rows[0]["v"] for t in (0.05, 1.0, 6.0, 10.0)}
    assert said == {0.05: "rr", 1.0: "rr", 6.0: "cc", 10.0: "cc"}


def test_tables_have_what_is_stored_and_no_head_without_a_line(tmp_path):
    about = dict.fromkeys(("weights", "split", "device", "compute", "torch"), "x")
    store = Store(tmp_path, about)
    cells = {c.row: c for c in SETS["history"]() if c.evaluations == 8}
    row = {"i": 0, "fp16": 0.25, "nfe": 8, "seconds": 1.0, "rho": [1.5]}
    for policy in ("close", "carry"):
        store.append(cells[f"unipc, {policy}"], [row])
    text = "\n".join(Report(store, {}, [8]).lines(["history", "table"]))
    assert "| unipc, close | 0.2500 / 0.2500 |" in text
    assert "`auto`" not in text and "### table" not in text
    store.append(cells["unipc, reset"], [{**row, "fp16": 0.75}])
    lines = list(Report(store, {}, [8]).lines(["history"]))
    (line,) = (line for line in lines if line.startswith("| unipc | 8 |"))
    assert "0.00: 0.7500 / 0.7500 | 1.00: 0.2500 / 0.2500" in line  # rho 1.5


def test_settle_takes_the_first_step_that_has_settled():
    runs = {k: {0: {"k": k, "settle": [[2, 0.9], [3, 0.4], [4, 0.1]]}} for k in (2, 3, 4)}
    assert [derived.settle(t, runs).rows[0]["k"] for t in (1.0, 0.5, 0.2, 0.01)] == [2, 3, 4, 4]
    assert math.isclose(derived.settle(0.5, runs).mean, 3.0)


def test_rows_of_skrample_are_left_out_with_a_sentence(monkeypatch):
    import builtins

    real = builtins.__import__
    monkeypatch.setattr(
        peer.importlib, "import_module", lambda n: real("no_module_of_this_name", level=0)
    )
    assert "skrample" in peer.missing()
