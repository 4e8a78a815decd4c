"""The benchmark of residency runs through, rehearsed on a CPU."""

import json
import sys

import pytest
import residency

from gatekit_wan22 import SafetensorsVariant, placed


def test_every_part_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(placed, "find", placed.find)  # the benchmark replaces both
    monkeypatch.setattr(SafetensorsVariant, "_whole", SafetensorsVariant._whole)
    out = tmp_path / "found.json"
    given = ["residency", "--tiny", "--folder", str(tmp_path), "--json", str(out)]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ended:
        residency.main()
    assert not ended.value.code
    found = json.loads(out.read_text())
    parts = [part for part in found.values() if isinstance(part, dict)]
    assert len(parts) == 8 and not any("error" in part for part in parts)
    assert found["streamed in 10 GiB"]["streamed blocks"] > 2
    assert all(part.get("same bits as resident", True) is True for part in parts)
    assert found["switch"]["there before"] > 0
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--tiny", "--folder", "nowhere"], "nowhere is no folder"),
        (["--tiny", "--compute", "fp8"], "fp8 needs a GPU"),
        (["--tiny", "--layers", "0"], "must be at least 4"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(given, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["residency", *given])
    with pytest.raises(SystemExit) as ended:
        residency.main()
    assert ended.value.code == 2 and message in capsys.readouterr().err
