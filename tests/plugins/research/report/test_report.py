"""The report: what it says of known results, and what a browser makes of it."""

import json
import os
import re

import pytest

from gatekit import cli
from gatekit_research.report import compare, results, svg
from gatekit_research.sweep.store import Store

SWEEP = """\
version: 1
name: known
base: fake.yaml
list:
  - {name: plain}
  - {name: euler, set: {phases.high.sampler: euler}}
  - {name: "more <b>steps</b>", set: {sigmas.steps: 12}}
reference: {set: {sigmas.steps: 16}}
prompts: [b, ba, bal, ball, a ball, a long ball, a longer ball, the longest ball]
seeds: 1
metrics: [latent_rmse, x0_divergence, psnr]
"""


@pytest.fixture
def call(project, monkeypatch):
    monkeypatch.chdir(project)
    return lambda *arguments: cli.call([*map(str, arguments)])


@pytest.fixture
def folder(project, call):
    (project / "known.yaml").write_text(SWEEP)
    assert call("sweep", "known.yaml") == 0
    return project / "known.sweep"


def test_one_file_that_asks_for_nothing(folder, call, project):
    assert call("report", folder, "-o", "r.html") == 0
    page = (project / "r.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page and "@import" not in page and "http" not in page
    for text in ("latent_rmse", "Controls of equal cost", "Boundaries", "Sigmas and phases"):
        assert text in page
    assert "more &lt;b&gt;steps" in page and "<b>steps" not in page
    assert page.count("<svg") >= 7
    assert "kept no videos" in page


def test_differences_are_those_of_the_values(folder):
    found = results.read_results(folder)
    assert [arm.name for arm in found.arms] == ["plain", "euler", "more <b>steps</b>"]
    assert found.reference is not None and found.metrics == ["latent_rmse", "x0_divergence", "psnr"]
    plain, euler, _ = found.arms
    one, other = euler.values("latent_rmse"), plain.values("latent_rmse")
    table = compare.rows(found, "latent_rmse")
    apart = [one[key] - other[key] for key in one]
    assert table[0].difference is None and table[1].baseline == "plain"
    assert table[1].difference.mean == pytest.approx(sum(apart) / 8)
    assert table[1].difference.pairs == 8
    assert table[1].difference.holm >= table[1].difference.p >= 2 / 2**8
    assert table[2].difference.better and table[2].mean < table[0].mean
    assert compare.rows(found, "psnr")[2].difference.better  # where higher is better


def test_controls_are_those_that_took_as_much(folder):
    found = results.read_results(folder)
    _, euler, more = found.arms
    by = {}
    for control in compare.controls(found, "latent_rmse", euler):
        by.setdefault(control.kind, []).append(control.name)
    assert by["evaluations"] == ["plain"] and by["cost"] == ["plain"]
    assert by["bytes"] == ["plain", more.name]
    by = {c.kind: c.name for c in compare.controls(found, "latent_rmse", more)}
    assert by["evaluations"] is None and by["cost"] is None


def test_a_control_that_lacks_is_said(folder, call, project):
    assert call("report", folder, "-o", "r.html") == 0
    assert "the sweep has none" in (project / "r.html").read_text()


def test_failed_and_lacking_cells_are_said(folder, call, project, capsys):
    store = Store(folder)
    bare = next(x for x in store.read().values() if x["arm"] == "plain")
    store.append(bare | {"unmeasured": {"psnr": "the value is <nan>"}, "metrics": {}})
    line = next(x for x in store.read().values() if x["arm"] == "euler")
    kept = {k: line[k] for k in ("cell", "arm", "prompt", "seed")}
    store.append({**kept, "status": "failed", "error": "out of <memory>", "wall": 1.0})
    assert call("report", folder, "-o", "r.html") == 0
    page = (project / "r.html").read_text()
    assert "psnr has no value in 1 cell. plain: the value is &lt;nan&gt;" in page
    assert "31 of 32 cells done" in page and "out of &lt;memory&gt;" in page


def test_the_front_is_what_nothing_beats():
    points = [(1, 5), (2, 3), (3, 4), (4, 1), (4, 2)]
    assert compare.pareto(points, higher=False) == [(1, 5), (2, 3), (4, 1)]
    assert compare.pareto(points, higher=True) == [(1, 5)]


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (-3, 250, False), (1e-4, 2e-4, False), (0.1, 900, True)]
)
def test_ticks_are_few_round_and_inside(low, high, log):
    axis = svg.Axis("x", low, high, log)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8 and all(low <= t <= high * (1 + 1e-9) for t in ticks)
    shares = [axis.share(t) for t in ticks]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1 + 1e-9


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.12345, "0.123"), (1e-7, "1e-7"), (1234.5, "1234")]
)
def test_numbers_are_short(value, text):
    assert svg.number(value) == text


