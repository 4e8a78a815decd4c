"""The benchmark of blocks: what it adds up, and its steps rehearsed on a CPU."""

import json
import sys

import compute
import pytest


def test_kernels_are_added_up_by_kind():
    took = {
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop": 25.0,
        "nvjet_sm90_qqtst_128x128": 13.0,
        "triton_red_fused_amax_1": 0.5,
        "triton_poi_fused_2": 0.25,
        "rotate_kernel": 0.75,
        "round_kernel": 0.5,
        "Memset (Device)": 0.125,
    }
    found = compute.by_kind(took)
    assert found.pop("all") == sum(took.values()) == sum(found.values())
    assert found == {
        "attention": 25.0, "products": 13.0, "compiled": 0.75,
        "rotate_kernel": 0.75, "round_kernel": 0.5, "others": 0.125,
    }  # fmt: skip


def test_steps_run(monkeypatch, tmp_path):
    file = tmp_path / "found.json"
    given = ["compute", "--tiny", "--only", "steps", "kernels", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as ended:
        compute.main()
    found = json.loads(file.read_text())
    assert ended.value.code == 0 and not found["failed"] and len(found["steps"]) == 6
    assert all(row["difference"] < 1e-6 for row in found["steps"])
