"""The commands say what is wrong in a line, and end with 2."""

from pathlib import Path

import pytest

pytest.importorskip("diffusers")

from gatekit_tinywan import evaluate
from gatekit_tinywan.study import __main__ as study
from gatekit_tinywan.study.bench import Bench
from gatekit_tinywan.study.cell import Cell
from gatekit_tinywan.study.dry import count
from gatekit_tinywan.study.sets import SETS

SCHEDULES = Path(__file__).parents[3] / "schedules"


def test_evaluate_of_a_file_that_is_not_there(tmp_path, capsys):
    assert evaluate.main([str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: cannot read the schedule" in capsys.readouterr().err


def test_evaluate_of_another_model(capsys):
    assert evaluate.main([str(SCHEDULES / "wan22_t2v_3phase.yaml")]) == 2
    assert "only schedules of the small model can be judged" in capsys.readouterr().err


def test_evaluate_plans_every_schedule_before_it_runs_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: pytest.fail("it ran one"))
    both = [SCHEDULES / "tinywan_fp16.yaml", tmp_path / "no.yaml"]
    assert evaluate.main([str(path) for path in both]) == 2
    assert "no.yaml: cannot read the schedule" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clips", "0"], "0: a whole number from 1 on"),
        (["--batch", "-1"], "-1: a whole number from 1 on"),
        (["--device", "foo"], "no such device (got 'foo')"),
        (["--device", "cuda:99"], "torch cannot use this device"),
    ],
)
def test_evaluate_of_what_cannot_be(arguments, said, capsys):
    try:
        code = evaluate.main([str(SCHEDULES / "tinywan_fp16.yaml"), *arguments])
    except SystemExit as end:
        code = end.code
    assert code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no such set"),
        (["table", "--only", "("], "no regular expression"),
        (["table", "--evaluations", "9"], "9: of 8, 12, 20, 40"),
        (["table", "--evaluations", "8,x"], "8,x: of 8, 12, 20, 40"),
        (["table", "--prompts", "0"], "0: a whole number from 1 on"),
        (["table", "--batch", "-2"], "-2: a whole number from 1 on"),
        (["table", "--reference-steps", "13"], "13: a whole number from 14 on"),
        (["table", "--device", "foo", "--dry-run"], "no such device (got 'foo')"),
        (["table", "--device", "cuda:99"], "torch cannot use this device"),
        (["table", "--set", "sigmas.stepz=3", "--dry-run"], "stepz"),
    ],
)
def test_study_of_what_is_not_there(arguments, said, capsys):
    try:
        code = study.main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    captured = capsys.readouterr()
    assert said in captured.err and not captured.out


@pytest.mark.parametrize("arguments", [[], ["--tf32", "--no-judge"]])
def test_a_study_of_no_set_prints_what_there_is(arguments, capsys, tmp_path):
    out = tmp_path / "study"
    assert study.main([*arguments, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    said = captured.err.splitlines()
    assert "--all" in said[0] and [line.split()[0] for line in said[1:-1]] == [*SETS, "--all"]
    assert not captured.out and not out.exists()


@pytest.mark.parametrize("named", [["--all"], ["all"]])
def test_all_sets_have_to_be_asked_for(named, capsys):
    one = ["--only", "^restart 0.1 to 0.4$", "--dry-run", "--device", "cpu"]
    assert study.main([*named, *one]) == 0
    assert "2 cells:" in capsys.readouterr().out


def test_a_set_costs_what_its_plans_say(capsys):
    cells = ["--only", "^(unipc|the three, fitted)$", "--prompts", "3"]
    assert study.main(cells) == 2
    listed = capsys.readouterr().err
    assert study.main(["table", *cells, "--dry-run", "--device", "cpu"]) == 0
    total = capsys.readouterr().out.splitlines()[-1].split()[2]
    assert f"  table         8 cells, at most {int(total):9,} evaluations" in listed


def test_what_a_study_costs(capsys):
    rows = ["grids", "--only", "^(unipc|polish, curvature 0.05)$", "--evaluations", "8"]
    assert study.main([*rows, "--dry-run", "--device", "cpu", "--prompts", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "2 cells: 16 evaluations a prompt, 32 passes of a model",
        "references fp16: 600 evaluations a prompt",
        "fine runs of fp16: 1920 evaluations, once",
        "1 prompt: 2536 evaluations, 3 videos to judge",
    ]


def test_cells_that_cannot_be_planned_are_counted_apart():
    bad = Cell("bad", 8, changes={"phases.low.sampler": "no_such"})
    good = Cell("good", 8)
    lines = list(count(Bench("cpu"), [bad, good, good], 2, 40, judge=False))
    assert "bad @ 8: cannot be planned" in lines[0] and "no_such" in lines[0]
    assert lines[2:] == [
        "1 cell: 8 evaluations a prompt, 16 passes of a model",
        "1 cell cannot be planned, and would fail",
        "references fp16: 60 evaluations a prompt",
        "2 prompts: 136 evaluations",
    ]
