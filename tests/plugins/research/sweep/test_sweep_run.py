"""Sweeps that run: every cell once, whatever interrupts them, each as a run of its own would be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import gatekit
from gatekit_research.sweep import cells as cells_module
from gatekit_research.sweep.setup import Setup
from gatekit_research.sweep.store import Store

TESTS = Path(__file__).parents[3]


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _fresh():
    cells_module.identity.cache_clear()


def test_every_cell_is_what_a_run_of_its_own_makes(sweep, call, project, capsys):
    file = sweep()
    assert call(file) == 0
    captured = capsys.readouterr()
    assert captured.out == "small.sweep\n" and "10 cells run, 0 were there" in captured.err
    found = lines(project / "small.sweep")
    assert len({line["cell"] for line in found}) == len(found) == 10
    setup = Setup.of(file)
    for cell in setup.cells:
        line = next(line for line in found if line["cell"] == cell.digest)
        alone = gatekit.run(cell.arm.plan, cell.inputs)
        kept = load_file(project / "small.sweep" / "latents" / f"{cell.digest}.safetensors")
        assert torch.equal(kept["latent"], alone.latent)
        assert line["nfe"] == cell.arm.plan.nfe and line["passes"] == cell.arm.plan.passes
        assert line["bits"] == 64.0 and set(line["metrics"]) == set(line["asked"])
        assert [b["phase"] for b in line["rho"]] == ["low"]
        if cell.arm.name == "reference":
            assert line["metrics"] == {"latent_rmse": 0.0, "x0_divergence": 0.0, "psnr": 100.0}
            reference = alone.latent if cell.prompt == 0 else reference_of(found, project, 0)
        elif cell.prompt == 0:
            apart = (alone.latent - reference).square().mean().sqrt()
            assert line["metrics"]["latent_rmse"] == pytest.approx(float(apart), rel=1e-5)
            assert len(line["curves"]["x0_divergence"]) == len(alone.trajectory)


def reference_of(found, project, prompt):
    (line,) = (x for x in found if x["arm"] == "reference" and x["prompt"] == prompt)
    return load_file(project / "small.sweep" / "latents" / f"{line['cell']}.safetensors")["latent"]


def test_arms_share_the_noise_of_prompt_and_seed(sweep):
    setup = Setup.of(sweep(("seeds: 1", "seeds: 2")))
    seeds = {}
    for cell in setup.cells:
        seeds.setdefault((cell.prompt, cell.seed), set()).add(cell.inputs.seed)
    assert all(len(of) == 1 for of in seeds.values())
    assert len(set.union(*seeds.values())) == 4
    shared = Setup.of(sweep(("seeds: 1", "seeds: [7]\nnoise: seed")))
    assert {cell.inputs.seed for cell in shared.cells} == {7}


def test_weights_are_loaded_once_and_prompts_encoded_once(sweep, call, fake):
    fake.LOG.clear()
    assert call(sweep()) == 0
    assert [e for e in fake.LOG if e.startswith("load")] == ["load coarse", "load fine"]
    assert fake.LOG.count("encode") == 2


def test_what_is_done_is_skipped_and_what_changed_runs(sweep, call, project, capsys):
    assert call(sweep()) == 0
    before = (project / "small.sweep" / "results.jsonl").read_text()
    assert call(sweep(("name: small", "name: small\n# a comment"))) == 0
    assert (project / "small.sweep" / "results.jsonl").read_text() == before
    assert call(sweep(("[6, 8]", "[6, 8, 9]"))) == 0
    assert "4 cells run, 10 were there" in capsys.readouterr().err
    (project / "fine.num").write_text('{"gain": 0.9}')
    cells_module.identity.cache_clear()
    assert call(sweep()) == 0
    assert "10 cells run, 0 were there" in capsys.readouterr().err


def test_other_code_of_a_plugin_is_another_cell(sweep, monkeypatch):
    from gatekit_research.sweep import sources

    before = [cell.digest for cell in Setup.of(sweep()).cells]
    assert before == [cell.digest for cell in Setup.of(sweep()).cells]
    real = sources.source_of
    changed = lambda name: (name, "9", "x") if name == "gatekit_samplers" else real(name)  # noqa: E731
    monkeypatch.setattr(sources, "source_of", changed)
    assert not set(before) & {cell.digest for cell in Setup.of(sweep()).cells}


def test_a_new_metric_is_measured_from_the_latents(sweep, call, project, fake):
    assert call(sweep()) == 0
    fake.LOG.clear()
    assert call(sweep((", psnr]", ", psnr, ssim, spectrum_spatial]"))) == 0
    assert not [e for e in fake.LOG if e.startswith("load")]
    last = {line["cell"]: line for line in lines(project / "small.sweep")}
    assert all({"ssim", "psnr", "x0_divergence"} <= set(x["metrics"]) for x in last.values())
    assert len(lines(project / "small.sweep")) == 20
    assert call(sweep((", psnr]", ", psnr, ssim, spectrum_spatial]"))) == 0
    assert len(lines(project / "small.sweep")) == 20


def test_a_cell_that_fails_is_told_and_the_others_go_on(
    sweep, call, project, capsys, fake, monkeypatch
):
    real = fake.Number.velocity

    def breaking(self, x, sigma, conditioning):
        if conditioning.value == len("a longer ball") / 50 and sigma < 0.5:
            raise RuntimeError("no luck")
        return real(self, x, sigma, conditioning)

    monkeypatch.setattr(fake.Number, "velocity", breaking)
    assert call(sweep()) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        "5 of 10 cells failed, the first: reference, prompt 2, seed 0: RuntimeError: no luck"
        in error
    )
    found = lines(project / "small.sweep")
    assert [x["status"] for x in found].count("done") == 5
    monkeypatch.setattr(fake.Number, "velocity", real)
    assert call(sweep()) == 0
    assert "5 cells run, 5 were there" in capsys.readouterr().err


def test_a_reference_that_failed_leaves_a_reason_and_is_made_up_for(
    sweep, call, project, fake, monkeypatch
):
    real = gatekit.run

    def breaking(plan, *rest, **options):
        if plan.nfe == 16:
            raise gatekit.NumericsError("all NaN", remedy="none")
        return real(plan, *rest, **options)

    monkeypatch.setattr(gatekit, "run", breaking)
    file = sweep(("x0_divergence, ", ""))
    assert call(file) == 1
    done = [x for x in lines(project / "small.sweep") if x["status"] == "done"]
    assert all(x["unmeasured"]["psnr"].startswith("no reference") for x in done)
    monkeypatch.setattr(gatekit, "run", real)
    fake.LOG.clear()
    assert call(file) == 0
    last = {x["cell"]: x for x in lines(project / "small.sweep")}
    assert all("psnr" in x["metrics"] for x in last.values())
    assert fake.LOG.count("load coarse") == 1  # for the references; the others keep their latents


def test_ctrl_c_keeps_what_is_done(sweep, call, project, capsys, monkeypatch):
    real, started = gatekit.run, []

    def interrupted(*args, **options):
        started.append(args)
        if len(started) == 4:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(gatekit, "run", interrupted)
    assert call(sweep()) == 130
    assert [x["status"] for x in lines(project / "small.sweep")] == ["done"] * 3
    assert call(sweep()) == 0
    assert "7 cells run, 3 were there" in capsys.readouterr().err


def test_a_torn_line_is_taken_off(sweep, call, project, capsys):
    assert call(sweep()) == 0
    results = project / "small.sweep" / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-30])
    capsys.readouterr()
    assert call(sweep()) == 0
    assert "1 cells run, 9 were there" in capsys.readouterr().err
    assert len(lines(project / "small.sweep")) == 10


def test_two_sweeps_in_one_folder_are_refused(sweep, call, project, capsys):
    store = Store(project / "small.sweep")
    with store.locked():
        store.begin({"arms": []})
        (store.folder / "results.jsonl").write_text('{"cell": "half of a li')
        kept = {p: p.read_bytes() for p in store.folder.iterdir() if p.is_file()}
        assert call(sweep()) == 2
        assert {p: p.read_bytes() for p in store.folder.iterdir() if p.is_file()} == kept
    assert "another sweep is writing" in capsys.readouterr().err


def test_a_line_is_written_whole_where_the_disk_takes_it_in_parts(tmp_path, monkeypatch):
    store, write = Store(tmp_path), os.write
    monkeypatch.setattr(os, "write", lambda place, data: write(place, data[:5]))
    for i in range(2):
        store.append({"cell": f"{i}", "status": "done"})
    assert [line["cell"] for line in lines(tmp_path)] == ["0", "1"]


def test_lines_of_something_else_count_for_nothing(tmp_path):
    (tmp_path / "results.jsonl").write_text('[1]\n{"no": 1}\nhalf\n{"cell": "a"}\n')
    assert Store(tmp_path).read() == {"a": {"cell": "a"}}


KILLED = """
import importlib.util, os, signal, sys
sys.path.insert(0, {tests!r})
import fakefamily
from gatekit import hookimpl
from gatekit.cli import call
from gatekit.registry import registry
registry().register(fakefamily, "fake")

