"""Runs from Python: order of work, results, checkpoints, residency, provenance."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

import gatekit
from gatekit import Cancelled, InputError, Inputs, OutputError, WeightsError, load_schedule, resolve


def plan_of(project, *overrides):
    return resolve(load_schedule(project / "fake.yaml", list(overrides)))


def test_a_run_gives_video_latent_and_records(project):
    plan = plan_of(project)
    result = gatekit.run(plan, Inputs(prompt="a ball", seed=3))
    assert result.video.shape == (5, 32, 32, 3)
    assert result.video.dtype == torch.float32
    assert 0.0 <= float(result.video.min()) <= float(result.video.max()) <= 1.0
    assert result.latent.shape == (2, 2, 4, 4)
    assert [r.sigma for r in result.trajectory] == list(plan.run_sigmas[:-1])
    assert result.trajectory.nfe == plan.nfe
    assert sum(r.passes for r in result.trajectory) == plan.passes
    assert not any(v.loaded for v in plan.variants.values())


def test_the_plan_counts_what_the_run_does(project):
    for history in ("carry", "close", "reset", "auto"):
        for sampler in ("unipc", "heun", "dpmpp_2m"):
            plan = plan_of(
                project, f"phases.low.history={history}", f"phases.high.sampler={sampler}"
            )
            result = gatekit.run(plan, Inputs(prompt="x"))
            assert [(r.nfe, r.passes) for r in result.trajectory] == [
                (row.nfe, row.passes) for row in plan.table()
            ], (history, sampler)


def test_equal_inputs_give_equal_bits_and_other_seeds_do_not(project):
    a, b, c = (gatekit.run(plan_of(project), Inputs(prompt="x", seed=s)).latent for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_work_is_done_in_order(project, fake):
    fake.LOG.clear()
    gatekit.run(plan_of(project), Inputs(prompt="x"))
    assert fake.LOG == [
        "encode",
        "load coarse",
        "load fine",
        "unload coarse",
        "unload fine",
        "decode",
    ]


def test_a_variant_leaves_where_the_budget_cannot_hold_both(project, fake):
    fake.LOG.clear()
    gatekit.run(plan_of(project, "memory.vram=20B"), Inputs(prompt="x"))
    assert fake.LOG[1:5] == ["load coarse", "unload coarse", "load fine", "unload fine"]


def test_a_variant_used_by_two_phases_is_loaded_once(project, fake):
    fake.LOG.clear()
    gatekit.run(plan_of(project, "phases.low.variant=coarse"), Inputs(prompt="x"))
    assert fake.LOG.count("load coarse") == 1


def test_inputs_are_checked_before_anything_else(project, fake):
    fake.LOG.clear()
    with pytest.raises(InputError, match="no such image"):
        gatekit.run(plan_of(project), Inputs(prompt="x", image="none.png"))
    assert fake.LOG == []


def test_a_plan_with_missing_files_does_not_run(project):
    (project / "vae.bin").unlink()
    with pytest.raises(WeightsError, match=r"fake.yaml:5:13: vae.file: no such weight file"):
        gatekit.run(plan_of(project), Inputs(prompt="x"))


def test_the_run_folder_tells_what_ran(project, tmp_path):
    out = tmp_path / "out.mp4"
    result = gatekit.run(plan_of(project), Inputs(prompt="x", seed=5), out=out)
    folder = tmp_path / "out.run"
    assert result.run_dir == folder
    assert sorted(p.name for p in folder.glob("[!.]*")) == ["latent.safetensors", "run.json"]
    content = json.loads((folder / "run.json").read_text())
    assert content["status"] == "done"
    assert content["seed"] == 5
    assert content["nfe"] == 8
    assert len(content["steps"]) == 8
    assert content["steps"][0]["sigma"] == content["sigmas"][0] == 1.0
    assert content["versions"]["gatekit"] == gatekit.__version__
    assert content["versions"]["plugins"]["fake"]
    assert {Path(p).name for p in content["weights"]} == {
        "coarse.num",
        "fine.num",
        "text.bin",
        "vae.bin",
    }
    from safetensors.torch import load_file

    assert torch.equal(load_file(folder / "latent.safetensors")["latent"], result.latent)


class Stop:
    """An observer that stops the run after some steps."""

    def __init__(self, after: int) -> None:
        self.after = after

    def __call__(self, state, record, denoised):
        if record.step + 1 == self.after:
            raise Cancelled


@pytest.mark.parametrize("after", [1, 3, 4, 8])
def test_a_stopped_run_goes_on_bit_for_bit(project, tmp_path, after):
    inputs = Inputs(prompt="x", seed=5)
    whole = gatekit.run(plan_of(project), inputs)
    with pytest.raises(Cancelled):
        gatekit.run(plan_of(project), inputs, run_dir=tmp_path / "r", observers=[Stop(after)])
    assert (tmp_path / "r" / "checkpoint.safetensors").exists()
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "stopped"
    rest = gatekit.run(plan_of(project), inputs, resume=tmp_path / "r")
    assert torch.equal(rest.video, whole.video)
    assert [(r.step, r.sigma) for r in rest.trajectory] == [
        (r.step, r.sigma) for r in whole.trajectory
    ]
    content = json.loads((tmp_path / "r" / "run.json").read_text())
    assert [step["step"] for step in content["steps"]] == list(range(8))
    assert not (tmp_path / "r" / "checkpoint.safetensors").exists()


def test_a_run_that_has_ended_is_not_resumed_and_keeps_its_record(project, tmp_path):
    gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r")
    before = (tmp_path / "r" / "run.json").read_bytes()
    with pytest.raises(InputError, match="this run has ended"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")
    assert (tmp_path / "r" / "run.json").read_bytes() == before


def test_a_lost_checkpoint_leaves_the_record_as_it_was(project, tmp_path):
    with pytest.raises(Cancelled):
        gatekit.run(
            plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r", observers=[Stop(2)]
        )
    (tmp_path / "r" / "checkpoint.safetensors").unlink()
    before = (tmp_path / "r" / "run.json").read_bytes()
    with pytest.raises(InputError, match="no readable checkpoint"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")
    assert (tmp_path / "r" / "run.json").read_bytes() == before


def test_a_run_that_is_past_a_phase_does_not_load_its_model(project, tmp_path, fake):
    inputs = Inputs(prompt="x")
    with pytest.raises(Cancelled):
        gatekit.run(plan_of(project), inputs, run_dir=tmp_path / "r", observers=[Stop(5)])
    fake.LOG.clear()
    gatekit.run(plan_of(project), inputs, resume=tmp_path / "r")
    assert "load coarse" not in fake.LOG


def test_another_run_is_not_resumed(project, tmp_path):
    with pytest.raises(Cancelled):
        gatekit.run(
            plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r", observers=[Stop(2)]
        )
    for plan, inputs, changed in (
        (plan_of(project), Inputs(prompt="y"), "inputs.prompt was 'x', is 'y'"),
        (plan_of(project, "phases.high.guidance.scale=3"), Inputs(prompt="x"), "scale was 2"),
        (plan_of(project, "text_encoder.precision=bf16"), Inputs(prompt="x"), "is 'bf16'"),
        (plan_of(project, "family={use: fake, task: i2v}"), Inputs(prompt="x"), "'i2v'"),
    ):
        with pytest.raises(InputError, match="the run to resume had another schedule") as caught:
            gatekit.run(plan, inputs, resume=tmp_path / "r")
        assert changed in caught.value.message
    gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")


def test_a_changed_weight_file_is_told_from_a_changed_schedule(project, tmp_path):
    with pytest.raises(Cancelled):
        gatekit.run(
            plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r", observers=[Stop(2)]
        )
    (project / "fine.num").write_text('{"gain": 0.7}')
    with pytest.raises(InputError, match="a weight file is not the same"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")


@pytest.mark.parametrize("content", [None, "{}", "no json", "[]"])
def test_no_run_folder(project, tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match="no run folder"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path)


def test_ctrl_c_while_loading_keeps_the_checkpoint(project, tmp_path, fake, monkeypatch):
    load = fake.Number.load

    def interrupted(self, device, compute):
        if self.params.file.stem == "fine":
            signal.raise_signal(signal.SIGINT)
        load(self, device, compute)

    monkeypatch.setattr(fake.Number, "load", interrupted)
    # A shell starts what runs in the background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r")
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    fake.LOG.clear()
    rest = gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")
    assert len(rest.trajectory) == 8
    assert "load coarse" not in fake.LOG, "what was done is not done again"


def test_memory_that_runs_out_is_said_in_one_line(project, fake, monkeypatch):
    def load(self, device, compute):
        raise MemoryError

    monkeypatch.setattr(fake.Number, "load", load)
    with pytest.raises(gatekit.GatekitError, match="variant 'coarse' does not fit into the memory"):
        gatekit.run(plan_of(project), Inputs(prompt="x"))


def test_an_unusable_device(project):
    plan = resolve(load_schedule(project / "fake.yaml"), device="xpu")
    with pytest.raises(InputError, match="torch cannot use this device"):
        gatekit.run(plan, Inputs(prompt="x"))


@pytest.mark.parametrize("section", ["text_encoder", "vae"])
def test_a_components_device_is_tried_before_anything_is_computed(project, fake, section):
    fake.LOG.clear()
    plan = plan_of(project, f"{section}.device=cuda:99")
    with pytest.raises(InputError, match=rf"{section}\.device: torch cannot use this .*cuda:99"):
        gatekit.run(plan, Inputs(prompt="x"))
    assert fake.LOG == []


def test_an_open_variant_is_loaded(project, monkeypatch):
    monkeypatch.chdir(project)
    variant = gatekit.open_variant(
        {"use": "number", "file": "fine.num"}, family="fake", device="cpu", compute="fp32"
    )
    assert variant.loaded == ("cpu", "fp32")
    with pytest.raises(
        WeightsError, match=r"file: no such weight file \(got 'fin.num'\); did you me"
    ):
        gatekit.open_variant({"use": "number", "file": "fin.num"}, family="fake", device="cpu")
    with pytest.raises(gatekit.ScheduleError, match="unknown key 'fiel'; did you mean 'file'"):
        gatekit.open_variant({"use": "number", "fiel": "x"}, family="fake", device="cpu")
    with pytest.raises(InputError, match=r"device: torch cannot use .*; choose .* device='cpu'"):
        gatekit.open_variant({"use": "number", "file": "fine.num"}, family="fake", device="cuda:99")
    with pytest.raises(InputError, match="a variant needs 'use'"):
        gatekit.open_variant({"file": "x"}, family="fake")


def test_an_output_that_cannot_be_made(project, tmp_path, fake):
    result = gatekit.run(plan_of(project), Inputs(prompt="x"))
    fake.LOG.clear()
    with pytest.raises(InputError, match=r"out.gif: a result is .mp4, .webp, .*; use out.mp4"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), out=tmp_path / "out.gif")
    assert fake.LOG == [], "found out before anything was computed"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        result.save(tmp_path / "file" / "out.mp4")
    with pytest.raises(InputError, match=r"a result is .mp4"):
        result.save(tmp_path / "out.gif")


def test_plugins_watch_a_run_and_change_what_crosses(project):
    from dataclasses import replace

    from gatekit.registry import registry

    seen: list[str] = []

    class Watcher:
        @gatekit.hookimpl
        def gatekit_run_start(self, plan):
            seen.append(plan.schedule.name)

        @gatekit.hookimpl
        def gatekit_step_end(self, record):
            seen.append(f"{record.phase} {record.step}")

        @gatekit.hookimpl
        def gatekit_cross_boundary(self, state, leaving, entering):
            seen.append(f"{leaving} to {entering}")
            return replace(state, x=state.x * 0.0)

    plain = gatekit.run(plan_of(project), Inputs(prompt="x")).latent
    registry().register(Watcher(), "watcher")
    try:
        changed = gatekit.run(plan_of(project), Inputs(prompt="x")).latent
    finally:
        registry().remove("watcher")
    assert seen[:5] == ["fake", "high 0", "high 1", "high 2", "high to low"]
    assert seen[-1] == "low 7"
    assert not torch.equal(plain, changed)
    assert torch.equal(gatekit.run(plan_of(project), Inputs(prompt="x")).latent, plain)


def test_nan_ends_the_run_at_that_step_and_keeps_the_step_before(project, tmp_path, fake):
    velocity, calls = fake.Number.velocity, []

    def broken(self, x, sigma, conditioning):
        calls.append(sigma)
        return velocity(self, x, sigma, conditioning) * (float("nan") if len(calls) == 7 else 1.0)

    fake.Number.velocity = broken
    where = r"phase low, step 3, sigma 0\.\d+, variant fine: the model predicted NaN"
    with pytest.raises(gatekit.NumericsError, match=where):
        gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r")
    fake.Number.velocity = velocity
    from gatekit.checkpoint import read_checkpoint

    assert read_checkpoint(tmp_path / "r" / "checkpoint.safetensors").step == 3
    rest = gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")
    assert torch.equal(rest.latent, gatekit.run(plan_of(project), Inputs(prompt="x")).latent)


def test_the_traceback_of_a_sampler_that_raises_is_in_the_run_folder(
    project, tmp_path, monkeypatch
):
    def step(self, c):
        raise ValueError("a bug")

    monkeypatch.setattr(gatekit.list_samplers()["euler"], "step", step)
    with pytest.raises(
        gatekit.PluginError, match=r"sampler 'euler' .* raised ValueError"
    ) as caught:
        gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r")
    log = (tmp_path / "r" / "error.log").read_text()
    assert "in step" in log and "ValueError: a bug" in log
    assert caught.value.__notes__ == [f"the traceback is in {tmp_path / 'r' / 'error.log'}"]
    assert (tmp_path / "r" / "checkpoint.safetensors").exists()
