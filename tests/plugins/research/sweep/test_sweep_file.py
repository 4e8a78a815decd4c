"""The sweep file: what its axes make, and every mistake at its line."""

import contextlib
from pathlib import Path

import pytest

import gatekit
from gatekit_research.sweep.arms import arms_of
from gatekit_research.sweep.cells import _told
from gatekit_research.sweep.file import load_sweep
from gatekit_research.sweep.order import ordered, variants_of


def arms(file):
    return arms_of(load_sweep(file))


def test_cases_times_points_and_a_fixed_reference(sweep):
    found = arms(sweep())
    names = ["plain, steps=6", "plain, steps=8", "euler, steps=6", "euler, steps=8"]
    assert [a.name for a in found] == ["reference", *names]
    assert [a.baseline for a in found] == [None, None, None, *names[:2]]
    assert {a.reference for a in found[1:]} == {"reference"}
    assert [a.plan.nfe for a in found] == [16, 6, 8, 6, 8]
    assert found[3].plan.phases[0].sampler.name == "euler"


def test_a_case_may_be_the_reference_at_its_own_point(sweep):
    found = arms(sweep(("reference: {set: {sigmas.steps: 16}}", "reference: plain")))
    assert [a.reference for a in found] == ["plain, steps=6", "plain, steps=8"] * 2


def test_zipped_keys_go_together_and_lists_are_needless(sweep):
    text = (
        "version: 1\nname: z\nbase: fake.yaml\nprompts: [x]\n"
        "zip:\n  - {sigmas.steps: [4, 6], phases.high.until: [0.8, 0.9]}\n"
        "grid: {phases.low.sampler.use: [euler, heun]}\n"
    )
    found = arms(sweep(text=text))
    assert [a.name for a in found] == [
        "steps=4, until=0.8, use=euler",
        "steps=4, until=0.8, use=heun",
        "steps=6, until=0.9, use=euler",
        "steps=6, until=0.9, use=heun",
    ]
    assert [a.baseline for a in found] == [None, *[found[0].name] * 3]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("grid:", "gird:", ":8:1: gird: unknown key 'gird'; did you mean 'grid'?"),
        ("grid:", "family:", ":8:1: family: unknown key 'family'; known: base, baseline, grid"),
        (
            "sigmas.steps: [6",
            "sigmas.stpes: [6",
            ":9:3: sigmas.stpes: unknown key 'stpes'; did you",
        ),
        ("[6, 8]", "[6, many]", ":9:21: sigmas.steps: must be a whole number"),
        ("[6, 8]", "[]", ":9:17: grid.sigmas.steps: must not be empty"),
        ("sampler: euler", "sampler: eulr", ":6:46: phases[0].sampler: unknown sampler 'eulr'"),
        ("phases.high.sampler", "phases.hgih.sampler", "phases has no entry 'hgih'; did you mean"),
        ("psnr", "psnrr", ":12:39: metrics[2]: unknown metric 'psnrr'; did you mean 'psnr'?"),
        ("base: fake.yaml", "base: fale.yaml", ":3:7: base: no such schedule"),
        ("name: euler", "name: plain", ":6:12: list[1].name: two cases of one name"),
        ("{set: {sigmas.steps: 16}}", "best", ":7:12: reference: no case of this name"),
        ("reference: {set: {sigmas.steps: 16}}\n", "", "compares with a reference"),
        ("seeds: 1", "seeds: [-1]", "seeds"),
        (
            "seeds: 1",
            "seeds: -1",
            "seeds: must be a list of seeds, or their number, from 1 to 100000",
        ),
        ("prompts: [a ball, a longer ball]", "prompts: []", ":10:10: prompts: must not be empty"),
        ("a longer ball]", "a ball]", ":10:19: prompts[1]: the same of prompts twice"),
        ("seeds: 1", "seeds: [3, 3]", ":11:12: seeds[1]: the same of seeds twice"),
        ("[a ball,", "[{prompt: a ball, image: no.png},", ":10:11: prompts[0]: no such image"),
        ("[6, 8]", "[6, 6]", "two arms of one name"),
        ("psnr", "caption", ":10:11: prompts[0]: the metric 'caption' judges canonical captions"),
        ("[6, 8]", "[1, 8]", ":5:5: list[0]: arm 'plain, steps=1': "),
    ],
)
def test_mistakes_are_told_at_their_line_and_nothing_is_written(
    sweep, call, project, capsys, old, new, said
):
    file = sweep((old, new))
    assert call(file) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "sweep.yaml" in line
    assert not (project / "small.sweep").exists()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("-i: a.png", "at: image: a.png"),
        ("--last-image: a.png", "at: last_image: a.png"),
        ("-i", "at: image"),
        ("a: b.png", "at: a: b.png"),
        (None, "at"),
    ],
)
def test_an_image_of_a_sweep_is_no_option(where, said):
    with pytest.raises(gatekit.InputError) as error, _told("at"):
        raise gatekit.InputError("no such image", where=where)
    assert error.value.where == said


