"""``gatekit commitment``: bands that settle where it is known, and a Gaussian in closed form."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from scipy.fft import dctn, idctn

import gatekit as gk
from gatekit import RectifiedFlow
from gatekit_research.commitment.bands import NAMES, bands, dct3
from gatekit_research.commitment.run import watch
from gatekit_research.commitment.settle import commitment, settles

ROOT = Path(__file__).parents[3]
FLOW, SHAPE = RectifiedFlow(), (7, 12, 10)
GRID = [5 * u / (1 + 4 * u) for u in (1 - i / 80 for i in range(80))]


def noise(seed=0):
    return torch.randn(1, 4, *SHAPE, generator=torch.Generator().manual_seed(seed)).double()


def inverse(coefficients):
    return torch.from_numpy(idctn(coefficients.numpy(), axes=(-3, -2, -1), norm="ortho"))


def test_the_transform_is_scipys():
    wanted = dctn(noise().numpy(), axes=(-3, -2, -1), norm="ortho")
    assert torch.allclose(dct3(noise()), torch.from_numpy(wanted), atol=1e-12)


def test_every_frequency_is_in_one_band():
    masks = bands(SHAPE)
    assert torch.equal(sum(mask.int() for mask in masks.values()), torch.ones(SHAPE).int())
    assert bool(masks["coarse"][0, 0, 0]) and bool(masks["fine"][-1, -1, -1])
    assert bool(masks["middle"][0, 3, 0]) and bool(masks["coarse"][0, 2, 0])  # 3/12 and 2/12
    assert bool(bands((1, 8, 8))["coarse"][0, 1, 1])  # a single picture has bands too


def test_bands_that_settle_at_known_sigmas():
    """D = x0 with each band faded in linearly: committed by halves where its ramp is half up."""
    ramps = {"coarse": (0.98, 0.86), "middle": (0.9, 0.6), "fine": (0.7, 0.1)}
    final, masks = noise(), bands(SHAPE)
    end = dct3(final)

    def share(name, sigma):
        high, low = ramps[name]
        return min(1.0, max(0.0, (high - sigma) / (high - low)))

    predictions = [
        inverse(sum(share(name, s) * end * mask for name, mask in masks.items())) for s in GRID
    ]
    curves = commitment(predictions, final, masks)
    for name, (high, low) in ramps.items():
        assert curves[name] == pytest.approx([share(name, s) for s in GRID], abs=1e-9)
        for level in (0.25, 0.5, 0.75):
            wanted = high - level * (high - low)
            found = settles(GRID, curves[name], level, FLOW)
            assert found == pytest.approx(wanted, abs=0.003)  # a step is 0.05 at most


def test_settled_is_for_good():
    """A band that turns back is settled where it comes back for the last time."""
    sigmas, curve = [1.0, 0.8, 0.6, 0.4, 0.2], [0.0, 0.9, 0.1, 0.9, 1.0]
    assert settles(sigmas, curve, 0.5, FLOW) == pytest.approx(0.5)
    assert settles(sigmas, [0.6, 0.7, 0.8, 0.9, 1.0], 0.5, FLOW) == 1.0
    assert settles(sigmas, [0.0, 0.0, 0.0, 0.0, 0.0], 0.5, FLOW) == pytest.approx(0.1)


def test_a_gaussian_with_a_known_spectrum():
    """D = a P/(a^2 P + s^2) x in each coefficient, so c = 1/sqrt(1 + s^2/(a^2 P)) on the flow.

    The run is a real one, with Heun's method; P is one number a band.
    """
    power = {"coarse": 40.0, "middle": 4.0, "fine": 0.25}
    masks = bands(SHAPE)
    spectrum = sum(power[name] * mask.double() for name, mask in masks.items())
    seen = []

    def denoise(x, sigma):
        alpha = 1.0 - sigma
        return inverse(dct3(x) * alpha * spectrum / (alpha**2 * spectrum + sigma**2))

    def keep(state, record, denoised):
        seen.append((record.sigma, denoised))

    final = gk.sample_phases(
        [gk.FunctionPhase(denoise, sampler="heun", sigmas=[*GRID, 0.002, 0.0], field="gaussian")],
        noise(),
        seed=0,
        path="flow",
        observers=[keep],
    )
    sigmas = [sigma for sigma, _ in seen]
    curves = commitment([d for _, d in seen], final, masks)
    for name, p in power.items():
        wanted = [
            1.0 / math.sqrt(1.0 + (s / (1.0 - s)) ** 2 / p) if s < 1.0 else 0.0 for s in sigmas
        ]
        assert curves[name] == pytest.approx(wanted, abs=0.02)
        ratio = math.sqrt(3.0 * p)  # c = 1/2
        half = settles(sigmas, curves[name], 0.5, FLOW)
        assert half == pytest.approx(ratio / (1.0 + ratio), abs=0.01)


LINE = ("commitment", "fake.yaml", "--prompts", "p.txt", "--seeds", 2)


def test_the_command_averages_runs(study, gatekit):
    code, out, _ = gatekit(*LINE, "-o", "c.json", "--json", "--settled", 0.7)
    found = json.loads(out)
    assert code == 0 and found == json.loads(Path("c.json").read_text())
    assert len(found["runs"]) == 4 and {r["seed"] for r in found["runs"]} == {0, 1}
    assert found["log_snr"][0] is None and found["log_snr"][-1] == pytest.approx(
        2 * math.log((1 - found["sigmas"][-1]) / found["sigmas"][-1])
    )
    for name in NAMES:
        columns = zip(*(run["commitment"][name] for run in found["runs"]), strict=True)
        assert found["mean"]["commitment"][name] == pytest.approx([sum(c) / 4 for c in columns])
        assert found["mean"]["commitment"][name][-1] == pytest.approx(1.0)  # Euler ends at D
        again = settles(found["sigmas"], found["mean"]["commitment"][name], 0.7, FLOW)
        assert found["mean"]["settled"][name] == again
    commit = found["boundaries"]["commit"]
    assert commit["sigma"] == found["mean"]["settled"]["coarse"]
    assert commit["from_wan"]["t2v"]["sigma"] == pytest.approx(commit["sigma"] - 0.875)
    apart = commit["log_snr"] - 2 * math.log(0.1 / 0.9)
    assert commit["from_wan"]["i2v"]["log_snr"] == pytest.approx(apart)


def test_the_table_says_how_far_from_wan(study, gatekit):
    code, out, _ = gatekit(*LINE)
    assert code == 0
    wanted = (
        r"commit until 0\.\d{4}, where the coarse band has settled: [+-]0\.\d{4} from Wan's t2v"
    )
    assert re.search(wanted, out)


def test_a_plot_is_written(study, gatekit):
    pytest.importorskip("matplotlib")
    assert gatekit(*LINE, "--plot", "c.png")[0] == 0
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["--prompts", "empty.txt"], "no prompt in this file"),
        (["-p", "a cat", "--prompts", "p.txt"], "give one of the two"),
        (["--edges", 0.5, 0.25], "edges rise"),
        (["--edges", 0.5, 3.0], "no frequency of a latent of 2x4x4 is fine"),
        (["--settled", 1.0], "within 0 and 1"),
        (["--set", "phases.low.strategy=restart"], "one path down"),
        (["--plot", "c.gif"], "written as .png"),
        (["-o", "gone/c.json"], "no such folder"),
    ],
)
def test_refusals(study, gatekit, line, told):
    (study / "empty.txt").write_text("\n")
    before = set(study.iterdir())
    code, out, err = gatekit("commitment", "fake.yaml", *line)
    assert code == 2 and out == ""
    (message,) = err.splitlines()
    assert told in message
    assert set(study.iterdir()) == before


def test_the_small_model_settles_from_coarse_to_fine():
    schedule = gk.load_schedule(ROOT / "schedules" / "tinywan_fp16.yaml", {"sigmas.steps": 4})
    found = watch(gk.resolve(schedule), [gk.Inputs(prompt="a red circle")], (0.25, 0.5), 0.5)
    settled = found.settled
    assert 1.0 > settled["coarse"] > settled["fine"] > 0.0
