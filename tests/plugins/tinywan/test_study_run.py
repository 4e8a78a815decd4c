"""The study on untrained weights at a small size: values, resuming, failures, tables."""

import json
from dataclasses import replace

import pytest
import torch

import gatekit
from gatekit_tinywan.batch import Batch
from gatekit_tinywan.study import __main__ as command
from gatekit_tinywan.study import derived
from gatekit_tinywan.study import references as references_module
from gatekit_tinywan.study.bench import Bench
from gatekit_tinywan.study.cell import Cell, histories, samplers
from gatekit_tinywan.study.references import References
from gatekit_tinywan.study.run import Study
from gatekit_tinywan.study.sets import SETS
from gatekit_tinywan.study.store import Store, find

SMALL = "video={width: 16, height: 16, frames: 9, fps: 16}"


@pytest.fixture(scope="module")
def bench(weights):
    return Bench("cpu", models_dir=weights[0], overrides=[SMALL])


@pytest.fixture(scope="module")
def references(bench, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("references"), bench.about("report"))
    return References(bench, store, "report", 24)


@pytest.fixture
def study(bench, references, tmp_path):
    store = Store(tmp_path / "run", bench.about("report"))
    return Study(bench, store, references, "report", 3, 2, judge=False, say=lambda _: None)


def call(weights, out, *arguments):
    fixed = ["--models-dir", str(weights[0]), "--set", SMALL, "--out", str(out), "--device", "cpu"]
    return command.main([*fixed, "--reference-steps", "20", "--batch", "2", *arguments])


def test_one_command_runs_goes_on_and_prints(weights, tmp_path, capsys):
    some = ["table", "--only", "^(euler|unipc)$", "--evaluations", "8"]
    assert call(weights, tmp_path, *some, "--prompts", "1", "--seconds", "0") == 1
    assert "cells left: 2" in capsys.readouterr().err
    assert call(weights, tmp_path, "table", "--markdown") == 0  # a run without a value yet
    assert "euler" not in capsys.readouterr().out
    assert call(weights, tmp_path, *some, "--prompts", "1") == 0
    (folder,) = tmp_path.iterdir()
    files = sorted((folder / "cells").iterdir())
    before = [f.read_text() for f in files]
    assert len(files) == 2 and all(text.count("\n") == 2 for text in before)
    row = json.loads(before[0].splitlines()[1])
    assert set(row) == {"i", "fp16", "right", "nfe", "passes", "seconds"}
    assert row["passes"] == 2 * row["nfe"] and set(row["right"]) <= {"0", "1"}

    assert call(weights, tmp_path, *some, "--prompts", "1") == 0  # nothing to do
    assert [f.read_text() for f in files] == before
    assert call(weights, tmp_path, *some, "--prompts", "2", "--no-judge") == 0
    assert all(f.read_text().startswith(b) for f, b in zip(files, before, strict=True))

    capsys.readouterr()
    assert call(weights, tmp_path, "table", "--markdown") == 0
    shown = capsys.readouterr().out
    assert "| euler | 0." in shown and "2 prompts" in shown and "halving its steps" in shown


@pytest.fixture(scope="module")
def batched(bench, references, tmp_path_factory):
    """Wan's sampler at 8 evaluations, three prompts in batches of two, with rho."""
    store = Store(tmp_path_factory.mktemp("batched"), bench.about("report"))
    study = Study(bench, store, references, "report", 3, 2, judge=False, say=lambda _: None)
    cell = Cell("unipc", 8, changes=samplers("fp16", "unipc"), watch=("rho",))
    study.run([cell])
    assert not study.failed
    return study, cell


def test_a_sample_does_not_depend_on_its_batch(batched, study):
    together = batched[0].store.read(batched[1])
    replace(study, batch=1, prompts=2).run([batched[1]])
    alone = study.store.read(batched[1])
    assert not study.failed and len(alone) == 2
    for i, row in alone.items():
        assert row["fp16"] == pytest.approx(together[i]["fp16"], rel=1e-2)
        assert row["rho"] == pytest.approx(together[i]["rho"], rel=1e-2)


def test_errors_fall_with_evaluations(study):
    study = replace(study, prompts=1)
    cells = [Cell("", n, changes=samplers("fp16", "euler")) for n in (8, 40)]
    study.run(cells)
    coarse, fine = (study.store.read(c)[0]["fp16"] for c in cells)
    assert not study.failed and 0 < fine < coarse
    assert 0 < study.references.errors("fp16")[0][0] < coarse


def test_a_cell_that_fails_is_named_and_the_rest_go_on(study):
    study = replace(study, prompts=1)
    bad = Cell("bad", 8, changes={"phases.low.sampler": "no_such"})
    good = Cell("good", 8)
    study.run([bad, good])
    assert list(study.failed) == ["bad @ 8"] and "no_such" in study.failed["bad @ 8"]
    assert len(study.store.read(good)) == 1


