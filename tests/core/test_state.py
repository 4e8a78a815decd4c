import os
import struct
from dataclasses import dataclass, replace

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


def test_memory_by_numbers_comes_back_by_numbers(tmp_path):
    memory = {0: torch.ones(2), 1.5: "a", None: 1, (2, "b"): {"c": 3}, "d": 4}
    State(torch.zeros(1), 0.5, guidance_memory=memory).save(tmp_path / "s")
    assert equal(dict(State.load(tmp_path / "s").guidance_memory), memory)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, dtype=torch.complex128), torch.eye(3).to_sparse()],
    ids=["complex128", "sparse"],
)
def test_a_tensor_that_the_file_cannot_hold_is_named(tmp_path, tensor):
    with pytest.raises(OutputError, match="cannot be saved"):
        State(torch.zeros(1), 0.5, memory={"a": tensor}).save(tmp_path / "s")


def test_a_class_of_the_same_name_is_none_of_ours(tmp_path):
    @dataclass
    class Evaluation:
        sigma: float = 0.5

    with pytest.raises(OutputError, match="cannot be saved"):
        State(torch.zeros(1), 0.5, memory={"a": Evaluation()}).save(tmp_path / "s")


def test_a_turned_bit_is_seen(tmp_path):
    file = tmp_path / "s"
    full_state().save(file)
    whole = bytearray(file.read_bytes())
    (length,) = struct.unpack("<Q", whole[:8])
    places = {
        "x": whole.index(b'"sigma') + 12,  # 0.3..., in the state's text
        "tensors": 8 + length + 5,
        "the last byte": len(whole) - 1,
    }
    for place, at in places.items():
        damaged = whole.copy()
        damaged[at] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="does not hold what was written"):
            State.load(file)
            pytest.fail(place)
    file.write_bytes(whole)
    assert equal(State.load(file).step, 3)


def rewritten(file, **texts):
    """The file with other texts in its metadata, and seals that fit them."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from gatekit.sealing import sealed

    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = {k: v for k, v in opened.metadata().items() if "sha256" not in k}
    save_file(tensors, file, sealed(metadata | texts, tensors))


@pytest.mark.parametrize(
    "tree", ['{"$map": [1]}', '{"$State": 3}', "[" * 100_000, '{"$items": [1]}', "1e999"]
)
def test_a_state_that_is_none(tmp_path, tree):
    full_state().save(tmp_path / "s")
    rewritten(tmp_path / "s", state=tree)
    with pytest.raises(InputError, match=r"no readable checkpoint|not a saved state"):
        State.load(tmp_path / "s")


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
