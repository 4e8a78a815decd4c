"""How a schedule would name a weight file."""

import json
from pathlib import Path

import pytest

import gatekit
from gatekit import WeightsError
from gatekit_tinywan.family import WEIGHTS


def test_a_file_becomes_an_entry_that_opens(fake, tmp_path):
    (tmp_path / "a.num").write_text(json.dumps({"gain": 0.5}))
    spec = gatekit.variant_spec(tmp_path / "a.num", "fake")
    assert spec == {"use": "number", "file": str(tmp_path / "a.num")}
    assert gatekit.open_variant(spec, "fake", device="cpu").loaded == ("cpu", "fp32")


@pytest.mark.parametrize(
    ("name", "use", "expert"),
    [
        ("tinywan_high_Q2_K.gguf", "gguf", "high"),
        ("tinywan_low_fp16.safetensors", "safetensors", "low"),
    ],
)
def test_format_and_expert(name, use, expert):
    spec = gatekit.variant_spec(WEIGHTS / name, "tinywan")
    assert (spec["use"], spec["expert"], Path(spec["file"]).name) == (use, expert, name)


def test_refusals(fake, tmp_path):
    with pytest.raises(WeightsError, match="no such weight file"):
        gatekit.variant_spec(tmp_path / "gone.num", "fake")
    (tmp_path / "a.num").write_text("x")
    with pytest.raises(WeightsError, match=r"no variant of the family 'fake'.*no number in it"):
        gatekit.variant_spec(tmp_path / "a.num", "fake")