def test_what_differs_by_rounding_stands_in_one_place():
    axis = svg.Axis.over("bits", [4.41, 4.41 + 1e-15])
    assert axis.share(4.41) == pytest.approx(axis.share(4.41 + 1e-15), abs=1e-6)
    assert len(axis.ticks()) < 10


def test_a_run_has_a_page_of_its_own(project, call):
    pytest.importorskip("av")
    assert call("run", "fake.yaml", "-p", "a <ball>", "-o", "out.mp4") == 0
    assert call("report", "out.run", "-o", "run.html") == 0
    page = (project / "run.html").read_text()
    assert "data:video/mp4;base64," in page and "a &lt;ball&gt;" in page
    assert "unipc" in page and "<svg" in page


def without(*path):
    def change(content):
        for part in path[:-1]:
            content = content[part]
        del content[path[-1]]

    return change


def replaced(value, *path):
    def change(content):
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(without("steps", 2, "sigma"), "steps.2.sigma: field required", id="key"),
        pytest.param(replaced("much", "steps", 0, "seconds"), "steps.0.seconds: input", id="type"),
        pytest.param(replaced(float("nan"), "steps", 0, "sigma"), "steps.0.sigma", id="nan"),
        pytest.param(replaced([], "phases"), "phases: list should have", id="no phases"),
        pytest.param(replaced(None, "phases", 0, "sampler"), "phases.0.sampler", id="null"),
        pytest.param(replaced([1], "inputs"), "inputs: input should be", id="list"),
        pytest.param(replaced({"steps": []}, "timings"), "timings.steps: input", id="timings"),
        pytest.param(replaced(7, "out"), "out: input should be", id="out"),
        pytest.param(without("schedule"), "schedule: field required", id="section"),
    ],
)
def test_a_damaged_record_of_a_run_is_told_in_one_line(project, call, capsys, change, said):
    assert call("run", "fake.yaml", "-p", "x", "-o", "out.safetensors") == 0
    record = project / "out.run" / "run.json"
    content = json.loads(record.read_text())
    change(content)
    record.write_text(json.dumps(content))
    capsys.readouterr()
    assert call("report", "out.run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gatekit: out.run/run.json: the record of this run is damaged: " + said)
    assert not (project / "report.html").exists()


@pytest.mark.parametrize(
    ("size", "said"), [(0, "is damaged: no JSON"), (500, "is damaged: no JSON")]
)
def test_a_torn_record_of_a_run(project, call, capsys, size, said):
    assert call("run", "fake.yaml", "-p", "x", "-o", "out.safetensors") == 0
    record = project / "out.run" / "run.json"
    record.write_bytes(record.read_bytes()[:size])
    capsys.readouterr()
    assert call("report", "out.run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["run.json", "sweep.json"])
@pytest.mark.parametrize("kind", ["brackets", "pipe"])
def test_a_record_that_would_crash_or_hang_its_reader(tmp_path, call, capsys, name, kind):
    record = tmp_path / "out.run" / name
    record.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(record)
    else:
        record.write_text("[" * 200_000)
    assert call("report", str(record.parent)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"gatekit: {record.parent}")


def test_loading_is_a_part_of_the_steps(project, call):
    assert call("run", "fake.yaml", "-p", "x", "-o", "out.safetensors") == 0
    assert call("report", "out.run", "-o", "run.html") == 0
    rows = re.findall(
        r"<tr><td>([^<]+)</td><td>[^<]*</td></tr>", (project / "run.html").read_text()
    )
    at = rows.index("steps and loading")
    assert rows[at + 1 : at + 3] == ["of these loading coarse", "of these loading fine"]
    assert not [row for row in rows if row.startswith("loading")] and "total" in rows


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no such folder"),
        (["fake.yaml"], "a file, where a folder was expected"),
        (["."], "neither a run folder nor the folder of a sweep"),
        (["known.sweep", "-o", "no/r.html"], "no such folder"),
        (["known.sweep", "-o", "."], "a folder of this name exists"),
    ],
)
def test_what_cannot_be_reported_is_told(project, call, capsys, arguments, said):
    assert call("report", *arguments) == 2
    assert said in capsys.readouterr().err
    assert not (project / "report.html").exists()


