"""The weights in the package: what they are, and that they show what is asked for."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

import gatekit
from gatekit_tinywan.family import WEIGHTS
from gatekit_wan22 import WanFamily

QUICKSTART = Path(__file__).parents[3] / "schedules" / "quickstart.yaml"

PROMPT = (
    "a large red circle moves right slowly and passes in front of a small blue square "
    "moving up quickly on a light background"
)


def test_the_files_of_every_schedule_are_there_and_small():
    names = {f.name for f in WEIGHTS.glob("tinywan_*")}
    assert names == {
        "tinywan_high_Q2_K.gguf", "tinywan_high_Q5_K_S.gguf", "tinywan_high_fp16.safetensors",
        "tinywan_low_Q2_K.gguf", "tinywan_low_fp16.safetensors",
        "tinywan_umt5_fp16.safetensors", "tinywan_vae_fp16.safetensors",
    }  # fmt: skip
    assert sum(f.stat().st_size for f in WEIGHTS.iterdir()) <= 40 * 2**20


@pytest.mark.parametrize("file", sorted(WEIGHTS.glob("tinywan_*")), ids=lambda p: p.name)
def test_inspect_says_that_a_file_serves_the_small_model(file, capsys):
    from gatekit.cli import call

    assert call(["inspect", str(file)]) == 0
    assert " of family wan22 (also tinywan)\n" in capsys.readouterr().out


@pytest.mark.parametrize("log", sorted(WEIGHTS.glob("*.log")), ids=lambda p: p.stem)
def test_logs_say_what_made_them(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"config", "device", "torch"} <= set(lines[0])
    assert all(a["t"] <= b["t"] for a, b in pairwise(lines))


@pytest.mark.parametrize(
    ("expert", "mix", "most"),
    [("high", "Q2_K", 0.30), ("low", "Q2_K", 0.30), ("high", "Q5_K_S", 0.045)],
)
def test_the_gguf_files_hold_the_weights_of_the_fp16_files(expert, mix, most):
    """Every block matrix, no worse than GGML's quantiser without an importance matrix makes it."""
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from safetensors.numpy import load_file

    pytest.importorskip("libggml")
    from gatekit_tinywan.train.quantise import is_matrix, kind_of, quantise

    exact = load_file(WEIGHTS / f"tinywan_{expert}_fp16.safetensors")
    held = {t.name: t for t in GGUFReader(WEIGHTS / f"tinywan_{expert}_{mix}.gguf").tensors}
    assert set(held) == set(exact)
    errors = []
    for name in filter(is_matrix, held):
        wanted, kind = exact[name].astype(np.float32), held[name].tensor_type
        plain = dequantize(quantise(wanted, kind_of(name, mix)), kind)
        shipped = dequantize(held[name].data, kind)
        error, bound = np.linalg.norm(shipped - wanted), np.linalg.norm(plain - wanted)
        assert 0.5 * bound < error < (1.0 if mix == "Q2_K" else 1.04) * bound, name
        errors.append(error / np.linalg.norm(wanted))
    assert 0.5 * most < np.mean(errors) < most


def test_the_quickstart_shows_what_is_asked_for():
    """Two things of the right colours, ways and order; finer attributes are for the evaluation."""
    from gatekit_tinywan.world.attributes import encode
    from gatekit_tinywan.world.captions import parse_caption
    from gatekit_tinywan.world.judge import compare
    from gatekit_tinywan.world.judge_measure import measure

    plan = gatekit.resolve(gatekit.load_schedule(QUICKSTART), device="cpu")
    result = gatekit.run(plan, gatekit.Inputs(prompt=PROMPT, seed=0))
    assert isinstance(plan.family, WanFamily)
    video = plan.family.open_vae("cpu").decode(result.latent[None]) / 2 + 0.5
    codes = encode([parse_caption(PROMPT)])
    verdict = compare(measure(video, codes.colour), codes)
    for name in ("background", "colour", "direction", "relation"):
        assert bool(getattr(verdict, name).all()), name
