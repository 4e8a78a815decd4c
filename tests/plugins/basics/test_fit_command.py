"""``gatekit fit`` as a command: what it writes, keeps and refuses."""

import json
import sys

import pytest
import torch

import gatekit
from gatekit.cli import call
from gatekit_basics.fit_runs import Runs, chosen, from_plain, measured_on
from gatekit_basics.travel import load, looked_at
from gatekit_basics.trying import error_of as error_to


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


def test_the_command_writes_a_schedule_that_runs(here, capsys):
    line = ["fit", "fake.yaml", "-p", "x", "-o", "own.yaml", "--fine", "40", "--keep", "m.st"]
    steps = ["--set", "sigmas.steps=16"]
    assert call([*line, *steps]) == 0
    said = capsys.readouterr()
    assert "predicted" in said.err and said.out == "own.yaml\n"
    plan = gatekit.resolve(gatekit.load_schedule("own.yaml"))
    assert plan.schedule.sigmas.use == "explicit" and len(plan.run_sigmas) == 17
    assert gatekit.run(plan, gatekit.Inputs(prompt="x")).video.ndim == 4
    # Measured once: another number of steps needs no prompt; below 16 steps nothing is fitted.
    assert call(["fit", "fake.yaml", "-o", "few.yaml", "--keep", "m.st"]) == 0
    assert "predicted" not in capsys.readouterr().err
    assert "equidistributed" in (here / "few.yaml").read_text()
    assert len(gatekit.resolve(gatekit.load_schedule("few.yaml")).run_sigmas) == 9
    # A name that YAML would read otherwise is quoted.
    (here / "a: b #1.yaml").write_text((here / "fake.yaml").read_text())
    assert call(["fit", "a: b #1.yaml", "-o", "odd.yaml", "--keep", "m.st"]) == 0
    assert len(gatekit.resolve(gatekit.load_schedule("odd.yaml")).run_sigmas) == 9


def test_tried_grids_are_run_and_the_nearest_is_written(here, capsys):
    line = ["fit", "fake.yaml", "--keep", "m.st", "--set", "sigmas.steps=8", "--try", "5"]
    given = ["-p", "x", "-p", "another prompt", "--fine", "60", "--seed", "3"]
    assert call([*line, *given, "-o", "own.yaml"]) == 0
    said = capsys.readouterr().err
    assert "up to 5 grids of 8 steps are run for each of 2 prompts" in said
    assert "the least of 5 grids" in said and "chosen from 5" in (here / "own.yaml").read_text()
    plan = gatekit.resolve(gatekit.load_schedule("own.yaml"))
    fine = load(here / "m.st", measured_on(plan))
    kept = [from_plain(inputs) for inputs in fine.inputs]
    assert [(i.prompt, i.seed) for i in kept] == [("x", 3), ("another prompt", 4)]

    def error(sets=()):
        plan = gatekit.resolve(gatekit.load_schedule("fake.yaml", list(sets)))
        ends = [gatekit.run(plan, i).latent[None] for i in kept]
        return error_to(looked_at(torch.cat(ends)), fine.ends)

    values = list(plan.run_sigmas)
    known = chosen_from(fine, 8)
    mine, others = error([explicit(values)]), [error([explicit(g)]) for g in known]
    assert f"error to the fine runs: {mine:.3g}," in said
    assert mine <= min(others) and len(set(others)) == 2
    # What was measured is kept with its prompts: to try again needs none, and finds the same.
    assert call([*line, "-o", "again.yaml"]) == 0
    assert gatekit.load_schedule("again.yaml").sigmas == gatekit.load_schedule("own.yaml").sigmas


def test_no_video_is_decoded(here, fake, monkeypatch):
    """An end is a latent; a decoder of a large model may take longer than a step."""
    monkeypatch.setattr(fake.FakeFamily, "decode", lambda *_: pytest.fail("decoded"))
    line = ["fit", "fake.yaml", "-p", "x", "-o", "own.yaml", "--fine", "40", "--try", "3"]
    assert call(line) == 0


def explicit(values):
    return f"sigmas={json.dumps({'use': 'explicit', 'values': list(values)})}"


def chosen_from(fine, steps):
    """What is tried first."""
    seen = []

    def ends(grid):
        seen.append(grid)
        return fine.ends

    chosen(fine, 1.0, steps, ends, 2)
    return seen


def test_what_the_command_refuses(here, capsys):
    def refused(*line):
        assert call(["fit", "fake.yaml", *line]) == 2
        return capsys.readouterr().err

    assert "a prompt is needed" in refused("-o", "own.yaml")
    assert "-o: no such folder" in refused("-o", "nowhere/own.yaml", "-p", "x")
    (here / "m.st").write_text("something else")
    assert "no measurement" in refused("-o", "own.yaml", "-p", "x", "--keep", "m.st")
    shares = [f"phases.{p}.share=1" for p in plan_phases()]
    sets = [part for share in shares for part in ("--set", share)]
    assert "fake.yaml:10:9: sigmas: the phases have steps of their own" in refused(
        "-o", "own.yaml", "-p", "x", *sets
    )
    for form, sigma in (("step: 3", "0.9375"), ("fraction: 0.25", "0.972222")):
        until = ["--set", f"phases.0.until={{{form}}}"]
        assert f"moves with the grid that is to be placed (got '{form.replace(':', '')}'); " in (
            said := refused("-o", "own.yaml", "-p", "x", *until)
        )
        assert said.startswith("gatekit: --set phases.0.until") and f"here it is {sigma}" in said
    assert not (here / "own.yaml").exists()


