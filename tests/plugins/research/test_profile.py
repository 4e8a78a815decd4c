"""``gatekit profile``: errors in closed form, nothing measured twice, one model at a time."""

import json
import math
from pathlib import Path

import pytest
import torch

from gatekit_research.profile.candidates import prepare
from gatekit_research.profile.document import read_profile
from gatekit_research.profile.measure import Visit, errors
from gatekit_research.profile.recording import record
from gatekit_research.profile.work import Work

ROOT = Path(__file__).parents[3]
LINE = ("profile", "fake.yaml", "--variants", "near", "far", "soft", "--prompts", "p.txt")


def plain(denoised):
    return denoised


def test_errors_of_velocities_that_are_known():
    generator = torch.Generator().manual_seed(0)
    x, v = torch.randn(2, 1, 2, 3, 4, 4, generator=generator)
    same = errors(x, 0.5, v, v, plain)
    assert same == {"relative": 0.0, "cosine": pytest.approx(1.0), "x0": 0.0, "rms": 0.0}
    found = errors(x, 0.5, v, 1.1 * v, plain)
    assert found["relative"] == pytest.approx(0.1, rel=1e-5)
    assert found["cosine"] == pytest.approx(1.0)
    assert found["rms"] == pytest.approx(0.1 * float(v.square().mean().sqrt()), rel=1e-5)
    assert found["x0"] == pytest.approx(0.05 * float(v.norm() / (x - 0.5 * v).norm()), rel=1e-5)
    assert errors(x, 0.5, v, -v, plain)["cosine"] == pytest.approx(-1.0)


