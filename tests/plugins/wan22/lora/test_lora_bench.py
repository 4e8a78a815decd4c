"""The benchmark in docs/loras.md runs, and its bound is what the page says it is."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path


def test_the_benchmark_runs(tmp_path, capsys, monkeypatch):
    path = Path(__file__).parents[3] / "bench/lora.py"
    spec = importlib.util.spec_from_file_location("bench_lora", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    monkeypatch.setattr(bench, "REPEATS", 1)
    size = {"dim": 128, "layers": 1, "frames": 1, "rank": 8, "compute": "fp32"}
    bench.measure(argparse.Namespace(**size), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["fp16"] * 4 + ["Q8_0"] * 3
    base = float(lines[0].split(";")[1].split()[0]) * 1e9
    # 390 tokens, but for the 512 of the text in k and v of the cross-attention.
    ffn = 128 * 27 // 10 // 32 * 32
    more = 2 * 8 * (390 * (6 * 256 + 2 * (128 + ffn)) + 512 * 2 * 256)
    bounds = {line[6:20].strip(): float(line.split()[-1]) for line in lines[2:]}
    assert abs(bounds["one beside"] - (1 + more / base)) < 0.02 * more / base + 1e-3
    assert bounds["one merged"] == 1.0
