"""The benchmark of passes of few tokens runs through, rehearsed on a CPU."""

import json
import sys

import few_tokens
import pytest
import torch

from gatekit_wan22 import compiling, passes


@pytest.fixture
def rehearsed(monkeypatch, tmp_path):
    """Run it, and return what it found."""
    monkeypatch.setattr(passes, "capture_on", passes.capture_on)  # the benchmark replaces both
    monkeypatch.setattr(compiling, "BACKEND", compiling.BACKEND)
    compiling.compiled_forward.cache_clear()

    def run(*given):
        out = tmp_path / "found.json"
        monkeypatch.setattr(sys, "argv", ["few_tokens", "--tiny", "--json", str(out), *given])
        few_tokens.main()
        return {k: v for k, v in json.loads(out.read_text()).items() if isinstance(v, dict)}

    yield run
    compiling.compiled_forward.cache_clear()
    torch._dynamo.reset()


def test_every_part_runs(rehearsed):
    found = rehearsed()
    assert len(found) == 13 and not any("error" in part for part in found.values())
    beside = found.pop("beside a thread that copies")
    assert beside["graphs"] == 2 and beside["difference"] == 0 and "thread failed" not in beside
    for label, part in found.items():
        assert part["graphs"] == 1 and part["same bits"]
        assert ("over bf16, replayed" in part) is ("bf16" not in label)


def test_a_part_that_fails_or_has_no_time_is_recorded(rehearsed, monkeypatch):
    def broken(bench, model, latent, compiled, over):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(few_tokens, "both_ways", broken)
    found = rehearsed()
    assert [part.get("error") for part in found.values()].count("RuntimeError: no kernel") == 12
    assert all(part == {"left out": "time is up"} for part in rehearsed("--seconds", "0").values())
