"""``gatekit bench`` on a CPU with the small model: every part, and what a failing one leaves."""

import json

import pytest
import torch
from graph_recorder import Recorder

from gatekit.cli import call
from gatekit_bench import part_dequantise, part_gated, part_run
from gatekit_bench.clock import Clock
from gatekit_bench.findings import Findings, LeftOut, Row
from gatekit_bench.lab import FP8, FP8_ALL, PLAIN, Lab
from gatekit_bench.session import parts_of
from gatekit_bench.sizes import SIZES, matrices
from gatekit_wan22 import passes

SMALL = ["bench", "--size", "tinywan", "--tokens", "64", "--tokens", "16", "--device", "cpu"]
SMALL += ["--variants", "Q2_K", "--variants", "Q8_0", "--variants", "fp8"]
PARTS = ["rates", "dequantise", "forward 64", "gated", "forward 16", "loading", "memory", "run"]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    assert call([*SMALL, "--seconds", "300", "--json", str(file)]) == 0
    return json.loads(file.read_text())


def rows(told, part):
    (found,) = (p for p in told["parts"] if p["name"] == part)
    return {row["what"]: row for row in found["rows"]}


def test_every_part_is_done(told):
    assert {p["name"]: (p["status"], p["why"]) for p in told["parts"]} == dict.fromkeys(
        PARTS, ("done", "")
    )


def test_device_versions_and_sizes_are_named(told):
    assert told["device"]
    assert told["versions"]["torch"] == torch.__version__
    assert told["layers measured"] == told["sizes"]["layers"] == 5


def test_figures_are_beside_their_bound(told):
    decoded = rows(told, "dequantise")["50 matrices of Q2_K to fp32"]
    assert decoded["ratio"] == pytest.approx(decoded["value"] / decoded["bound"])
    passes = rows(told, "forward 64")
    assert all(row["bound"] > 0 for what, row in passes.items() if "eager" in what)


@pytest.mark.parametrize(
    ("device", "fp8", "width"), [("cpu", False, 4), ("cuda", False, 2), ("cuda", True, 1)]
)
def test_no_pass_is_faster_than_reading_its_weights_once(device, fp8, width, tmp_path):
    sizes = SIZES["tinywan"]
    lab = Lab(
        sizes, sizes, device, "bf16", tmp_path, [16], ["Q2_K"], Findings({}, 0.0), Clock(device)
    )
    lab.rates |= {"matmul": 1e30, "fp8": 1e30, "copy": 100.0}
    assert lab.bound(16, fp8) == pytest.approx(width * matrices(sizes) / 100.0)


def test_models_of_the_same_weights_agree_with_diffusers(told):
    for part, tokens in (("forward 64", 64), ("forward 16", 16)):
        found = rows(told, part)
        for name in ("fp32", "Q2_K"):
            row = found[f"{tokens} tokens, {name}, relative difference from diffusers fp32"]
            assert 0 < row["value"] < 1e-4


def test_passes_of_few_tokens_are_measured_as_graphs_too(told, tmp_path, monkeypatch):
    assert not any("graph" in what for what in rows(told, "forward 16"))  # a CPU has none
    recorder = Recorder()
    monkeypatch.setattr(passes, "capture_on", lambda device: recorder)
    monkeypatch.setattr(passes, "MOST", 16)
    file = tmp_path / "bench.json"
    chosen = [arg for part in ("rates", "forward") for arg in ("--part", part)]
    assert call([*SMALL, *chosen, "--json", str(file)]) == 0
    both = json.loads(file.read_text())
    assert not any("graph" in what for what in rows(both, "forward 64"))
    found = rows(both, "forward 16")
    for name in ("fp32", "Q2_K", "Q8_0"):
        assert found[f"16 tokens, {name}, eager, a graph's relative difference"]["value"] == 0
        row = found[f"16 tokens, {name}, eager, as a graph"]
        assert row["value"] > 0 and row["bound"] > 0
        assert (row["ratio"] is None) is (name == "fp32")
    assert recorder.captured == 3 and recorder.replayed > 3


def test_what_cannot_be_captured_has_no_figures_as_a_graph(monkeypatch, capsys):
    def capture(work):
        raise RuntimeError("no graphs here")

    monkeypatch.setattr(passes, "capture_on", lambda device: capture)
    chosen = [arg for part in ("rates", "forward 16") for arg in ("--part", part)]
    assert call([*SMALL, *chosen]) == 0
    out = capsys.readouterr().out
    assert "Q2_K as a graph left out: it could not be captured" in out
    assert "eager, as a graph" not in out and "eager: " in out


