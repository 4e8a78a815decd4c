"""The study of precision gating: weights, arms, resuming, tables; on untrained weights, small."""

import json
import math

import pytest

import gatekit
from gatekit_research.report.results import ArmResults, read_results
from gatekit_tinywan.gating import __main__ as command
from gatekit_tinywan.gating import arms, tables
from gatekit_tinywan.gating.setup import Options, plan_of
from gatekit_tinywan.gating.weights import KINDS, Files

COUNTS = (4, 5, 11)


def call(weights, out, *arguments):
    fixed = ["--models-dir", str(weights[0]), "--video", "16x16x9", "--steps", "4"]
    fixed += ["--device", "cpu", "--no-importance", "--out", str(out), "--only", "^(gate|text Q4)$"]
    return command.main([*fixed, *arguments])


def test_one_command_makes_runs_goes_on_and_prints(weights, tmp_path, capsys):
    out = tmp_path / "gating"
    assert call(weights, out, "--dry-run", "--prompts", "2") == 0
    said = capsys.readouterr().out
    assert "3 arms, 12 videos, 48 evaluations" in said and not out.exists()

    some = ["--prompts", "1", "--seeds", "2", "--batch", "2"]
    assert call(weights, out, *some, "--seconds", "0") == 1
    assert "videos left: 6" in capsys.readouterr().err
    assert call(weights, out, *some) == 0
    shown = capsys.readouterr().out
    assert "| text Q4 - fp16 |" in shown and "| fp16 - gate |" in shown
    lines = (out / "results.jsonl").read_text()
    assert len(lines.splitlines()) == 6
    assert call(weights, out, *some) == 0  # nothing left to do
    assert (out / "results.jsonl").read_text() == lines
    assert call(weights, out, "--markdown") == 0

    found = {arm.name: arm for arm in read_results(out).arms}
    assert set(found["fp16"].values("latent_rmse").values()) == {0.0}
    assert min(found["gate"].values("latent_rmse").values()) > 0
    assert min(found["text Q4"].values("latent_rmse").values()) > 0
    line = next(json.loads(x) for x in lines.splitlines() if json.loads(x)["arm"] == "gate")
    assert line["nfe"] == 4 and line["passes"] == 8

    # Counted bits are those of the files' headers.
    files = Files(out, [weights[0]])
    for kind in KINDS:
        arm = arms.Arm(kind, "precision", arms.parts_of([kind] * 3), ("unipc",) * 3)
        plan = plan_of(arm, Options(folders=files.folders))
        for facts in plan.facts.values():
            assert facts.bits_per_weight == pytest.approx(files.bits(kind), abs=1e-9)


def test_files_are_found_as_those_of_schedules(weights, tmp_path, monkeypatch):
    shipped = Files(tmp_path)
    monkeypatch.setenv("GATEKIT_MODELS", str(weights[0]))
    named = Files(tmp_path)
    assert (
        named.find("tinywan_high_fp16.safetensors") == weights[0] / "tinywan_high_fp16.safetensors"
    )
    assert named.made != shipped.made  # made from other files
    plan = plan_of(
        arms.Arm("fp16", "precision", arms.parts_of(["fp16"] * 3), ("unipc",) * 3), Options()
    )
    assert plan.variants[plan.phases[0].variant].files()[0].parent == weights[0]
    other = tmp_path / "other" / "diffusion_models"  # as ComfyUI has them
    other.mkdir(parents=True)
    for file in weights[0].glob("*fp16*"):
        (other / file.name).symlink_to(file)
    assert Files(tmp_path, [other.parent]).find("tinywan_low_fp16.safetensors").parent == other
    with pytest.raises(gatekit.InputError, match="no such folder"):
        Files(tmp_path, [tmp_path / "nowhere"])


def test_the_gate_is_that_of_quickstart():
    given = gatekit.load_schedule("schedules/quickstart.yaml")
    plan = gatekit.resolve(given)
    made = arms.Arm("gate", "precision", arms.parts_of(arms.GATE_KINDS), ("unipc",) * 3)
    own = plan_of(made, Options())
    assert [p.sigmas for p in own.phases] == [p.sigmas for p in plan.phases]
    assert [own.variants[p.variant].files() for p in own.phases] == [
        plan.variants[p.variant].files() for p in plan.phases
    ]


def test_controls_spend_the_bits_of_the_gate(weights, tmp_path):
    bits = Files(tmp_path, [weights[0]]).bits
    aim = arms.mean_bits(arms.GATE_KINDS, COUNTS, bits)
    for kinds in arms.controls(arms.GATE_KINDS, COUNTS, bits):
        assert abs(arms.mean_bits(kinds, COUNTS, bits) - aim) < arms.NEAR * aim
        assert kinds != arms.GATE_KINDS
    names = [arm.name for arm in arms.arms_of(COUNTS, bits)]
    assert len(set(names)) == len(names) == 22 and names[0] == "fp16"


def results(name, right, mark=1.0):
    lines = {
        key: {"metrics": {"caption.all_right": v, "caption.mark": mark, "latent_rmse": v}}
        for key, v in right.items()
    }
    return ArmResults(name, 0, {"case": "precision", "baseline": "gate"}, lines, {})


def test_differences_flips_and_marks():
    keys = [(p, s) for p in range(40) for s in range(2)]
    gate = results("gate", dict.fromkeys(keys, 0.0))
    better = results("better", {k: float(k[0] < 20) for k in keys})
    found = tables.difference(
        tables.values(better, tables.RIGHT, set()), tables.values(gate, tables.RIGHT, set()), 100.0
    )
    assert found.mean == 50.0 and (found.gained, found.lost) == (40, 0)
    assert found.low < 50 < found.high and found.p < 0.001 and 0 < found.detectable < 50
    assert tables.flips(better, gate) == 0.5
    assert len(tables.values(better, tables.MARK, {3, 4})) == 4
    low, high = tables.share_interval(tables.values(gate, tables.RIGHT, set()))
    assert low == 0.0 and high == pytest.approx(1 - 0.025 ** (1 / 40))
    assert math.isnan(tables.flips(better, results("none", {})))


def test_captions_that_name_a_mark():
    plain = "a small green cross moves up slowly and stays apart from a large red circle moving "
    plain += "right quickly on a dark background"
    marked = plain.replace("green cross", "green cross with a black dot")
    assert tables.marked([plain, marked]) == {1}


def test_bad_input_is_one_line(weights, tmp_path, capsys):
    assert call(weights, tmp_path, "--profile", str(tmp_path / "no.json"), "--dry-run") == 2
    assert "no readable profile" in capsys.readouterr().err
    assert command.main(["--markdown", "--out", str(tmp_path / "none")]) == 2
    assert "no folder of a sweep" in capsys.readouterr().err
