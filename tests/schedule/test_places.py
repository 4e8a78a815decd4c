"""Every error of a schedule file says file, line, column, key, value and remedy."""

from __future__ import annotations

import json

import pytest

from gatekit import ScheduleError, load_schedule

BASE = """\
version: 1
name: places
family: {use: fake}
variants:
  coarse: {use: number, file: coarse.num}
sigmas: {use: shifted_linear, steps: 8}
phases:
  - {name: high, until: 0.9, variant: coarse, sampler: euler}
  - {name: low, variant: coarse, sampler: euler}
"""


def message(tmp_path, text: str, *overrides: str) -> str:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ScheduleError) as caught:
        load_schedule(path, list(overrides))
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(path), "s.yaml")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: places", "nam: places", "s.yaml:2:1: nam: unknown key 'nam'; did you mean 'name'?"),
        ("until: 0.9", "untill: 0.9", "s.yaml:8:18: phases[0].untill: unknown key 'untill'; did"),
        ("until: 0.9", "until: soon", "s.yaml:8:25: phases[0].until: a boundary is a sigma, or"),
        ("until: 0.9", "until: {sigma: 0.9, step: 2}", "s.yaml:8:25: phases[0].until: a boundary"),
        ("until: 0.9", "until: {tinestep: 9}", "unknown key 'tinestep'; did you mean 'timestep'?"),
        ("until: 0.9", "until: {fraction: 2}", "s.yaml:8:36: phases[0].until.fraction: should be"),
        ("steps: 8", "steps: many", "s.yaml:6:38: sigmas.steps: must be a whole number (got 'many"),
        ("steps: 8", "steps: 0", "s.yaml:6:38: sigmas.steps: should be greater than or equal to 1"),
        ("version: 1", "version: 2", "s.yaml:1:10: version: is none of the known values (got 2)"),
        ("version: 1", "version: '1'", "none of the known values (got '1'); write 1 without quo"),
        ("variant: coarse, s", "variant: corse, s", "unknown variant 'corse'; did you mean 'coars"),
        ("name: low", "name: high", "s.yaml:9:12: phases[1].name: two phases are called 'high'"),
        ("name: low", "name: lo w", "s.yaml:9:12: phases[1].name: a name has letters"),
        (", until: 0.9", "", "s.yaml:8:5: phases[0]: phase 'high' does not say where it ends"),
        ("name: low", "name: low, until: 0.1", "the last phase runs to 0 and has no boundary"),
        ("name: low", "name: low, steps: 3", "s.yaml:9:17: phases[1].steps: steps are given both"),
        ("name: low", "name: low, sigmas: beta", "a phase's own grid needs its own number"),
        ("name: low", "name: low, compute: fp17", "compute: is none of the known values (got 'fp"),
        ("phases:", "memory: {vram: 16}\nphases:", "memory.vram: a bare number is bytes, and thes"),
        ("phases:", "memory: {vram: 12.5}\nphases:", "s.yaml:7:16: memory.vram: a bare number is"),
        (
            "phases:",
            "memory: {vram: 24000}\nphases:",
            "memory.vram: a bare number is bytes, and these are few; write 24000MiB (got 24000)",
        ),
        ("phases:", "memory: {vram: true}\nphases:", "s.yaml:7:16: memory.vram: a bare number is"),
        ("phases:", "memory: {vram: 16G}\nphases:", "s.yaml:7:16: memory.vram: a size is a numbe"),
        ("phases:", "vae: {file: 3}\nphases:", "s.yaml:7:13: vae.file: must be text (got 3)"),
        ("phases:", "vae: x.bin\nphases:", "s.yaml:7:6: vae: must be a mapping of keys (got 'x.b"),
        ("phases:", "phase:", "s.yaml:7:1: phase: unknown key 'phase'; did you mean 'phases'?"),
        ("name: places", "name: [", "no valid YAML"),
        ("name: places", "name: a\nname: b", "s.yaml:3:1: key 'name' is given twice"),
        ("name: places", "name: !!python/name:os x", "s.yaml:2:7: unknown YAML tag"),
        ("name: places", "<<: {name: a}", "merge keys are no part of YAML 1.2"),
        ("name: places", "name: &a [*a]", "levels after aliases"),
    ],
)
def test_error_says_where(tmp_path, old, new, expected):
    assert expected in message(tmp_path, BASE.replace(old, new, 1))


def test_error_of_an_override_names_the_option(tmp_path):
    text = message(tmp_path, BASE, "phases.high.untill=0.2")
    assert text.startswith("--set phases.high.untill=0.2: phases[0].untill: unknown key")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("phases.hihg.until=0.5", "phases has no entry 'hihg'; did you mean 'high'?"),
        ("phases.7.until=0.5", "phases has no entry '7'; known: high, low"),
        ("name.first=x", "name is a single value and has no key 'first' (got 'places')"),
        ("steps", "an override needs a key and a value"),
        ("a.b=[", "no valid YAML"),
        ("phases=[]", "phases: must not be empty"),
    ],
)
def test_bad_override(tmp_path, option, expected):
    assert expected in message(tmp_path, BASE, option)


def test_aliases_cannot_fill_the_memory(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "more than 20000 values" in message(tmp_path, "\n".join(lines))


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a: 1\n" * 300_000])
def test_no_schedule_at_all(tmp_path, data):
    path = tmp_path / "s.yaml"
    path.write_bytes(data)
    with pytest.raises(ScheduleError, match=r"is it a schedule|no text file"):
        load_schedule(path)


@pytest.mark.parametrize(
    ("size", "expected"), [(1 << 20, "larger than 1 MiB; is it a"), (9, "no text file; a schedule")]
)
def test_a_weight_file_is_no_schedule(tmp_path, size, expected):
    path = tmp_path / "w.gguf"
    path.write_bytes(b"GGUF" + bytes(size))
    with pytest.raises(ScheduleError, match=rf"{expected} .*'gatekit inspect {path}'"):
        load_schedule(path)


@pytest.mark.parametrize("name", ["", "run.json"])
@pytest.mark.parametrize(
    ("status", "remedy"),
    [("done", "its result is /x/out.mp4, which can be run"), ("stopped", "gatekit run --resume ")],
)
def test_a_run_folder_is_no_schedule(tmp_path, name, status, remedy):
    folder = tmp_path / "out.run"
    folder.mkdir()
    record = {"fingerprint": "f", "status": status, "out": "/x/out.mp4"}
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(ScheduleError, match=rf"(folder|record of a run), no schedule; .*{remedy}"):
        load_schedule(folder / name)
    (folder / "s.yaml").write_text(BASE)
    assert load_schedule(folder / "s.yaml").name == "places"


@pytest.mark.parametrize("text", ["", "- 1", "3", "null"])
def test_no_mapping(tmp_path, text):
    assert "a schedule is a mapping of keys" in message(tmp_path, text)


def test_missing_schedule(tmp_path):
    with pytest.raises(ScheduleError, match="cannot read the schedule: No such file"):
        load_schedule(tmp_path / "none.yaml")
    with pytest.raises(ScheduleError, match="cannot read the schedule"):
        load_schedule(tmp_path)


def test_yaml_1_2(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(BASE.replace("name: places", "name: on").replace("0.9", "9e-1"))
    schedule = load_schedule(path)
    assert (schedule.name, schedule.phases[0].until.sigma) == ("on", 0.9)
