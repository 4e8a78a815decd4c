"""What --set changed, written as a file that extends the schedule: it loads as the changed one."""

import json

import pytest

import gatekit
from gatekit.cli import call
from gatekit_basics.changes import as_yaml, changes, extending

SETS = [
    pytest.param(["phases.high.sampler=heun"], id="a plugin"),
    pytest.param(
        ["phases.high.sampler={use: res_2s, c2: 0.4}", "device=null"], id="a key taken out"
    ),
    pytest.param(["phases.high.guidance.scale=3", "phases.1.guidance=cfg"], id="by number"),
    pytest.param(["phases.high.guidance=null", "phases.high.until={step: 2}"], id="another form"),
    pytest.param(["phases.low=null", "phases.high.until=null"], id="a phase taken out"),
    pytest.param(
        ["phases.low.strategy={use: settle}", "phases.low.strategy.within=0.02"], id="keys"
    ),
    pytest.param(["variants.fine.file='a: b #1.num'", "name='true'", "video.fps=1e1"], id="odd"),
    pytest.param(["variants.null={use: number, file: fine.num}"], id="a name like null"),
    pytest.param(["phases.low.sampler={use: rk45, rtol: 1e-5}"], id="an exponent"),
    pytest.param(["name='\\u00e4\\U0001f600'"], id="beyond ASCII"),
    pytest.param(
        ["phases=[{name: all, variant: fine, sampler: euler}]"], id="phases that extend nothing"
    ),
    pytest.param(["phases.low.history={use: auto, threshold: 0.3}"], id="history"),
]


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


@pytest.mark.parametrize("folder", [".", "beside"])
@pytest.mark.parametrize("sets", SETS)
def test_it_loads_as_what_was_changed(here, sets, folder):
    out = here / folder / "out.yaml"
    out.parent.mkdir(exist_ok=True)
    base = here / "fake.yaml"
    lines = [*extending(base, out, sets), "sigmas: {use: shifted_linear, steps: 8, shift: 5.0}"]
    out.write_text("\n".join(lines) + "\n")
    made = gatekit.load_schedule(out, allow_outside=True)
    assert made.to_dict() == gatekit.load_schedule(base, sets).to_dict()


def test_what_is_as_it_was_is_not_written(here):
    lines = extending(here / "fake.yaml", here / "out.yaml", ["phases.high.guidance.scale=3"])
    assert lines == [
        "# with --set phases.high.guidance.scale=3",
        'extends: "fake.yaml"',
        "phases:",
        "  high:",
        "    guidance:",
        '      use: "cfg"',
        "      scale: 3",
    ]
    assert extending(here / "fake.yaml", here / "out.yaml", []) == ['extends: "fake.yaml"']
    assert changes({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2}}) == {}
    assert as_yaml({"a b": {}, "c": [1, "x"]}) == ['"a b": {}', 'c: [1, "x"]']


def test_a_file_that_is_no_schedule_without_what_was_set(here):
    text = (here / "fake.yaml").read_text()
    (here / "fake.yaml").write_text(text.replace("    sampler: euler\n", ""))
    sets = ["phases.low.sampler=euler"]
    lines = extending(here / "fake.yaml", here / "out.yaml", sets)
    assert not [line for line in lines if line.startswith("extends")]
    (here / "out.yaml").write_text("\n".join([*lines, "sigmas: {use: karras, steps: 8}"]) + "\n")
    assert gatekit.load_schedule(here / "out.yaml").phases[1].sampler.use == "euler"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(["curvature", "--steps", "24"], id="curvature"),
        pytest.param(["fit", "--fine", "40"], id="fit"),
    ],
)
def test_the_commands_write_it(here, capsys, line):
    sets = [
        "phases.high.sampler=heun",
        "phases.low.guidance={use: cfg, scale: 2}",
        "sigmas.steps=6",
    ]
    options = [word for text in sets for word in ("--set", text)]
    assert call([line[0], "fake.yaml", "-p", "x", "-o", "o.yaml", *line[1:], *options]) == 0
    made = gatekit.load_schedule("o.yaml")
    changed = gatekit.load_schedule("fake.yaml", sets)
    assert made.to_dict() | {"sigmas": 0} == changed.to_dict() | {"sigmas": 0}
    assert made.sigmas.use == {"curvature": "curvature", "fit": "explicit"}[line[0]]
    assert len(gatekit.resolve(made).run_sigmas) == 7
    assert call(["plan", "o.yaml", "--json"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text.partition("\n")[2])["schedule"]["phases"][0]["sampler"]["use"] == "heun"


@pytest.mark.parametrize("sets", [[], ["phases.high.guidance.scale=3"]])
@pytest.mark.parametrize("name", ["made.mp4", "made.safetensors"])
def test_of_a_result_the_whole_schedule_is_written(here, name, sets):
    """No schedule extends a video."""
    assert call(["run", "fake.yaml", "-p", "x", "-o", name]) == 0
    options = [word for text in sets for word in ("--set", text)]
    assert call(["fit", name, "-p", "x", "--fine", "40", "-o", "o.yaml", *options]) == 0
    made = gatekit.load_schedule("o.yaml").to_dict()
    assert made | {"sigmas": 0} == gatekit.load_schedule(name, sets).to_dict() | {"sigmas": 0}
    assert made["sigmas"]["use"] == "explicit"
