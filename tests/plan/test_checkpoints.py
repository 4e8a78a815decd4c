"""Checkpoints: what is written, by whom, and which run goes on with it."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import replace

import pytest
import torch

import gatekit
from gatekit import (
    Cancelled,
    Evaluation,
    InputError,
    Inputs,
    OutputError,
    Record,
    State,
    checkwriter,
    load_schedule,
    resolve,
    runfolder,
    sameness,
)
from gatekit.checkpoint import read_checkpoint
from gatekit.checkwriter import CheckpointWriter
from gatekit.hostcopies import HostCopies
from gatekit.provenance import tensors_hash
from gatekit.runlock import RunLock

MARK = {"fingerprint": "f"}


def plan_of(project, *overrides):
    return resolve(load_schedule(project / "fake.yaml", list(overrides)))


def record(step):
    return Record(step, "high", 1.0, 0.5, 1, 1, 0.1, "f", "euler")


def stop_after(step):
    def observe(state, record, denoised):
        if record.step + 1 == step:
            raise Cancelled

    return observe


def stopped(project, folder, after=3, *overrides, **inputs):
    with pytest.raises(Cancelled):
        gatekit.run(
            plan_of(project, *overrides),
            Inputs(prompt="x", **inputs),
            run_dir=folder,
            observers=[stop_after(after)],
        )


def threads():
    return [t for t in threading.enumerate() if t.name == "gatekit-checkpoint"]


# -- copies


def test_what_the_state_before_held_is_not_copied_again():
    copies, x, y = HostCopies(), torch.randn(4), torch.randn(4)
    first = copies.of(x)
    copies.turn()()
    assert first.equal(x) and first.data_ptr() != x.data_ptr()
    assert copies.of(x) is first
    copies.of(y)
    copies.turn()()
    assert copies.copied_bytes == 32
    copies.turn()()
    assert copies.of(x) is not first, "only the last state's copies are held"


def test_a_tensor_changed_in_place_is_copied_anew():
    copies, x = HostCopies(), torch.zeros(4)
    first = copies.of(x)
    copies.turn()
    x.add_(1)
    assert copies.of(x).equal(torch.ones(4)) and first.equal(torch.zeros(4))


def test_copies_are_contiguous_and_inference_tensors_are_copied_each_time():
    with torch.inference_mode():
        x = torch.randn(4, 6).T
    copies = HostCopies()
    first = copies.of(x)
    copies.turn()
    assert first.is_contiguous() and copies.of(x) is not first


# -- the writer


def test_the_newest_state_is_on_the_disk_and_no_thread_is_left(tmp_path):
    file = tmp_path / "c.safetensors"
    writer = CheckpointWriter(file, MARK)
    writer.conditioning = "c"
    x = torch.randn(1, 3)
    for step in range(1, 4):
        past = (Evaluation(0.9, x, x + step, "f", x),)
        records = tuple(record(i) for i in range(step))
        writer.submit(State(x * step, 0.5, step, past=past), records)
    x.zero_()  # after the copy
    writer.drain()
    found = read_checkpoint(file)
    assert (found.step, found.mark, found.conditioning) == (3, MARK, "c")
    assert [r.step for r in found.records] == [0, 1, 2]
    state = found.state("cpu")
    assert state.x.any() and state.past[0].x.any()
    writer.close()
    assert not threads()


def test_one_state_waits_at_most_and_the_newest_wins(tmp_path, monkeypatch):
    begun, go, sizes = threading.Event(), threading.Event(), []

    def slow(path, data, remedy):
        begun.set()
        assert go.wait(10)
        sizes.append(len(data))
        path.write_bytes(data)

    monkeypatch.setattr(checkwriter, "write_atomic", slow)
    writer = CheckpointWriter(tmp_path / "c", MARK)
    writer.submit(State(torch.zeros(1), 0.5, 1), ())
    assert begun.wait(10)
    for step in range(2, 9):
        writer.submit(State(torch.zeros(1), 0.5, step), ())  # none of them waits for the disk
    go.set()
    writer.drain()
    writer.close()
    assert len(sizes) == 2 == writer.facts["written"]
    assert read_checkpoint(tmp_path / "c").step == 8


def test_a_state_that_waits_is_written_before_the_run_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(checkwriter, "SHARE", 1e-9)  # rests for years
    writer = CheckpointWriter(tmp_path / "c", MARK)
    for step in (1, 2):
        writer.submit(State(torch.zeros(1), 0.5, step), ())
        writer.drain()
        assert read_checkpoint(tmp_path / "c").step == step
    writer.close()


def test_a_disk_that_is_full_for_a_while_costs_only_checkpoints(tmp_path, monkeypatch, caplog):
    real, full = checkwriter.write_atomic, [True]

    def write(path, data, remedy):
        if full[0]:
            raise OutputError("cannot write: No space left on device", remedy=remedy)
        return real(path, data, remedy)

    monkeypatch.setattr(checkwriter, "write_atomic", write)
    monkeypatch.setattr(checkwriter, "SHARE", 1.0)
    writer = CheckpointWriter(tmp_path / "c", MARK)
    writer.submit(State(torch.zeros(1), 0.5, 1), ())
    with pytest.raises(OutputError, match="No space left"):
        writer.drain()
    full[0] = False
    writer.submit(State(torch.zeros(1), 0.5, 2), ())
    writer.drain()
    writer.close()
    assert read_checkpoint(tmp_path / "c").step == 2


def test_a_disk_that_is_full_at_the_last_record_costs_nothing_else(project, tmp_path, monkeypatch):
    real, folder = runfolder.write_atomic, tmp_path / "r"

    def write(path, data, remedy=None):
        if b'"status": "done"' in data:
            raise OutputError("cannot write: No space left on device", remedy=remedy)
        return real(path, data, remedy)

    monkeypatch.setattr(runfolder, "write_atomic", write)
    with pytest.raises(OutputError, match=r"what was made is kept, the latent as .*latent"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=folder)
    assert (folder / "latent.safetensors").is_file()


def test_a_run_goes_on_where_no_checkpoint_can_be_written(project, tmp_path, monkeypatch, caplog):
    def full(path, data, remedy):
        raise OutputError("cannot write: No space left on device", remedy=remedy)

    monkeypatch.setattr(checkwriter, "write_atomic", full)
    result = gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r")
    assert len(result.trajectory) == 8
    assert caplog.text.count("No space left") <= 1, "said once"


def test_a_run_that_cannot_be_saved_goes_on_and_says_so(project, tmp_path, monkeypatch, caplog):
    def packed(self, copy):
        raise OutputError("a sampler remembers what cannot be saved", remedy="keep tensors")

    monkeypatch.setattr(State, "packed", packed)
    gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r")
    assert caplog.text.count("this run cannot be resumed: a sampler remembers") == 1


@pytest.mark.parametrize("failure", [MemoryError(), RuntimeError("DefaultCPUAllocator")])
def test_a_run_goes_on_where_there_is_no_memory_for_a_copy(project, monkeypatch, caplog, failure):
    def packed(self, copy):
        raise failure

    monkeypatch.setattr(State, "packed", packed)
    result = gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=project / "r")
    assert len(result.trajectory) == 8
    assert caplog.text.count("no host memory for a copy of the state") == 1


def test_a_run_goes_on_where_no_thread_can_be_started(project, monkeypatch, caplog):
    start = threading.Thread.start

    def refuse(self):
        if self.name == "gatekit-checkpoint":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    result = gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=project / "r")
    assert len(result.trajectory) == 8
    assert caplog.text.count("no thread to write checkpoints") == 1


class Deaf(logging.Handler):
    """What shows warnings fails, as where stderr is a pipe that nobody reads."""

    def emit(self, record):
        raise BrokenPipeError


@pytest.mark.parametrize("kind", [OutputError, KeyboardInterrupt, SystemExit])
def test_the_thread_outlives_what_it_meets(tmp_path, monkeypatch, kind):
    def fail(path, data, remedy):
        raise kind("no")

    monkeypatch.setattr(checkwriter, "write_atomic", fail)
    logger, deaf = logging.getLogger("gatekit"), Deaf()
    logger.addHandler(deaf)
    writer, told = CheckpointWriter(tmp_path / "c", MARK), []
    try:
        writer.submit(State(torch.zeros(1), 0.5, 1), ())
        until = time.monotonic() + 5
        while not writer._error and time.monotonic() < until:  # then it waits, or died
            time.sleep(0.001)

        def drain():
            try:
                writer.drain()
            except BaseException as exc:
                told.append(type(exc))

        writer.submit(State(torch.zeros(1), 0.5, 2), ())
        draining = threading.Thread(target=drain, daemon=True)
        draining.start()
        draining.join(10)
        assert told == [kind], "drain waits for ever"
    finally:
        logger.removeHandler(deaf)
        writer.close()


def test_a_checkpoint_that_is_replaced_while_it_is_read(tmp_path):
    writer = CheckpointWriter(tmp_path / "c", MARK)
    writer.submit(State(torch.zeros(1), 0.5, 1), ())
    writer.drain()
    found = read_checkpoint(tmp_path / "c")
    writer.submit(State(torch.zeros(1), 0.4, 2), ())
    writer.drain()
    writer.close()
    with pytest.raises(InputError, match="step 1 became 2"):
        found.state("cpu")


def test_a_damaged_checkpoint_is_not_gone_on_with(project, tmp_path):
    """Its sigma turned to 0: the run would end at once, with a video of noise."""
    folder = tmp_path / "r"
    stopped(project, folder)
    file = folder / "checkpoint.safetensors"
    content = file.read_bytes()
    at = content.index(b'sigma\\": 0.')
    file.write_bytes(content[:at] + b'sigma\\": 0e' + content[at + 11 :])
    with pytest.raises(InputError, match="does not hold what was written"):
        read_checkpoint(file)
    with pytest.raises(InputError, match="does not hold what was written"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), resume=folder)


def test_what_checkpoints_took_is_in_the_record(project, tmp_path):
    gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=tmp_path / "r")
    facts = json.loads((tmp_path / "r" / "run.json").read_text())["checkpoints"]
    assert set(facts) == {"written", "bytes", "copying", "writing"}
    assert facts["copying"] > 0
    assert not threads()


@pytest.mark.parametrize("content", [b"", b"\0" * 20, None])
def test_no_checkpoint(tmp_path, content):
    if content is not None:
        (tmp_path / "c").write_bytes(content)
    with pytest.raises(InputError, match="no readable checkpoint"):
        read_checkpoint(tmp_path / "c")


def test_a_bare_state_is_no_checkpoint_of_a_run(tmp_path):
    State(torch.zeros(1), 0.5).save(tmp_path / "s")
    with pytest.raises(InputError, match="no readable checkpoint"):
        read_checkpoint(tmp_path / "s")


# -- whose it is


def test_other_versions_and_devices_are_refused_and_force_insists(
    project, tmp_path, monkeypatch, caplog
):
    folder = tmp_path / "r"
    whole = gatekit.run(plan_of(project), Inputs(prompt="x")).latent
    stopped(project, folder)
    real = sameness.versions()
    monkeypatch.setattr(sameness, "versions", lambda: real | {"torch": "1.0", "av": "0"})
    with pytest.raises(InputError, match=r"had other versions: torch was '.*', is '1.0'") as caught:
        gatekit.run(plan_of(project), Inputs(prompt="x"), resume=folder)
    assert "--force" in caught.value.remedy
    again = gatekit.run(plan_of(project), Inputs(prompt="x"), resume=folder, force=True)
    assert torch.equal(again.latent, whole)
    assert "going on with a run that had other versions: torch was" in caplog.text


def test_a_plugin_that_came_meanwhile_is_no_difference_and_another_version_is():
    now = {"fingerprint": "f", "files": [], "device": "cpu"}
    before = now | {"versions": {"torch": "2", "plugins": {"a": "a 1"}}}
    more = now | {"versions": {"torch": "2", "plugins": {"a": "a 1", "b": "b 1"}}}
    other = now | {"versions": {"torch": "2", "plugins": {"a": "a 2"}}}
    assert sameness.differences(before, more) == {}
    assert sameness.differences(before, other) == {"other versions": "plugin a was 'a 1', is 'a 2'"}
    assert sameness.differences(more, before) == {}, "what is used is there, or nothing resolves"


def test_devices_of_one_kind_are_alike():
    one = {"fingerprint": "f", "files": [], "versions": {}, "device": "cuda:0"}
    assert sameness.differences(one, one | {"device": "cuda:1"}) == {}
    assert sameness.differences(one, one | {"device": "cpu"}) == {
        "another kind of device": "device was 'cuda', is 'cpu'"
    }


def test_a_changed_weight_file_is_named(project, tmp_path):
    stopped(project, tmp_path / "r")
    (project / "fine.num").write_text('{"gain": 0.75}')
    with pytest.raises(InputError, match=r"not the same: fine\.num, 13 bytes before and 14 now"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")


def test_another_size_is_refused_even_with_force(project, tmp_path):
    stopped(project, tmp_path / "r")
    with pytest.raises(InputError, match="another size of video"):
        gatekit.run(
            plan_of(project, "video.width=64"),
            Inputs(prompt="x"),
            resume=tmp_path / "r",
            force=True,
        )


def test_a_checkpoint_left_by_another_run_is_not_taken_for_this_ones(project, tmp_path):
    """Killed between the record of a new run and the removal of the old checkpoint."""
    folder = tmp_path / "r"
    stopped(project, folder)
    old = (folder / "checkpoint.safetensors").read_bytes()
    stopped(project, folder, 1, seed=5)
    (folder / "checkpoint.safetensors").write_bytes(old)
    with pytest.raises(InputError, match=r"inputs\.seed was 0, is 5"):
        gatekit.run(plan_of(project), Inputs(prompt="x", seed=5), resume=folder)
    found, other = runfolder.interrupted(folder, plan_of(project), Inputs(prompt="x", seed=5))
    assert found is None and other == "inputs.seed was 0, is 5"


def test_inputs_that_encode_otherwise_are_said(project, tmp_path, fake, monkeypatch, caplog):
    stopped(project, tmp_path / "r")
    encode = fake.FakeFamily.encode

    def other(self, inputs, video, device):
        found = encode(self, inputs, video, device)
        return {name: replace(prompt, value=prompt.value + 1e-9) for name, prompt in found.items()}

    monkeypatch.setattr(fake.FakeFamily, "encode", other)
    gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")
    assert "prompt and images give other numbers" in caplog.text


def test_the_hash_of_conditionings_sees_every_bit():
    a = {"p": Evaluation(0.5, torch.zeros(2), torch.ones(2), "f")}
    b = {"p": Evaluation(0.5, torch.zeros(2), torch.tensor([1.0, 1.0 + 2**-23]), "f")}
    c = {"p": Evaluation(0.5, torch.zeros(2, 1), torch.ones(2), "f")}
    assert tensors_hash(a) == tensors_hash({"p": replace(a["p"])})
    assert len({tensors_hash(v) for v in (a, b, c, {"q": a["p"]}, {})}) == 5
    assert tensors_hash([torch.zeros(2, dtype=torch.bfloat16)]) != tensors_hash([torch.zeros(2)])


@pytest.mark.usefixtures("k_diffusion")
def test_a_loop_that_is_resumed_begins_its_phase_anew_and_says_so(project, tmp_path, caplog):
    changes = ["phases.low.sampler=k_diffusion/dpm_adaptive"]
    whole = gatekit.run(plan_of(project, *changes), Inputs(prompt="x"))
    steps = [r.phase for r in whole.trajectory].count("high")
    stopped(project, tmp_path / "r", steps + 2, *changes)
    rest = gatekit.run(plan_of(project, *changes), Inputs(prompt="x"), resume=tmp_path / "r")
    assert torch.equal(rest.latent, whole.latent)
    assert [r.step for r in rest.trajectory] == [r.step for r in whole.trajectory]
    assert "phase low begins anew: sampler k_diffusion/dpm_adaptive owns its loop" in caplog.text


# -- two runs in one folder


def test_a_folder_that_cannot_be_locked_is_said_and_the_run_goes_on(
    project, tmp_path, caplog, monkeypatch
):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    gatekit.run(plan_of(project), Inputs(prompt="y"), run_dir=tmp_path / "r")
    assert "cannot be locked" in caplog.text and (tmp_path / "r" / "run.json").exists()


def test_a_second_run_in_a_folder_is_refused_and_changes_nothing(project, tmp_path):
    folder = tmp_path / "r"

    def second(state, record, denoised):
        with pytest.raises(InputError, match=r"another run is writing here \(process \d+\)"):
            gatekit.run(plan_of(project), Inputs(prompt="y"), run_dir=folder)
        assert json.loads((folder / "run.json").read_text())["inputs"]["prompt"] == "x"

    gatekit.run(plan_of(project), Inputs(prompt="x"), run_dir=folder, observers=[second])
    gatekit.run(plan_of(project), Inputs(prompt="y"), run_dir=folder)


def test_a_folder_is_free_again_after_an_error(project, tmp_path):
    folder = tmp_path / "r"
    stopped(project, folder)
    lock = RunLock(folder)
    lock.take(folder / "run.json")
    with pytest.raises(InputError, match="another run is writing here"):
        gatekit.run(plan_of(project), Inputs(prompt="x"), resume=folder)
    lock.release()
    gatekit.run(plan_of(project), Inputs(prompt="x"), resume=folder)


def test_what_a_killed_run_left_half_written_is_swept_up(project, tmp_path):
    folder, out = tmp_path / "out.run", tmp_path / "out"
    folder.mkdir()
    (folder / ".checkpoint.safetensors.1.part").write_bytes(b"half")
    (tmp_path / ".out.1.part").mkdir()
    (tmp_path / ".out.1.old").mkdir()
    (tmp_path / ".out.1.old" / "0001.png").write_bytes(b"the frames before")
    (tmp_path / ".other.mp4.1.part").write_bytes(b"another's")
    runfolder.sweep(folder, "")
    runfolder.sweep(tmp_path, "out")
    assert not list(folder.iterdir())
    assert (out / "0001.png").exists(), "killed between two renames"
    assert sorted(p.name for p in tmp_path.glob(".*")) == [".other.mp4.1.part"]


def test_a_run_of_frames_leaves_the_parts_of_a_video_of_that_name_alone(project):
    part = project / ".out.mp4.99.part"  # of a run with another folder, which is writing now
    part.write_bytes(b"half")
    (project / ".out.98.part").mkdir()
    gatekit.run(plan_of(project), Inputs(prompt="x"), out=f"{project}/out/", run_dir=project / "r")
    assert part.exists() and not (project / ".out.98.part").exists()
