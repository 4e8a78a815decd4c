"""``gatekit propose``: what it writes runs as predicted; profiles of other models are refused."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from gatekit import Inputs, load_schedule, resolve, run

PROFILE = ("profile", "fake.yaml", "--variants", "near", "far", "soft", "--prompts", "p.txt")


@pytest.fixture
def profiled(study, gatekit):
    assert gatekit(*PROFILE, "-o", "o.json")[0] == 0
    return study


def chosen(gatekit, *line):
    code, out, err = gatekit("propose", "o.json", *line, "--json")
    assert code == 0, err
    return json.loads(out)["chosen"]


def test_a_proposal_runs_as_it_says(profiled, gatekit):
    found = chosen(gatekit, "--budget", "bits=8", "--phases", 4, "-o", "s.yaml")
    plan = resolve(load_schedule("s.yaml"), require_files=True)
    models = [row.model for row in plan.table()]
    for piece in found["pieces"]:
        start, end = piece["steps"]
        assert models[start:end] == [piece["variant"]] * (end - start)
    assert plan.run_sigmas == resolve(load_schedule("fake.yaml")).run_sigmas
    bits = sum(plan.facts[m].bits_per_weight for m in models) / len(models)
    assert found["bits"] == pytest.approx(bits) and bits <= 8 < bits + 2
    assert len(plan.phases) == len(found["pieces"]) == 4 or len(plan.phases) == 3
    header = Path("s.yaml").read_text().partition("version:")[0]
    assert f"{found['error']:.4g}" in header and f"{found['bits']:.2f} bits" in header
    assert all(line.startswith("#") for line in header.splitlines())


def test_without_a_limit_it_is_the_reference(profiled, gatekit):
    found = chosen(gatekit, "-o", "s.yaml")
    assert (found["error"], found["switches"]) == (0.0, 1)
    latents = [
        run(resolve(load_schedule(file)), Inputs(prompt="a cat")).latent
        for file in ("s.yaml", "fake.yaml")
    ]
    assert latents[0].equal(latents[1])


def test_what_is_predicted_is_what_comes_of_it(profiled, gatekit):
    """The final latent changes by less than E, and E orders the changes."""
    ends = {}
    for bits in (4, 6, 9, 16):
        found = chosen(gatekit, "--budget", f"bits={bits}", "-o", f"s{bits}.yaml")
        plan = resolve(load_schedule(f"s{bits}.yaml"))
        ends[bits] = (found["error"], run(plan, Inputs(prompt="a cat")).latent)
    changes = {b: float((x - ends[16][1]).square().mean().sqrt()) for b, (_, x) in ends.items()}
    errors = [ends[bits][0] for bits in (4, 6, 9, 16)]
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[2] > 0
    assert [changes[b] for b in ends] == sorted(changes.values(), reverse=True)


def test_the_front_is_a_front(profiled, gatekit):
    code, out, _ = gatekit("propose", "o.json", "--json")
    front = json.loads(out)["front"]
    assert code == 0 and len(front) > 4
    for before, after in pairwise(front):
        assert before["objective"] < after["objective"] and before["bits"] > after["bits"]
    code, out, _ = gatekit("propose", "o.json", "--budget", "bits=9")
    assert out.startswith(f"front of error and bits: {len(front)} proposals")
    (marked,) = [line for line in out.splitlines() if line.rstrip().endswith("<")]
    assert "high" not in marked and " > " in marked


def test_phases_that_step_otherwise_are_not_merged(study, gatekit):
    """Same expert: one stretch where only the variant differs, two where the sampler does."""
    text = Path("fake.yaml").read_text()
    two = "  - {name: first, until: 0.96, variant: near, sampler: %s, guidance: {scale: 2.0}}\n"
    for sampler, fewest in (("unipc", 2), ("euler", 3)):
        more = "phases:\n" + two.replace("scale: 2.0", "use: cfg, scale: 2.0") % sampler
        Path("fake.yaml").write_text(text.replace("phases:\n", more))
        assert gatekit(*PROFILE, "-o", "o.json")[0] == 0
        code, _, err = gatekit("propose", "o.json", "--phases", fewest - 1)
        assert code == 2 and f"use {fewest} or more" in err
        made = chosen(gatekit, "--phases", fewest, "--budget", "bits=16", "-o", f"{sampler}.yaml")
        samplers = [p.sampler.name for p in resolve(load_schedule(f"{sampler}.yaml")).phases]
        assert samplers == ["unipc", "unipc", "euler"][3 - fewest :] or samplers[0] == sampler
        assert len(made["pieces"]) == fewest


def test_phases_with_steps_of_their_own_keep_their_sigmas(study, gatekit):
    own = ["--set", "phases.high.steps=4", "--set", "phases.low.steps=3"]
    own += ["--set", "sigmas={use: shifted_linear}"]
    assert gatekit(*PROFILE, *own, "-o", "o.json")[0] == 0
    found = chosen(gatekit, "--budget", "bits=9", "--phases", 4, "-o", "s.yaml")
    plan = resolve(load_schedule("s.yaml"))
    given = load_schedule("fake.yaml", [text for text in own if text != "--set"])
    assert plan.run_sigmas == pytest.approx(resolve(given).run_sigmas)
    assert len(plan.phases) == len(found["pieces"]) > 2


def test_files_are_found_from_where_the_schedule_is_written(profiled, gatekit):
    (profiled / "sub").mkdir()
    Path("other.num").write_text(json.dumps({"gain": 0.5, "bits": 3.0}))
    line = (*PROFILE, "--set", "variants.x={use: number, expert: high, file: other.num}")
    assert gatekit(*line[:3], "x", *line[3:], "-o", "o.json")[0] == 0
    code, _, err = gatekit("propose", "o.json", "--budget", "bits=3.7", "-o", "sub/s.yaml")
    assert code == 0 and "to run it, add --allow-outside" in err
    plan = resolve(load_schedule("sub/s.yaml", allow_outside=True), require_files=True)
    assert "x" in plan.variants and {f.parent for f in plan.files()} == {profiled}
    chosen(gatekit, "--budget", "bits=3.7", "-o", "s.yaml")
    assert str(profiled) not in Path("s.yaml").read_text()


def test_a_moved_schedule_is_said(profiled, gatekit):
    Path("fake.yaml").rename("moved.yaml")
    code, _, err = gatekit("propose", "o.json")
    assert code == 2 and "not where it was" in err
    assert gatekit("propose", "o.json", "--schedule", "moved.yaml")[0] == 0


def changed(text, old, new):
    def change():
        path = Path(text)
        path.write_text(path.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("line", "change", "told"),
    [
        ([], changed("coarse.num", "0.5", "0.6"), "coarse.num, the profile other bytes"),
        ([], changed("vae.bin", "vae", "VAE"), "vae.bin, the profile other bytes"),
        ([], changed("fake.yaml", "scale: 2.0", "scale: 3.0"), "cfg scale=3.0.*cfg scale=2.0"),
        ([], changed("fake.yaml", "steps: 8", "steps: 9"), "9 steps, the profile 8 steps"),
        ([], changed("fake.yaml", "shift: 5.0", "shift: 6.0"), "8 steps at other sigmas"),
        ([], changed("fake.yaml", "frames: 5", "frames: 9"), "video"),
        (["--schedule", "quick.yaml"], lambda: None, "family tinywan.*family fake"),
        (["--schedule", "gone.yaml"], lambda: None, "gone.yaml"),
        (["--budget", "bits=1"], lambda: None, r"the nearest that does: bits=\d"),
        (["--budget", "switches=0"], lambda: None, "the nearest that does: switches=1"),
        (["--budget", "vram=1MiB"], lambda: None, "the nearest that does: vram=2MiB"),
        (["--budget", "apples=1"], lambda: None, "a budget is bits="),
        (["-o", "fake.yaml"], lambda: None, "this file exists"),
        ([], changed("o.json", "gatekit-profile-1", "x"), "not a profile"),
        ([], Path("o.json").unlink, "no readable profile"),
    ],
)
def test_refusals(profiled, gatekit, line, change, told):
    quick = Path(__file__).parents[3] / "schedules" / "quickstart.yaml"
    Path("quick.yaml").write_text(quick.read_text())
    change()
    before = set(profiled.iterdir())
    out = [] if "-o" in line else ["-o", "s.yaml"]
    code, printed, err = gatekit("propose", "o.json", *line, *out)
    assert code == 2 and printed == ""
    (message,) = err.splitlines()
    assert re.search(told, message), message
    assert set(profiled.iterdir()) == before