def test_what_is_known_of_x0_has_no_error():
    x, v, v_q = torch.randn(3, 1, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def known(denoised):
        return torch.cat([torch.zeros_like(denoised[:, :, :1]), denoised[:, :, 1:]], dim=2)

    rest = float((v_q - v)[:, :, 1:].square().sum())
    found = errors(x, 0.5, v, v_q, known)["rms"]
    assert found == pytest.approx(math.sqrt(rest / v.numel()), rel=1e-5)


def test_the_states_are_those_of_the_run(study):
    """Following the recorded velocities with Euler's rule leads from state to state."""
    import gatekit

    schedule = gatekit.load_schedule("fake.yaml", {"phases.high.sampler": "euler"})
    plan = gatekit.resolve(schedule)
    seen = []
    states = record(plan, gatekit.Inputs(prompt="a cat"), [lambda s, r, d: seen.append((r, s.x))])
    assert states.sigmas == tuple(r.sigma for r, _ in seen) == plan.run_sigmas[:-1]
    assert states.phases == tuple(r.phase for r, _ in seen)
    for i, (before, (_, after)) in enumerate(zip(states.x, seen, strict=True)):
        step = plan.run_sigmas[i + 1] - plan.run_sigmas[i]
        assert torch.allclose(before + step * states.velocity[i], after[0], atol=1e-5)


@pytest.mark.parametrize("sampler", ["heun", "rk4", "seeds_3", "dpmpp_2m_sde", "unipc", "ipndm"])
@pytest.mark.parametrize("history", ["auto", "close"])
def test_states_are_the_starts_of_steps_whatever_the_sampler_evaluates(study, sampler, history):
    """Inner stages at the next step's sigma, and closing evaluations, are none of them."""
    import gatekit

    changes = {"phases.high.sampler": sampler, "phases.low.history": history}
    schedule = gatekit.load_schedule("fake.yaml", changes)
    plan = gatekit.resolve(schedule)
    seen = []
    states = record(plan, gatekit.Inputs(prompt="a cat"), [lambda s, r, d: seen.append(s.x[0])])
    same = [bool((x == y).all()) for x, y in zip(states.x[1:], seen[:-1], strict=True)]
    corrected = [2] if (history, sampler) == ("close", "unipc") else []  # at the boundary itself
    assert [i for i, equal in enumerate(same) if not equal] == corrected


def test_errors_match_the_closed_form(study, gatekit):
    """v_q - v = (g - g_q) tanh(x)/sigma, whatever the guidance."""
    code, out, _ = gatekit(*LINE, "--seeds", 2, "-o", "o.json")
    assert code == 0 and out.splitlines()[-1] == "o.json"
    profile = read_profile(Path("o.json"))
    assert profile.runs == 4 and profile.reference == {"high": "coarse", "low": "fine"}
    work = Work(Path("o.work"))
    states = [work.states(p.stem) for p in Path("o.work").glob("*.safetensors")]
    assert len(states) == 4
    pairs = {"near": (0.52, 0.5), "far": (0.3, 0.5), "soft": (0.7, 0.8), "fine": (0.8, 0.8)}
    for key, (gain, other) in pairs.items():
        served = [i for i, s in enumerate(profile.steps) if (s.phase == "high") == (other == 0.5)]
        rows = profile.variants[key].rows
        assert [row.step for row in rows] == served
        for row in rows:
            each = [float(s.x[row.step].tanh().square().mean().sqrt()) for s in states]
            wanted = abs(gain - other) / row.sigma * sum(each) / len(each)
            assert row.rms == pytest.approx(wanted, rel=1e-4, abs=1e-7)
    steps = profile.steps
    spans = [s.sigma - s.sigma_next for s in steps]
    far = profile.variants["far"]
    assert far.error(steps) == pytest.approx(sum(spans[r.step] * r.rms for r in far.rows))
    assert (
        far.error(steps, 0.9) == far.error(steps) > 0 == profile.variants["soft"].error(steps, 0.9)
    )


def test_files_stand_in_for_variants(study, gatekit):
    """A file that the schedule does not name is given what its reference has, and its expert."""
    (study / "other.num").write_text(json.dumps({"gain": 0.4}))
    code, _, err = gatekit("profile", "fake.yaml", "--variants", "other.num", "-o", "o.json")
    assert code == 2 and "does not say which expert" in err
    one = ["--set", "variants={m: {use: number, file: coarse.num, gain: 2.0}}"]
    one += ["--set", "phases=[{name: all, variant: m, sampler: euler}]"]
    line = ("profile", "fake.yaml", "--variants", "other.num", "-o", "o.json", *one)
    assert gatekit(*line)[0] == 0
    profile = read_profile(Path("o.json"))
    assert profile.variants["other"].spec["gain"] == 2.0
    assert profile.variants["other"].rows[0].rms > 0.0


def test_another_reference(study, gatekit):
    line = ("profile", "fake.yaml", "--reference", "far", "--variants", "far", "coarse")
    assert gatekit(*line, "-o", "o.json", "--json")[0] == 0
    profile = read_profile(Path("o.json"))
    assert profile.reference == {"high": "far", "low": "fine"}
    assert profile.variants["far"].error(profile.steps) == 0.0
    assert profile.variants["coarse"].error(profile.steps) > 0.0


def test_a_reference_of_several_variants_of_one_expert(study, gatekit):
    """Each is compared with what its phases name, so it is exact there and not elsewhere."""
    text = Path("fake.yaml").read_text()
    first = "phases:\n  - {name: first, until: 0.96, variant: far, sampler: unipc}\n"
    Path("fake.yaml").write_text(text.replace("phases:\n", first))
    assert gatekit("profile", "fake.yaml", "--variants", "near", "-o", "o.json")[0] == 0
    profile = read_profile(Path("o.json"))
    assert profile.reference == {"first": "far", "high": "coarse", "low": "fine"}
    assert list(profile.variants) == ["far", "coarse", "fine", "near"]
    for key, own in (("far", "first"), ("coarse", "high")):
        exact = {profile.steps[r.step].phase: r.rms < 1e-6 for r in profile.variants[key].rows}
        assert exact == {phase: phase == own for phase in ("first", "high")}
    assert gatekit("propose", "o.json")[0] == 0


def test_nothing_is_done_twice(study, fake, gatekit, monkeypatch):
    whole = read_after(gatekit, "whole.json")
    measure, calls = Visit.measure, []

    def killed(self, *args):
        calls.append(self.candidate.key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(self, *args)

    monkeypatch.setattr(Visit, "measure", killed)
    code, _, err = gatekit(*LINE, "-o", "o.json")
    assert code == 130 and "the same command goes on" in err and not Path("o.json").exists()
    monkeypatch.setattr(Visit, "measure", measure)
    kept = {p: p.stat().st_mtime_ns for p in Path("o.work").iterdir()}
    assert len(kept) == 2 + 3
    fake.LOG.clear()
    resumed = read_after(gatekit, "o.json")
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert without_seconds(resumed) == without_seconds(whole)
    loads = [line for line in fake.LOG if line.startswith("load")]
    assert loads == ["load fine", "load near", "load far", "load soft"]
    fake.LOG.clear()
    again = read_after(gatekit, "o.json")
    assert without_seconds(again) == resumed and not fake.LOG


def read_after(gatekit, out):
    assert gatekit(*LINE, "-o", out)[0] == 0
    return json.loads(Path(out).read_text())


def without_seconds(profile):
    for variant in profile["variants"].values():
        for row in variant["rows"]:
            del row["seconds"]
    return profile


def test_more_variants_use_the_states_there_are(study, fake, gatekit):
    gatekit("profile", "fake.yaml", "--variants", "near", "--prompts", "p.txt", "-o", "o.json")
    fake.LOG.clear()
    assert gatekit(*LINE, "-o", "o.json")[0] == 0
    assert [line for line in fake.LOG if line.startswith("load")] == ["load far", "load soft"]


def test_one_model_at_a_time(study, fake, gatekit):
    """From the end of the reference's runs on, nothing is loaded while another thing is."""
    gatekit(*LINE, "-o", "o.json")
    visits = [line for line in fake.LOG if line.startswith(("load", "unload"))][-10:]
    keys = ["coarse", "fine", "near", "far", "soft"]
    assert visits == [f"{what} {key}" for key in keys for what in ("load", "unload")]


def test_other_weights_are_measured_anew(study, gatekit):
    gatekit(*LINE, "-o", "o.json")
    before = read_profile(Path("o.json")).variants
    (study / "far.num").write_text(json.dumps({"gain": 0.1}))
    gatekit(*LINE, "-o", "o.json")
    after = read_profile(Path("o.json")).variants
    assert after["near"] == before["near"]
    assert after["far"].rows[0].rms == pytest.approx(2 * before["far"].rows[0].rms, rel=1e-4)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["--variants", "neer"], "no variant of the schedule, and no such file .*'near'"),
        (["--variants", "near", "--prompts", "empty.txt"], "no prompt in this file"),
        (["--variants", "near", "--prompts", "gone.txt"], "no readable file of prompts"),
        (["--variants", "near", "big"], "of another size than the reference 'coarse'.*9 weights"),
        (["--variants", "soft", "--set", "phases.low.variant=coarse"], "serves no phase"),
        (["--variants", "near", "--reference", "near", "--reference", "far"], "two references"),
        (["--variants", "near", "--set", "phases.low.sampler=rk45"], "known beforehand"),
        (["--variants", "near", "--plot", "a.gif"], "written as .png"),
        (["--variants", "near", "-o", "gone/o.json"], "no such folder"),
        (["--variants", "near", "-o", "fake.json"], "exists and is no profile"),
        (["--variants", "near", "-o", "o.png"], "ends in .json .*name it o.json"),
    ],
)
def test_refusals(study, gatekit, line, told):
    (study / "empty.txt").write_text("\n# nothing\n")
    (study / "fake.json").write_text("{}")
    (study / "big.num").write_text(json.dumps({"gain": 0.5, "weights": 9}))
    more = ["--set", "variants.big={use: number, expert: high, file: big.num}"]
    before = set(study.iterdir())
    code, out, err = gatekit("profile", "fake.yaml", *line, *more)
    assert code == 2 and out == ""
    (message,) = err.splitlines()
    import re

    assert re.search(told, message), message
    assert set(study.iterdir()) == before


