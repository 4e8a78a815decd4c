"""The commands say what is wrong in a line, and end with 2."""

from pathlib import Path

import pytest

pytest.importorskip("diffusers")

from gatekit_tinywan import evaluate
from gatekit_tinywan.study import __main__ as study

SCHEDULES = Path(__file__).parents[3] / "schedules"


def test_evaluate_of_a_file_that_is_not_there(tmp_path, capsys):
    assert evaluate.main([str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: cannot read the schedule" in capsys.readouterr().err


def test_evaluate_of_another_model(capsys):
    assert evaluate.main([str(SCHEDULES / "wan22_t2v_3phase.yaml")]) == 2
    assert "only schedules of the small model can be judged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "no such set"),
        (["table", "--only", "("], "no regular expression"),
        (["table", "--evaluations", "9"], "9: of 8, 12, 20, 40"),
    ],
)
def test_study_of_what_is_not_there(arguments, said, capsys):
    try:
        code = study.main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert said in capsys.readouterr().err
