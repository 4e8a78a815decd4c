"""Writing the experts' files: from what was trained, without training."""

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("diffusers")

from gatekit_tinywan.train import __main__ as command
from gatekit_tinywan.train import experts, fit
from gatekit_tinywan.train.config import REHEARSAL
from gatekit_tinywan.train.dataset import Dataset
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