def test_a_plot_is_written(study, gatekit):
    pytest.importorskip("matplotlib")
    assert gatekit(*LINE, "-o", "o.json", "--plot", "a.png")[0] == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG") and not Path("o.png").exists()


def test_the_small_model(gatekit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ROOT / "schedules" / "quickstart.yaml"
    files = ["tinywan_high_Q2_K.gguf", "high-q5ks"]
    Path("p.txt").write_text("a red circle moves left")
    line = ["profile", quick, "--variants", *files, "--set", "sigmas.steps=3", "-o", "o.json"]
    line += ["--prompts", "p.txt"]
    assert gatekit(*line, "--reference", "tinywan_high_fp16.safetensors")[0] == 0
    profile = read_profile(Path("o.json"))
    assert list(profile.variants) == ["tinywan_high_fp16", "low-fp16", "high-q2k", "high-q5ks"]
    exact, coarse, finer = (profile.variants[k] for k in ("low-fp16", "high-q2k", "high-q5ks"))
    assert coarse.error(profile.steps) > 2 * finer.error(profile.steps) > 0
    assert exact.error(profile.steps) == pytest.approx(0.0, abs=1e-5)
    assert coarse.bits < finer.bits < exact.bits == pytest.approx(16.0, abs=0.1)


def test_every_candidate_is_planned_with_its_expert(study):
    bench = prepare(Path("fake.yaml"), ["near", "soft"])
    assert [c.key for c in bench.candidates] == ["coarse", "fine", "near", "soft"]
    assert [[p.name for p in c.phases] for c in bench.candidates] == [
        ["high"], ["low"], ["high"], ["low"]
    ]  # fmt: skip