def test_a_reference_that_ends_at_nan_is_no_reference(study, monkeypatch, tmp_path):
    monkeypatch.setattr(Batch, "sample", lambda self: torch.full((1, 16, 3, 2, 2), torch.nan))
    empty = References(study.bench, Store(tmp_path, {}), "report", 20)
    with pytest.raises(gatekit.NumericsError, match="converged flow ended at NaN"):
        empty.make("fp16", [0], judge=False)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_switch_with_too_short_a_history_has_no_rho(study):
    until = {"phases.commit.until": {"step": 1}, "phases.structure.until": {"step": 4}}
    cell = Cell("gate", 8, "gate", until, watch=("rho",))
    replace(study, prompts=1).run([cell])
    first, second = study.store.read(cell)[0]["rho"]
    assert not study.failed and first is None and second > 0


def test_auto_of_one_sample_is_the_run_that_was_derived(study):
    study = replace(study, batch=1)
    wan = samplers("fp16", "unipc")
    runs = [
        Cell(p, 8, changes={**wan, **histories("fp16", p)}, watch=("rho",))
        for p in ("carry", "reset")
    ]
    study.run(runs)
    carried, reset = (study.store.read(c) for c in runs)
    rhos = sorted(carried[i]["rho"][0] for i in range(3))
    assert rhos[0] < rhos[2] and carried[0]["fp16"] != reset[0]["fp16"]
    threshold = (rhos[0] + rhos[1]) / 2  # one sample carries, two reset
    policy = {"use": "auto", "threshold": threshold}
    auto = Cell("auto", 8, changes={**wan, **histories("fp16", policy)})
    study.run([auto])
    chosen = derived.auto(threshold, carried, reset)
    assert chosen.mean == pytest.approx(1 / 3) and not study.failed
    for i, row in study.store.read(auto).items():
        assert row["fp16"] == chosen.rows[i]["fp16"]


def test_settle_of_one_sample_is_the_run_that_was_derived(study):
    study = replace(study, batch=1, prompts=1)
    cells = {c.row: c for c in SETS["strategies"]() if c.evaluations == 12 and c.base == "gate"}
    study.run(list(cells.values()))
    runs = {int(r.rsplit(" ", 1)[1]): study.store.read(c) for r, c in cells.items()}
    found = [v for row in runs[5].values() for k, v in row["settle"] if 2 <= k < 5]
    threshold = sorted(found)[len(found) // 2]
    strategy = {"use": "settle", "threshold": threshold, "min_steps": 2}
    last = cells["hand over after 5"]
    settle = replace(last, changes={**last.changes, "phases.commit.strategy": strategy}, watch=())
    study.run([settle])
    chosen = derived.settle(threshold, runs)
    assert not study.failed and 2 <= chosen.mean < 5
    for i, row in study.store.read(settle).items():
        assert row["fp16"] == pytest.approx(chosen.rows[i]["fp16"], rel=1e-4)


def test_a_grid_that_leaves_a_phase_without_a_step_has_no_end(study, monkeypatch):
    monkeypatch.setattr(references_module, "PROFILE_ROWS", range(1))
    assert study.references._ends("three", [1.0, 0.97, 0.5, 0.3, 0.0]) is None
    assert study.references._ends("three", [1.0, 0.9, 0.5, 0.0]).isfinite().all()


def test_a_fine_run_of_tune_is_measured_once_and_kept(study, monkeypatch):
    monkeypatch.setattr(references_module, "PROFILE_STEPS", 60)
    monkeypatch.setattr(references_module, "PROFILE_ROWS", range(1))
    monkeypatch.setattr(references_module, "TRIES", 3)
    rows = [c for name in ("grids", "table") for c in SETS[name]() if c.evaluations == 8]
    curved, fitted = (
        next(c for c in rows if c.row == row)
        for row in ("polish, curvature 0.05", "the three, fitted")
    )
    run = replace(study, prompts=1)
    run.run([curved])
    (file,) = study.references.folder.glob("travel-*")
    written = file.stat().st_mtime_ns
    monkeypatch.setattr(study.references, "_travels", {})  # as a new process would find it
    run.run([fitted])
    assert file.stat().st_mtime_ns == written
    assert not study.failed
    assert len(study.store.read(curved)) == len(study.store.read(fitted)) == 1
    fine = study.references.travel("fp16")
    travelled, profile = fine.travelled, fine.profile
    (file,) = study.references.folder.glob("grid-three-8.json")
    errors, grids = zip(*json.loads(file.read_text()), strict=True)
    assert list(errors) == sorted(errors) and len(grids) == 3
    assert {len(grid) for grid in grids} == {9}
    assert travelled.boundaries == (0.875,) and len(travelled.sigmas) == 60
    assert profile[0][0] > profile[-1][0] and 0.5 < max(d for _, d in profile) <= 1.0


def test_a_line_that_was_cut_off_is_run_again(batched):
    study, cell = batched
    file, whole = study.store.file(cell), study.store.read(cell)
    file.write_text(file.read_text()[:-20])
    assert study.lacking(cell) == [2]
    study.run([cell])
    assert study.lacking(cell) == []
    assert study.store.read(cell)[2]["fp16"] == pytest.approx(whole[2]["fp16"], rel=1e-2)
    assert find(study.store.folder.parent, "report", study.store.folder.name).read(cell)


def test_a_set_that_is_none_and_a_run_that_is_none(weights, tmp_path, capsys):
    assert command.main(["tabel"]) == 2
    assert "table" in capsys.readouterr().err
    assert call(weights, tmp_path, "--markdown") == 2
    assert "run the study first" in capsys.readouterr().err