def test_a_measurement_is_of_one_size_and_of_its_own_prompts(here, capsys):
    line = ["fit", "fake.yaml", "--keep", "m.st", "-o"]
    assert call([*line, "a.yaml", "-p", "x", "--fine", "40"]) == 0
    assert call([*line, "b.yaml", "-p", "x"]) == 0 and "not used" not in capsys.readouterr().err
    assert call([*line, "c.yaml", "-p", "another"]) == 0
    said = (
        "what -p, -i and --seed say is not used: m.st was measured with something else ('x', seed 0"
    )
    assert said in capsys.readouterr().err
    for number, other in enumerate((["--seed", "4"], ["-i", "first.png"])):
        assert call([*line, f"e{number}.yaml", *other]) == 0 and said in capsys.readouterr().err
    assert call([*line, "f.yaml"]) == 0 and "not used" not in capsys.readouterr().err
    assert call([*line, "d.yaml", "--try", "2", "--set", "video.width=128"]) == 2
    assert "boundaries, video size or first sigma (got 'm.st')" in capsys.readouterr().err


def test_a_fine_run_of_other_steps_is_not_what_was_asked_for(here, capsys):
    line = ["fit", "fake.yaml", "--keep", "m.st", "-p", "x", "-o"]
    assert call([*line, "a.yaml", "--fine", "41"]) == 0
    kept = (here / "m.st").read_bytes()
    capsys.readouterr()
    assert call([*line, "b.yaml", "--fine", "60"]) == 2
    said = (
        "--fine: m.st was measured with 41 steps (got 60); leave --fine out, or name another file"
    )
    assert said in capsys.readouterr().err
    assert not (here / "b.yaml").exists() and (here / "m.st").read_bytes() == kept
    assert call([*line, "c.yaml", "--fine", "41"]) == call([*line, "d.yaml"]) == 0


def three(here, until):
    """With a phase below 0.9 that few grids have a step in."""
    middle = f"  - {{name: mid, until: {until}, variant: coarse, sampler: euler}}\n  - name: low\n"
    text = (here / "fake.yaml").read_text().replace("  - name: low\n", middle)
    (here / "three.yaml").write_text(text)


def test_a_grid_that_leaves_a_phase_without_a_step_is_not_written(here, capsys):
    three(here, 0.89)  # Wan's grid of 8 steps has 0.8929; grids of the curvature have no such sigma
    line = ["fit", "three.yaml", "--keep", "m.st", "-o", "own.yaml"]
    assert call([*line, "-p", "x", "--fine", "120"]) == 2
    assert "phase 'mid' is left without a step" in capsys.readouterr().err
    assert (here / "m.st").exists() and not (here / "own.yaml").exists()
    assert call([*line, "--try", "2"]) == 1
    assert "none of 2 grids could be run: each ended at NaN" in capsys.readouterr().err
    assert not (here / "own.yaml").exists()


def test_a_grid_that_leaves_a_phase_without_a_step_is_passed_over(here):
    """Among those that have one the nearest is chosen: what remains of the search goes on."""
    three(here, 0.85)
    line = ["fit", "three.yaml", "-p", "x", "--fine", "120", "-o", "own.yaml", "--try", "9"]
    runs, inner = [], Runs.planned

    def planned(self, grid):
        runs.append(not any(0.85 <= s < 0.9 for s in grid))
        return inner(self, grid)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Runs, "planned", planned)
        assert call(line) == 0
    assert any(runs) and not all(runs)
    values = gatekit.resolve(gatekit.load_schedule("own.yaml")).run_sigmas
    assert any(0.85 <= s < 0.9 for s in values)


def test_what_would_be_lost_is_looked_at_before_the_fine_run(here, capsys, monkeypatch):
    """A missing scipy, and a first sigma other than that of what was kept."""
    line = ["fit", "fake.yaml", "-p", "x", "--fine", "40", "--keep", "m.st"]
    assert call([*line, "-o", "few.yaml"]) == 0
    first = ["--set", "sigmas={use: explicit, values: [0.99, 0.9, 0.5, 0.2, 0.0]}"]
    assert call([*line, "-o", "own.yaml", *first]) == 2
    assert "measured with other models, guidance, boundaries" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    more = ["--set", "sigmas.steps=16", "-o", "own.yaml", "--keep", "other.st"]
    assert call([*line, *more]) == 2
    assert "fitting needs scipy" in capsys.readouterr().err
    assert not (here / "other.st").exists() and not (here / "own.yaml").exists()


def plan_phases():
    return [p.name for p in gatekit.load_schedule("fake.yaml").phases]