def test_json_is_of_a_dry_run(sweep, call, project, capsys):
    assert call(sweep(), "--json") == 2
    assert "--json: JSON is what a dry run prints" in capsys.readouterr().err
    assert not (project / "small.sweep").exists()


def test_a_place_that_cannot_be_made_is_wrong_input(sweep, call, project, capsys):
    assert call(sweep(), "-o", "fake.yaml/s") == 2
    assert "fake.yaml/s: cannot write: Not a directory" in capsys.readouterr().err


def test_a_sweep_file_that_is_none_is_not_called_a_schedule(call, capsys):
    assert call("nowhere.yaml") == 2
    said = "nowhere.yaml: cannot read the sweep file: No such file or directory; give the path of a"
    assert f"{said} sweep file (.yaml)" in capsys.readouterr().err


def test_zipped_lists_of_unequal_length(sweep):
    file = sweep(("grid:", "zip:\n  - {sigmas.shift: [3.0, 5.0], video.frames: [5]}\ngrid:"))
    with pytest.raises(gatekit.ScheduleError, match=r":9:5: zip\[0\]: .*as many values"):
        arms(file)


def test_arms_are_ordered_so_that_variants_are_swapped_least(sweep, project):
    (project / "other.num").write_text('{"gain": 0.7}')
    change = "{name: other%d, set: {variants.coarse.file: other.num, sigmas.shift: %d.0}}"
    cases = "\n".join(
        f"  - {{name: plain{i}, set: {{sigmas.shift: {i}.0}}}}\n  - " + change % (i, i)
        for i in (3, 4, 5)
    )
    text = f"version: 1\nname: s\nbase: fake.yaml\nprompts: [x]\nlist:\n{cases}\n"
    found = arms(sweep(text=text))

    def swaps(order):
        needed, loaded = 0, ()
        for arm in order:
            needed += sum(v not in loaded for v in variants_of(arm))
            loaded = variants_of(arm)
        return needed

    assert swaps(found) == 2 + 5
    best = ordered(found)
    assert sorted(a.name for a in best) == sorted(a.name for a in found)
    assert swaps(best) == 3


def test_references_come_first(sweep):
    file = sweep(("reference: {set: {sigmas.steps: 16}}", "reference: euler"))
    names = [arm.name for arm in ordered(arms(file))]
    assert names == ["euler, steps=6", "euler, steps=8", "plain, steps=6", "plain, steps=8"]


def test_the_example_is_a_sweep_that_can_run(monkeypatch):
    monkeypatch.delenv("GATEKIT_MODELS", raising=False)
    monkeypatch.setenv("GATEKIT_ALLOW_OUTSIDE", "1")  # its schedules are in another folder
    example = Path(__file__).parents[4] / "docs" / "examples" / "tinywan_gate.yaml"
    found = arms(example)
    assert [a.name for a in found if a.compared][:2] == ["fp16", "gate"]
    assert {p.variant for p in found[2].plan.phases} == {"high-q2k", "high-q5ks", "low-fp16"}


@pytest.mark.parametrize("where", ["sweep", "case", "reference"])
def test_a_base_outside_is_refused_until_it_is_allowed(sweep, project, where, monkeypatch):
    """A sweep may come from a stranger, as a schedule may; it was read wherever it was."""
    outside = project.parent / "outside.yaml"
    outside.write_text((project / "fake.yaml").read_text())
    head = f"base: {outside if where == 'sweep' else 'fake.yaml'}\n"
    rest = {
        "sweep": "",
        "case": "list: [{name: a, base: ../outside.yaml}]\n",
        "reference": "reference: {base: ../outside.yaml}\nmetrics: [latent_rmse]\n",
    }[where]
    file = sweep(text=f"version: 1\nname: z\nprompts: [x]\n{head}{rest}")
    with pytest.raises(gatekit.ScheduleError, match="this file is outside the folder of"):
        arms(file)
    monkeypatch.setenv("GATEKIT_ALLOW_OUTSIDE", "1")
    with contextlib.suppress(gatekit.GatekitError):  # its weights are beside the sweep, not it
        arms(file)


TEN = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (f"grid: {{{', '.join(f'k{i}: {TEN}' for i in range(12))}}}", "1,000,000,000,000 arms"),
        (f"zip: [{', '.join(f'{{k{i}: {TEN}}}' for i in range(4))}]", "10,000 arms"),
        (f"seeds: 100000\ngrid: {{a: {TEN}, b: [1, 2]}}", "2,000,000 cells"),
    ],
    ids=["grid", "zip", "seeds"],
)
def test_lists_that_multiply_past_counting(sweep, change, said):
    text = f"version: 1\nname: z\nbase: fake.yaml\nprompts: [x]\n{change}\n"
    with pytest.raises(gatekit.ScheduleError, match=said):
        arms(sweep(text=text))


def test_a_hundred_thousand_seeds_are_compared_at_once(sweep):
    text = "version: 1\nname: z\nbase: fake.yaml\nprompts: [x]\nseeds: 100000\n"
    assert len(arms(sweep(text=text))) == 1
    with pytest.raises(gatekit.ScheduleError, match="the same of seeds twice"):
        arms(sweep(text=text.replace("100000", "[1, 2, 1]")))
