import os
from dataclasses import replace

import pytest
import torch

from gatekit import Evaluation, InputError, OutputError, Record, State, Trajectory


def full_state():
    x, d = torch.randn(1, 3), torch.randn(1, 3, dtype=torch.float64)
    past = (Evaluation(0.9, x, d, "high", None), Evaluation(1.0, d, x, "high", start=x))
    return State(
        x=x,
        sigma=0.1 + 0.2,
        step=3,
        visit=1,
        phase=1,
        past=past,
        ahead=d[:, ::2],
        closing=Evaluation(0.3, x, d, "low"),
        memory={"momentum": d, "h": 0.1},
        guidance_memory={"average": x, "nested": {"k": [1, 2.5, None, "t", True]}},
        visited=(1.0, 0.9, float("inf")),
        sampler="unipc {}",
        note="carry",
    )


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.equal(b)
    if isinstance(a, (Evaluation, State)):
        return type(a) is type(b) and all(equal(v, getattr(b, k)) for k, v in vars(a).items())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(v, b[k]) for k, v in a.items())
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_saved_state_comes_back_bit_for_bit(tmp_path):
    state = full_state()
    state.save(tmp_path / "new folder" / "state.safetensors")
    assert equal(state, State.load(tmp_path / "new folder" / "state.safetensors"))
    assert [p.name for p in (tmp_path / "new folder").iterdir()] == ["state.safetensors"]


def test_shared_tensors_are_written_once(tmp_path):
    x = torch.randn(1000)
    one, many = tmp_path / "one", tmp_path / "many"
    State(x, 0.5).save(one)
    State(x, 0.5, past=(Evaluation(0.9, x, x, "f", x),), ahead=x).save(many)
    assert many.stat().st_size - one.stat().st_size < 1000


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "state.safetensors"
    State(torch.zeros(1), 0.5).save(file)
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        full_state().save(file)
    assert file.read_bytes() == before and len([p.name for p in (tmp_path).iterdir()]) == 1


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(OutputError, match="cannot be saved"):
        State(torch.zeros(1), 0.5, guidance_memory={"f": object()}).save(tmp_path / "s")
    assert not [p.name for p in (tmp_path).iterdir()]


def test_unreadable_checkpoints(tmp_path):
    with pytest.raises(InputError, match="no readable checkpoint"):
        State.load(tmp_path / "missing")
    (tmp_path / "cut").write_bytes(b"\x00" * 20)
    with pytest.raises(InputError, match="no readable checkpoint"):
        State.load(tmp_path / "cut")
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, tmp_path / "weights")
    with pytest.raises(InputError, match="not a saved state"):
        State.load(tmp_path / "weights")
    for tree in ("{", "{}", '{"$State": {}}', '{"$tensor": "t9"}'):
        metadata = {"format": "gatekit-state-1", "state": tree}
        save_file({"w": torch.zeros(2)}, tmp_path / "damaged", metadata=metadata)
        with pytest.raises(InputError, match="no readable checkpoint"):
            State.load(tmp_path / "damaged")


def test_forget_and_displace():
    state = full_state()
    gone = state.forget()
    assert (gone.past, gone.ahead, gone.closing, dict(gone.memory)) == ((), None, None, {})
    moved = state.displaced(state.x + 1)
    assert [p.start for p in moved.past] == [None, None]
    assert moved.ahead is None and moved.closing is None and moved.memory


def test_velocity_of_an_evaluation():
    e = Evaluation(0.5, torch.tensor([1.0]), torch.tensor([0.0]), "f")
    assert float(e.velocity) == 2.0


def test_trajectory_sums():
    one = Record(0, "a", 1.0, 0.5, 2, 4, 0.25, "f", "heun")
    run = Trajectory(State(torch.ones(1), 0.0), (one, replace(one, step=1, sigma=0.5)))
    assert (run.nfe, run.seconds, len(run), run[1].step) == (4, 0.5, 2, 1)
    assert run.sigmas == (1.0, 0.5, 0.0)
    assert [r.phase for r in run] == ["a", "a"] and float(run.x) == 1.0