def test_the_gated_run_is_the_sum_of_its_passes(told):
    (whole, ours) = rows(told, "gated").values()
    passes = rows(told, "forward 64")
    gate = part_gated.gate()
    each = {n: passes[f"64 tokens, {n}, eager"]["value"] / 1e3 for n in ("Q2_K", "Q8_0", "fp32")}
    total = gate.commit * each["Q2_K"] + gate.structure * each["Q8_0"] + gate.polish * each["fp32"]
    assert ours["value"] == pytest.approx(total)
    assert ours["ratio"] == pytest.approx(ours["value"] / whole["value"])
    assert "sum of measured passes" in ours["note"]


def test_the_gate_is_the_plans():
    gate = part_gated.gate(steps=20)
    assert gate.total == 40  # two passes of guidance a step
    assert (gate.commit, gate.structure) == (8, 8)  # 1 to above 0.96, to above 0.9, at shift 5


def test_a_part_that_fails_is_recorded_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def broken(lab):
        lab.findings.add(Row("half a figure", 1.0, "s"))
        raise RuntimeError("no kernel")

    monkeypatch.setattr(part_dequantise, "dequantise", broken)
    file = tmp_path / "bench.json"
    chosen = [arg for part in ("rates", "dequantise", "gated") for arg in ("--part", part)]
    assert call([*SMALL, *chosen, "--json", str(file)]) == 1
    found = {p["name"]: p for p in json.loads(file.read_text())["parts"]}
    assert {name: part["status"] for name, part in found.items()} == {
        "rates": "done",
        "dequantise": "failed",
        "gated": "left out",  # nothing it could add up was measured
    }
    assert found["dequantise"]["why"] == "RuntimeError: no kernel"
    assert found["dequantise"]["rows"][0]["what"] == "half a figure"
    assert "in broken" in "".join(found["dequantise"]["traceback"])
    assert "parts that failed: dequantise" in capsys.readouterr().err


def test_a_part_that_needs_another_names_it(capsys):
    assert call([*SMALL, "--part", "run"]) == 0
    assert "left out: the rates of this device were not measured; add --part rates" in (
        capsys.readouterr().out
    )


def test_when_time_is_up_parts_are_left_out_and_named(capsys):
    assert call([*SMALL, "--seconds", "1"]) == 0
    out = capsys.readouterr().out
    assert "memory\n  left out: memory: about 1 s" in out


def test_what_is_found_is_on_disk_after_each_part(tmp_path):
    file = tmp_path / "bench.json"
    findings = Findings({"device": "none"}, until=0.0, file=file, say=lambda _: None)
    with findings.part("one"):
        findings.add(Row("a", 1.0, "s"))
    assert [p["status"] for p in json.loads(file.read_text())["parts"]] == ["done"]
    with findings.part("two"):
        raise LeftOut("no GPU")
    with pytest.raises(KeyboardInterrupt), findings.part("three"):
        raise KeyboardInterrupt
    parts = json.loads(file.read_text())["parts"]
    assert [p["status"] for p in parts] == ["done", "left out", "interrupted"]
    assert findings.failed == []


@pytest.mark.parametrize(
    ("row", "text"),
    [
        pytest.param(Row("a", 2.0, "ms"), "  a: 2 ms", id="alone"),
        pytest.param(
            Row("a", 2.0, "ms", 1.0, ratio=2.0, aim=1.3),
            "  a: 2 ms, bound 1, 2.000 x the bound (aim 1.3: missed by 54%)",
            id="bound and aim",
        ),
        pytest.param(
            Row("a", 2.0, "s", over="b", ratio=0.5, aim=0.6, note="n"),
            "  a: 2 s, 0.500 x b (aim 0.6: met) [n]",
            id="over another",
        ),
    ],
)
def test_a_row_reads(row, text):
    assert str(row) == text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--size", "a15b"], "unknown size", id="size"),
        pytest.param(["--variants", "Q9_K"], "no such variant", id="variant"),
        pytest.param(["--variants", "fp8"], "no GGUF type", id="fp8 alone"),
        pytest.param(["--tokens", "521"], "no video has so many tokens", id="prime"),
        pytest.param(["--files", "nowhere"], "no such folder", id="folder"),
        pytest.param(["--files", __file__], "a file, where a folder was expected", id="file"),
        pytest.param(["--json", "nowhere/x.json"], "nowhere", id="json"),
        pytest.param(["--device", "cuda:9"], "another one: --device cpu", id="device"),
        pytest.param(["--device", "gpu"], "--device: no such device (got 'gpu')", id="no device"),
        pytest.param(["--part", "memry"], "one of rates, dequantise, forward 510", id="part"),
    ],
)
def test_what_cannot_be_is_refused_at_once(options, message, capsys):
    assert call(["bench", "--size", "tinywan", "--seconds", "1", *options]) == 2
    assert message in capsys.readouterr().err


