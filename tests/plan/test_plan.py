"""Plans: what a schedule becomes, without weights."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatekit
from gatekit import InputError, PluginError, ScheduleError, WeightsError, load_schedule, resolve

SHIPPED = sorted((Path(__file__).parents[2] / "schedules").glob("*.yaml"))


def planned(project, *overrides, **options):
    return resolve(load_schedule(project / "fake.yaml", list(overrides)), **options)


def test_rows_cover_the_run_without_a_gap(project):
    plan = planned(project)
    rows = plan.table()
    assert [row.sigma for row in rows] + [0.0] == list(plan.run_sigmas)
    assert all(a.sigma_next == b.sigma for a, b in pairwise(rows))
    assert [row.model for row in rows] == ["coarse"] * 3 + ["fine"] * 5
    assert plan.nfe == 8
    assert plan.passes == 3 * 2 + 5
    assert all(row.timestep == 1000 * row.sigma for row in rows)


@pytest.mark.parametrize(
    ("until", "steps"),
    [
        ("0.9", 3),
        ("{sigma: 0.9}", 3),
        ("{timestep: 900}", 3),
        ("{step: 3}", 3),
        ("{fraction: 0.375}", 3),
        (f"{{log_snr: {2 * math.log(0.1 / 0.9)}}}", 3),
        ("{step: 7}", 7),
    ],
)
def test_a_boundary_in_five_forms(project, until, steps):
    plan = planned(project, f"phases.high.until={until}")
    assert len(plan.phases[0].sigmas) == steps + 1
    assert plan.phases[0].sigmas[-1] == plan.phases[1].sigmas[0]
    assert plan.phases[0].boundary.reached == plan.phases[0].sigmas[-1]


@given(st.integers(2, 30), st.data())
def test_a_step_belongs_to_the_phase_of_its_start(steps, data):
    from gatekit.boundaries import slices
    from gatekit.path import RectifiedFlow
    from gatekit.registry import registry
    from gatekit.schedule import Schedule

    until = data.draw(st.floats(0.01, 0.999))
    schedule = Schedule.from_dict(
        {
            "version": 1,
            "name": "s",
            "family": "fake",
            "variants": {"a": {"use": "number"}},
            "sigmas": {"use": "shifted_linear", "steps": steps},
            "phases": [
                {"name": "one", "until": until, "variant": "a", "sampler": "euler"},
                {"name": "two", "variant": "a", "sampler": "euler"},
            ],
        }
    )
    grid = registry().get("grid", "shifted_linear")()
    try:
        parts = slices(schedule, grid, [None, None], RectifiedFlow())
    except ScheduleError as exc:
        assert "left without a step" in str(exc)
        assert all((s >= until - 1e-6) == (grid(steps)[0] >= until) for s in grid(steps)[:-1])
        return
    assert parts.run == grid(steps)
    assert all(s >= until - 1e-6 for s in parts.sigmas[0][:-1])
    assert all(s < until - 1e-6 for s in parts.sigmas[1][:-1])


def test_own_steps_start_where_the_phase_before_ends(project):
    plan = planned(
        project, "sigmas.steps=null", "phases.high.steps=4", "phases.low.steps=6",
        "phases.low.sigmas=karras",
    )  # fmt: skip
    high, low = plan.phases
    assert (len(high.sigmas), len(low.sigmas)) == (5, 7)
    assert high.sigmas[-1] == low.sigmas[0] == 0.9
    assert len(plan.run_sigmas) == 11


def test_an_explicit_grid_knows_its_steps(project):
    values = "sigmas={use: explicit, values: [1.0, 0.95, 0.5, 0.25, 0.0]}"
    assert planned(project, values).run_sigmas == (1.0, 0.95, 0.5, 0.25, 0.0)
    with pytest.raises(ScheduleError, match=r"sigmas.steps: this grid has 4 steps"):
        planned(project, values, "sigmas.steps=5")


def test_close_costs_one_evaluation_of_the_leaving_model(project):
    plan = planned(project, "phases.low.history=close")
    assert plan.nfe == 9
    assert [row.nfe for row in plan.table()] == [1, 1, 1, 2, 1, 1, 1, 1]
    assert plan.passes == 4 * 2 + 5
    same = planned(
        project, "phases.low.history=close", "phases.low.variant=coarse",
        "phases.low.guidance={use: cfg, scale: 2.0}",
    )  # fmt: skip
    assert same.nfe == 8


def test_a_field_is_weights_arithmetic_and_guidance(project):
    def field(*overrides):
        return planned(project, *overrides).phases[0].field

    base = field()
    assert field("name=other", "phases.high.sampler=euler", "phases.high.until=0.8") == base
    others = {
        field("phases.high.guidance.scale=3"),
        field("phases.high.compute=bf16"),
        field("phases.high.variant=fine"),
        field("variants.coarse.loras=[{file: fine.num, strength: 0.5}]"),
        field("variants.coarse.loras=[{file: fine.num, strength: 0.6}]"),
        base,
    }
    assert len(others) == 6
    (project / "coarse.num").write_text(json.dumps({"gain": 0.6}))
    assert field() not in others


@pytest.mark.parametrize(
    ("override", "error", "expected"),
    [
        ("phases.high.sampler=unipv", PluginError, "phases[0].sampler: unknown sampler 'unipv'; d"),
        ("phases.high.guidance.use=cgf", PluginError, "guidance.use: unknown guidance 'cgf'; did"),
        ("phases.high.history=cary", PluginError, "unknown history policy 'cary'; did you mean 'c"),
        ("phases.high.strategy=gird", PluginError, "unknown strategy 'gird'; did you mean 'grid'?"),
        ("sigmas.use=shift_linear", PluginError, "unknown sigma grid 'shift_linear'; did you mean"),
        ("family.use=fakee", PluginError, "family.use: unknown model family 'fakee'; did you mean"),
        ("variants.fine.use=numbr", PluginError, "variants.fine.use: unknown variant 'numbr'; did"),
        ("phases.high.guidance.scael=2", ScheduleError, "phases[0].guidance.scael: unknown key 's"),
        ("phases.low.guidance={scale: 3.5}", ScheduleError, "unknown key 'scale'; add 'use', such"),
        ("phases.low.guidance={scale: 3.5}", ScheduleError, "such as use: cfg"),
        ("phases.low.guidance={use: none, scale: 3.5}", ScheduleError, "'scale'; known: use"),
        ("phases.low.history={limits: 3}", ScheduleError, "history.limits: unknown key 'limits'"),
        ("phases.low.sampler={use: euler, order: 2}", ScheduleError, "unknown key 'order'"),
        ("video.fps=0.0003", ScheduleError, "video.fps: should be greater than or equal to 0.01"),
        ("sigmas.shift=-1", ScheduleError, "sigmas.shift: should be greater than 0 (got -1)"),
        ("sigmas={use: karras, steps: 9, sigma_max: 14}", ScheduleError, "sigmas: sigmas on the p"),
        ("sigmas.stesp=9", ScheduleError, "sigmas.stesp: unknown key 'stesp'; did you mean 'steps"),
        ("family.task=i2w", ScheduleError, "family.task: is none of the known values (got 'i2w');"),
        ("variants.fine.expert=hi", ScheduleError, "did you mean 'high'? known: high, low"),
        ("family.task=i2", ScheduleError, "did you mean 'i2v'? known: i2v, t2v"),
        ("variants.fine.expert=hihg", ScheduleError, "variants.fine.expert: is none of the known"),
        ("variants.fine.fiel=x", ScheduleError, "variants.fine.fiel: unknown key 'fiel'; did you"),
        ("sigmas.steps=null", ScheduleError, "sigmas: the number of steps is missing; add 'steps'"),
        ("phases.high.until=0.2", ScheduleError, "phases[1].until: phase 'low' is left without a"),
        ("phases.high.until={step: 8}", ScheduleError, "a boundary as step lies in 1 to 7 (got 8)"),
        ("phases.high.until={log_snr: .nan}", ScheduleError, "finite"),
        ("phases.high.until=900", ScheduleError, "(got 900.0); a timestep is written {timestep: 9"),
        ("phases.high.until=1.5", ScheduleError, "phases[0].until: a boundary is a sigma from"),
        ("video.width=33", ScheduleError, "video: width and height must be multiples of 16; use"),
        ("video.width=null", ScheduleError, "video.width: the size of the video is missing; add"),
        ("vae=null", ScheduleError, "family 'fake' needs the section 'vae'; add 'vae: "),
    ],
)  # fmt: skip
def test_error_says_where(project, override, error, expected):
    with pytest.raises(error) as caught:
        planned(project, override)
    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_sampler_that_asks_no_strategy_takes_none(project):
    planned(project, "phases.low.sampler=rk45", "phases.low.strategy=grid")
    with pytest.raises(ScheduleError) as caught:
        planned(project, "phases.low.sampler=rk45", "phases.low.strategy=restart")
    assert "phases[1].strategy: sampler 'rk45' goes through the phase by" in str(caught.value)


def test_a_boundary_out_of_order_is_named_with_its_place(project):
    text = (project / "fake.yaml").read_text()
    text += "    until: 0.95\n  - {name: last, variant: fine, sampler: euler}\n"
    (project / "fake.yaml").write_text(text)
    with pytest.raises(ScheduleError) as caught:
        planned(project)
    assert "fake.yaml:22:12: phases[1].until: boundary of phase 'low' does not lie below" in str(
        caught.value
    )


def test_a_misspelt_sampler_is_named_with_line_and_column(project):
    text = (project / "fake.yaml").read_text().replace("unipc", "unipv")
    (project / "fake.yaml").write_text(text)
    with pytest.raises(PluginError, match=r"fake.yaml:16:20: phases\[0\].sampler.use: unknown"):
        planned(project)


def test_missing_files_are_listed_and_refused_by_a_run(project):
    (project / "fine.num").rename(project / "fyne.num")
    (project / "vae.bin").unlink()
    plan = planned(project)
    assert [m.name for m in plan.missing] == ["vae.bin", "fine.num"]
    assert plan.missing[1].hint == "fyne.num"
    assert "fine: fine.num (MISSING)" in plan.explain()
    assert plan.to_json()["missing"][1]["where"].endswith("fake.yaml:8:42: variants.fine.file")
    with pytest.raises(WeightsError, match=r"fake.yaml:5:13: vae.file: 2 weight files were not"):
        planned(project, require_files=True)


def test_files_are_looked_up_in_order(project, tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()

    def found():
        return planned(project, models_dir=tmp_path / "m").variants["fine"].params.file

    assert found() == project / "fine.num"
    content = (project / "fine.num").read_bytes()
    (project / "fine.num").unlink()
    for folder in ("env/diffusion_models", "env/unet", "m/loras"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "fine.num").write_bytes(content)
    monkeypatch.setenv("GATEKIT_MODELS", f"/nowhere:{tmp_path / 'env'}")
    assert found() == tmp_path / "m/loras/fine.num"
    (tmp_path / "m/loras/fine.num").unlink()
    assert found() == tmp_path / "env/diffusion_models/fine.num"


def test_a_family_ships_files_that_are_found_last(project, tmp_path, fake):
    (tmp_path / "shipped").mkdir()
    (project / "vae.bin").rename(tmp_path / "shipped" / "vae.bin")
    fake.FakeFamily.model_dirs = classmethod(lambda cls: (tmp_path / "shipped",))
    assert planned(project).family.components.vae.file == tmp_path / "shipped" / "vae.bin"


def test_a_damaged_weight_file_is_an_error_of_the_plan(project):
    (project / "fine.num").write_text("no json")
    with pytest.raises(WeightsError, match=r"fake.yaml:8:9: variants.fine: .*fine.num: no number"):
        planned(project)


def test_a_derived_family_uses_its_parents_variants(project):
    assert type(planned(project, "family.use=derived").variants["fine"]).__name__ == "Number"


def test_an_unused_variant_is_worth_a_warning(project):
    plan = planned(project, "variants.extra={use: number, file: fine.num}")
    assert "variants.extra: no phase uses this variant" in plan.warnings[0]


def test_the_plan_is_plain_json(project):
    plan = planned(project)
    data = json.loads(json.dumps(plan.to_json()))
    assert data["sigmas"] == list(plan.run_sigmas)
    assert [row["phase"] for row in data["steps"]] == ["high"] * 3 + ["low"] * 5
    assert data["phases"][0]["guidance"] == {"use": "cfg", "scale": 2.0, "start": None, "end": 0.0}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_schedule_is_planned(path):
    plan = resolve(load_schedule(path), device="cpu")
    assert plan.run_sigmas[-1] == 0.0
    header = path.read_text().split("\nversion:")[0].split("\nextends:")[0]
    assert header.startswith("# ")
    assert "Files" in header


@pytest.mark.parametrize(("task", "high"), [("t2v", 26), ("i2v", 15)])
def test_wans_own_split_of_its_steps(task, high):
    path = next(p for p in SHIPPED if p.stem == f"wan22_official_{task}")
    plan = resolve(load_schedule(path), device="cpu")
    assert [len(p.sigmas) - 1 for p in plan.phases] == [high, 40 - high]


def test_planning_imports_no_torch():
    code = (
        "import sys, gatekit; from gatekit.cli import call;"
        "call(['plan', sys.argv[1]]); call(['schema']); call(['plugins']);"
        "sys.exit(bool({'torch', 'diffusers', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    path = next(p for p in SHIPPED if p.stem == "wan22_i2v_3phase")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("device", "expected"),
    [("gpu", "did you mean 'cuda'"), ("cuad:1", "did you mean 'cuda'"), ("cuda:x", "cuda")],
)
def test_a_device_that_cannot_be_is_refused_when_planning(project, device, expected):
    schedule = load_schedule(project / "fake.yaml")
    with pytest.raises(InputError, match=expected):
        resolve(schedule, device=device)
    named = load_schedule(project / "fake.yaml", overrides={"device": device})
    with pytest.raises(InputError, match="device"):
        resolve(named)
    assert resolve(schedule, device="cuda:1").device == "cuda:1"


def test_an_error_of_a_component_names_its_key(project, fake, monkeypatch):
    def refuse(self, section):
        if section == "vae":
            raise gatekit.WeightsError("not a VAE", where=str(self.components.vae.file))

    monkeypatch.setattr(fake.FakeFamily, "check_component", refuse)
    with pytest.raises(gatekit.WeightsError, match=r"fake\.yaml:5:\d+: vae\.file: .*not a VAE"):
        resolve(load_schedule(project / "fake.yaml"))
    same = load_schedule(project / "fake.yaml", ["vae.file=text.bin"])  # as the text encoder
    with pytest.raises(gatekit.WeightsError, match=r"vae\.file=text\.bin: vae\.file: .*not a VAE"):
        resolve(same)


def test_an_error_of_a_key_names_it(project, fake, monkeypatch):
    def refuse(self, *_):
        raise ScheduleError("too small", remedy="more", key=(key,))

    for hook, section, key in (
        ("check_component", "text_encoder", "tile"),
        ("check_video", "video", "width"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(fake.FakeFamily, hook, refuse)
            with pytest.raises(ScheduleError, match=rf"yaml:\d+:\d+: {section}\.{key}: too small"):
                resolve(load_schedule(project / "fake.yaml"))
    monkeypatch.setattr(fake.FakeFamily, "check_video", refuse)
    option = load_schedule(project / "fake.yaml", ["video.width=33"])
    with pytest.raises(ScheduleError, match=r"^--set video\.width=33: video\.width: too small"):
        resolve(option)


@pytest.mark.parametrize("section", ["text_encoder", "vae"])
def test_a_components_device_is_checked_when_planning(project, section):
    named = load_schedule(project / "fake.yaml", [f"{section}.device=gpu"])
    with pytest.raises(InputError, match=rf"{section}\.device: no such device .*mean 'cuda'"):
        resolve(named)
    part = resolve(load_schedule(project / "fake.yaml", [f"{section}.device=cuda:1"]))
    assert getattr(part.family.components, section).device == "cuda:1"


def test_a_models_dir_that_is_not_there_is_an_error(project, tmp_path):
    schedule = load_schedule(project / "fake.yaml")
    with pytest.raises(InputError, match=r"no such folder .*nowhere"):
        resolve(schedule, models_dir=[tmp_path, tmp_path / "nowhere"])


def test_what_is_no_schedule_and_no_inputs_is_said_so(project):
    with pytest.raises(InputError, match="load_schedule"):
        resolve("fake.yaml")
    plan = resolve(load_schedule(project / "fake.yaml"))
    with pytest.raises(InputError, match=r"gatekit\.Inputs"):
        gatekit.run(plan, "a prompt")


def test_swapped_experts_are_a_warning_of_the_plan():
    swapped = ["phases.high.variant=low", "phases.low.variant=high"]
    path = next(p for p in SHIPPED if p.stem == "wan22_official_t2v")
    assert not any("swapped" in w for w in resolve(load_schedule(path)).warnings)
    plan = resolve(load_schedule(path, swapped))
    (warning,) = (w for w in plan.warnings if "swapped" in w)
    assert "wan22_official_t2v.yaml" in warning and f"warning: {warning}" in plan.explain()


def test_a_variant_that_shows_no_blocks_takes_no_cache(project, fake, monkeypatch):
    monkeypatch.setattr(fake.Number, "in_blocks", False)
    schedule = gatekit.load_schedule(project / "fake.yaml", ["phases.low.cache=first_block"])
    with pytest.raises(ScheduleError, match=r"phases\[1\]\.cache: variant 'fine' cannot be cached"):
        gatekit.resolve(schedule)
    gatekit.resolve(gatekit.load_schedule(project / "fake.yaml", ["phases.low.cache=none"]))