def test_a_metric_that_the_sweep_no_longer_asks_for_is_left_out(folder, call, project):
    fewer = SWEEP.replace("latent_rmse, x0_divergence, psnr", "latent_rmse")
    (project / "known.yaml").write_text(fewer)
    assert call("sweep", "known.yaml") == 0
    assert results.read_results(folder).metrics == ["latent_rmse"]
    assert call("report", folder, "-o", "r.html") == 0
    page = (project / "r.html").read_text()
    assert "latent_rmse" in page and "psnr" not in page and "x0_divergence" not in page


@pytest.mark.parametrize("about", ["[]", "{}", '{"arms": []}', '{"arms": [{"name": "a"}]}', "{"])
def test_a_file_of_that_name_that_tells_of_no_sweep(project, call, capsys, about):
    (project / "other").mkdir()
    (project / "other" / "sweep.json").write_text(about)
    assert call("report", "other") == 2
    assert "no folder of a sweep" in capsys.readouterr().err


def test_a_sweep_without_a_finished_cell(project, call, capsys):
    Store(project / "empty").begin({"arms": [{"name": "a", "cells": {}, "compared": True}]})
    assert call("report", "empty") == 2
    assert "no cell of this sweep is done" in capsys.readouterr().err


def test_jinja_that_is_not_there_is_told(folder, call, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    assert call("report", folder) == 2
    assert "the extra 'report'" in capsys.readouterr().err


def test_a_browser_shows_it_at_both_widths_in_both_schemes_and_plays(project, call, browser):
    pytest.importorskip("av")
    text = SWEEP.replace("seeds: 1", "seeds: 1\nkeep: [video]").replace(
        "[b, ba, bal,", "[%s," % ("b" * 160)
    )
    (project / "known.yaml").write_text(text)
    assert call("sweep", "known.yaml") == 0
    assert call("report", "known.sweep", "-o", "sweep.html") == 0
    assert call("run", "fake.yaml", "-p", "a ball", "-o", "out.mp4") == 0
    assert call("report", "out.run", "-o", "run.html") == 0
    for name in ("sweep.html", "run.html"):
        for width in (400, 1280):
            for dark in (False, True):
                browser.open(project / name, width, dark=dark)
                wide = browser.ask("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} overflows at {width}"
                paper = browser.ask("getComputedStyle(document.body).backgroundColor")
                shade = sum(int(v) for v in re.findall(r"\d+", paper)[:3]) / 3
                assert (shade < 60) == dark
                assert browser.complaints() == []
                assert browser.requests() == [(project / name).absolute().as_uri()]
        if name == "sweep.html":  # what is out of sight does not begin by itself
            browser.ask("document.getElementById('again').click()")
        waited = """new Promise(done => {
            const all = [...document.querySelectorAll("video")]; let left = 200;
            const look = () => all.length && all.every(v => v.played.length && !v.error)
                ? done(all.length) : left-- ? setTimeout(look, 50) : done(-1); look(); })"""
        assert browser.ask(waited) == (16 if name == "sweep.html" else 1)
        assert browser.complaints() == []


def test_the_store_of_a_report_is_plain_json(folder):
    about = json.loads((folder / "sweep.json").read_text())
    assert about["metrics"]["psnr"]["higher_is_better"] is True