class Watch:
    runs = 0
    @hookimpl
    def gatekit_run_start(self, plan):
        Watch.runs += 1
        with open("runs.log", "a") as log:
            print(plan.schedule.sigmas.steps, file=log)
    @hookimpl
    def gatekit_step_end(self, record):
        if Watch.runs == int(sys.argv[1]) and record.step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

registry().register(Watch(), "watch")
sys.exit(call(["sweep", "sweep.yaml"]))
"""


def test_killed_at_once_it_loses_the_running_cell_and_repeats_none(sweep, call, project):
    sweep()
    script = project / "killed.py"
    script.write_text(KILLED.format(tests=str(TESTS)))

    def start(kill_in):
        command = [sys.executable, str(script), str(kill_in)]
        return subprocess.run(command, cwd=project, env=os.environ, capture_output=True).returncode

    assert start(4) == -9
    folder = project / "small.sweep"
    assert len(lines(folder)) == 3
    assert start(3) == -9
    assert len(lines(folder)) == 5
    assert start(99) == 0
    found = lines(folder)
    assert len({line["cell"] for line in found}) == len(found) == 10
    assert len((project / "runs.log").read_text().splitlines()) == 10 + 2  # two cells were lost
    assert not list(folder.rglob("*.part"))
    metrics = {line["cell"]: line["metrics"] for line in found}
    folder.rename(project / "killed.sweep")
    assert call(project / "sweep.yaml") == 0
    whole = {line["cell"]: line["metrics"] for line in lines(folder)}
    assert list(whole.values()) == list(metrics.values())


def test_a_dry_run_says_what_would_be_done_and_the_time_only_once_known(
    sweep, call, project, capsys
):
    assert call(sweep(), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "10 cells, 10 to run, 88 evaluations; the time is not known" in said
    assert not (project / "small.sweep").exists()
    assert call(sweep(("[6, 8]", "[6]"))) == 0
    capsys.readouterr()
    assert call(sweep(), "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cells"], found["left"]) == (10, 4)
    assert 0 < found["seconds"] < 60
    by = {arm["arm"]: arm for arm in found["arms"]}
    assert by["plain, steps=6"]["seconds"] == 0.0 and by["plain, steps=8"]["nfe"] == 8


def test_videos_are_kept_where_asked_for(sweep, call, project):
    pytest.importorskip("av")
    assert call(sweep(("seeds: 1", "seeds: 1\nkeep: [video]"), ("[6, 8]", "[6]"))) == 0
    videos = sorted((project / "small.sweep" / "videos").iterdir())
    assert len(videos) == 6
    again = gatekit.load_schedule(videos[0])  # each carries its schedule
    assert again.family.use == "fake"


def test_ray_that_is_not_there_is_told(sweep, call, capsys, monkeypatch, project):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert call(sweep(), "--ray") == 2
    assert "the extra 'ray'" in capsys.readouterr().err
    assert not (project / "small.sweep").exists()
    assert call(sweep(), "--workers", "2") == 2


@pytest.fixture
def careless():
    """A plugin whose metric fails as it is told to."""
    from gatekit.registry import registry

    class Careless(gatekit.Metric):
        """Says 1, or raises."""

        name, higher_is_better, perfect, fails = "careless", True, 1.0, None
        needs = frozenset({"latent"})

        def measure(self, sample):
            if self.fails == "exit":
                raise SystemExit(3)
            return {"one": 1.0} if self.fails != "measure" else {}["no such key"]

        def curve(self, sample):
            return [(0.5, "two")] if self.fails == "curve" else []

    class Plugin:
        @gatekit.hookimpl
        def gatekit_register_metrics(self):
            return [Careless]

    registry().register(Plugin(), "careless")
    yield Careless
    registry().remove("careless")


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("measure", "KeyError: 'no such key'"),
        ("curve", "ValueError: could not"),
        ("exit", "SystemExit: 3"),
    ],
)
def test_a_metric_that_raises_costs_its_own_value_alone(
    sweep, call, project, capsys, fake, careless, fails, said
):
    careless.fails = fails
    file = sweep((", psnr]", ", careless, psnr]"))
    assert call(file) == 0
    *_, ran, warning = capsys.readouterr().err.splitlines()
    assert "10 cells run" in ran
    assert "warning: metric 'careless' has no value in 10 cells, the first: reference" in warning
    assert f"'careless' of {careless.__module__} raised {said}" in warning
    found = lines(project / "small.sweep")
    assert {line["status"] for line in found} == {"done"}
    assert all({"psnr", "latent_rmse"} <= set(line["metrics"]) for line in found)
    assert all(set(line["unmeasured"]) == {"careless"} for line in found)
    assert not [name for line in found for name in line["metrics"] if "careless" in name]

    # Mended, it is measured from the latents that are there.
    careless.fails = None
    fake.LOG.clear()
    assert call(file) == 0
    assert "careless" not in capsys.readouterr().err
    assert not [e for e in fake.LOG if e.startswith("load")]
    last = {line["cell"]: line for line in lines(project / "small.sweep")}
    assert all(x["metrics"]["careless.one"] == 1.0 and not x["unmeasured"] for x in last.values())
