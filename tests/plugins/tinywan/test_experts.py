"""Writing the experts' files: from what was trained, without training."""

import json

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("diffusers")

from gatekit_tinywan.train import __main__ as command
from gatekit_tinywan.train import experts, fit
from gatekit_tinywan.train.average import SHARES, average
from gatekit_tinywan.train.config import REHEARSAL
from gatekit_tinywan.train.dataset import Dataset
from gatekit_tinywan.train.denoiser import Range
from gatekit_tinywan.train.models import TextConditioned, build_vae, save


@pytest.fixture
def data():
    noise = torch.randn(4, 16, 2, 2, 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids = torch.randint(3, 60, (4, 64), generator=torch.Generator().manual_seed(1))
    rest = torch.full((4,), 9), torch.zeros(4, 14, dtype=torch.long)
    return Dataset(noise, noise[:1], ids, *rest, torch.zeros(16), torch.ones(16))


def test_quantise_writes_the_experts_that_were_trained(data, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = TextConditioned()
    for name in ("high", "low"):
        save(tmp_path / name, model, parts=2)
        torch.nn.init.zeros_(model.transformer.proj_out.bias)  # low differs from high
    starts = experts.restored(tmp_path, "cpu")
    assert starts["high"].transformer.proj_out.bias.any()
    assert not starts["low"].transformer.proj_out.bias.any()
    monkeypatch.setattr(fit, "world", lambda: (0, 2))  # of two processes the first: high alone
    monkeypatch.setattr(experts, "train_denoiser", None)
    experts.quantise(starts, build_vae(), data, REHEARSAL, "cpu", tmp_path)
    assert sorted(f.name for f in (tmp_path / "weights").iterdir()) == [
        "tinywan_high_Q2_K.gguf",
        "tinywan_high_Q5_K_S.gguf",
        "tinywan_high_fp16.safetensors",
        "tinywan_umt5_fp16.safetensors",
        "tinywan_vae_fp16.safetensors",
    ]
    written = load_file(tmp_path / "weights" / "tinywan_high_fp16.safetensors")
    assert torch.equal(written["head.head.bias"], starts["high"].transformer.proj_out.bias.half())


def test_both_experts_are_some_process_s_own(monkeypatch):
    for size, wanted in ((1, [["high", "low"]]), (2, [["high"], ["low"]])):
        found = []
        for rank in range(size):
            monkeypatch.setattr(fit, "world", lambda place=(rank, size): place)
            found.append(list(experts.ranges(REHEARSAL)))
        assert found == wanted


def test_no_seconds_is_no_way_to_leave_a_stage_out(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["--out", str(tmp_path / "out"), "--expert-seconds", "0"])
    assert end.value.code == 2 and not (tmp_path / "out").exists()
    assert "--expert-seconds: above 0; --stages says what is trained" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--start-from", "A", "--stages", "vae"], "--start-from: the stages are experts"),
        (["--average-with", "B"], "--average-with: with --start-from"),
        (["--start-from", "A", "--stages", "average"], "--average-with: with --start-from"),
        (
            ["--start-from", "A", "--average-with", "B", "--stages", "experts,average"],
            "--average-with: a mean is of experts as they are",
        ),
        (["--stages", "expert"], "--stages: no expert; there are average, base, experts"),
    ],
)
def test_stages_that_do_not_go_together_are_refused_before_anything(tmp_path, capsys, given, said):
    with pytest.raises(SystemExit) as end:
        command.main(["--out", str(tmp_path / "out"), *given])
    assert end.value.code == 2 and not (tmp_path / "out").exists()
    assert said in capsys.readouterr().err


def test_of_two_trainings_the_mean_is_taken_that_errs_least(data, tmp_path):
    """A head that is off by +d in one and by -d in the other: their mean is the model itself."""
    torch.manual_seed(0)
    first, second = TextConditioned(), TextConditioned()
    with torch.no_grad():
        for p in first.parameters():
            p.zero_()
        second.load_state_dict(first.state_dict())
        first.transformer.proj_out.bias.add_(0.5)
        second.transformer.proj_out.bias.sub_(0.5)
    log = fit.Log(tmp_path / "log")
    found = average(
        {"low": first}, {"low": second}, {"low": Range(0.0, 1.0, 3.0)}, data, REHEARSAL, log
    )
    assert not found["low"].transformer.proj_out.bias.any()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["share"] for line in lines[:-1]] == list(SHARES)
    assert lines[-1]["taken"] == 0.5
    by_share = {line["share"]: line["loss"] for line in lines[:-1]}
    # The loss is a parabola in a constant that is added to v, with 1 before its square.
    bend = by_share[0.0] + by_share[1.0] - 2 * by_share[0.5]
    assert bend == pytest.approx(2 * 0.5**2, rel=1e-3)