def test_interrupted_it_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    def interrupted(lab):
        raise KeyboardInterrupt  # a signal may be ignored where tests run in the background

    monkeypatch.setattr(part_dequantise, "dequantise", interrupted)
    file, files = tmp_path / "bench.json", tmp_path / "files"
    files.mkdir()
    assert call([*SMALL, "--json", str(file), "--files", str(files)]) == 130
    assert capsys.readouterr().err == f"gatekit: interrupted; {file} has what was measured\n"
    parts = json.loads(file.read_text())["parts"]
    assert [p["why"] for p in parts] == ["", "interrupted"]
    assert not list(files.iterdir())


def test_the_small_model_is_measured_at_sizes_that_a_laptop_has_time_for(tmp_path):
    file = tmp_path / "bench.json"
    small = ["bench", "--size", "tinywan", "--device", "cpu", "--part", "rates"]
    assert call([*small, "--json", str(file)]) == 0
    assert json.loads(file.read_text())["tokens"] == [510, 252]


def test_a_run_from_its_files_takes_its_steps_and_what_it_loads(told):
    whole, rest = rows(told, "run").values()
    assert "from files" in whole["note"] and 0 < rest["value"] < whole["value"]
    peer = rows(told, "gated")["20 steps with guidance, 40 passes, diffusers fp32, two experts"]
    (load,) = (r["value"] for w, r in rows(told, "loading").items() if w.startswith("loading diff"))
    assert whole["ratio"] == pytest.approx(whole["value"] / (peer["value"] + 2 * load))


def test_a_run_without_diffusers_figures_has_no_ratio(tmp_path):
    file = tmp_path / "bench.json"
    assert call([*SMALL, "--part", "run", "--part", "rates", "--json", str(file)]) == 0
    whole, _ = rows(json.loads(file.read_text()), "run").values()
    assert whole["value"] > 0 and whole["ratio"] is None


@pytest.mark.parametrize(
    ("name", "compute", "attention"),
    [(FP8_ALL, "fp8", "cudnn_fp8"), (FP8, "fp8", None), (PLAIN, "bf16", None)],
)
def test_phases_of_a_run_compute_as_its_name_says(name, compute, attention, tmp_path):
    sizes = SIZES["tinywan"]
    lab = Lab(
        sizes, sizes, "cuda", "bf16", tmp_path, [252], ["Q2_K"], Findings({}, 0.0), Clock("cpu")
    )
    files = [tmp_path / n for n in ("a.gguf", "b.gguf", "c.safetensors")]
    phases = part_run.schedule(lab, name, files).phases
    assert [p.compute for p in phases] == [compute] * 3
    assert {p.attention for p in phases} == {attention or phases[0].attention}
    assert attention is None or phases[0].attention == attention


def test_a_run_with_loading_is_its_passes_and_its_loads(told):
    loads, passes = rows(told, "loading"), rows(told, "gated")
    took = [row["value"] for what, row in loads.items() if what.startswith("loading ")]
    (whole,) = (row["value"] for what, row in loads.items() if "loading included" in what)
    (run,) = (row["value"] for what, row in passes.items() if "Q2_K" in what)
    assert len(took) == 4 and min(took) > 0
    assert whole == pytest.approx(run + sum(took[1:]))


def test_loads_alone_say_that_there_is_no_run_to_add_them_to(capsys):
    assert call([*SMALL, "--part", "loading"]) == 0
    out = capsys.readouterr().out
    assert "no run with its loads" in out and "loading included" not in out


def test_on_a_gpu_what_is_asked_most_comes_first(tmp_path):
    findings = Findings({}, until=0.0)
    sizes, given = SIZES["tinywan"], (tmp_path, [64, 16], ["Q2_K", "fp8"], findings, Clock("cuda"))
    parts = parts_of(Lab(sizes, sizes, "cuda", "bf16", *given))
    assert [part.name for part in parts] == [
        *("rates", "dequantise", "forward 64", "compiled 64", "gated", "forward 16"),
        *("again compiled", "loading", "memory", "run", "compiled 16"),
    ]


def test_a_bound_that_is_beaten_is_said_to_be_too_high():
    assert "beaten" in str(Row("a pass", 0.9, "ms", bound=1.0))
    assert "beaten" not in str(Row("a pass", 0.99, "ms", bound=1.0))
    assert "beaten" not in str(Row("most device memory", 9.0, "GiB", bound=10.0))
