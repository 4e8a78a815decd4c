"""The command line as people use it: what it prints, and its exit codes."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gatekit
from gatekit.cli import call

av = pytest.importorskip("av")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(project, monkeypatch):
    """The project as working folder."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("GATEKIT_DEBUG", raising=False)
    return project


@pytest.fixture
def ctrl_c(fake, monkeypatch):
    """Presses Ctrl-C in these evaluations from now on; returns the sigmas of all that follow."""
    velocity = fake.Number.velocity

    def press(*at):
        calls = []

        def interrupted(self, x, sigma, conditioning):
            calls.append(sigma)
            if len(calls) in at:
                signal.raise_signal(signal.SIGINT)
            return velocity(self, x, sigma, conditioning)

        monkeypatch.setattr(fake.Number, "velocity", interrupted)
        return calls

    return press


def test_help_and_version(capsys):
    assert call(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("run", "plan", "plugins", "samplers", "inspect", "schema"))
    assert call(["--version"]) == 0
    assert capsys.readouterr().out == f"gatekit {gatekit.__version__}\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from gatekit.cli import call; call(['--help']);"
        "sys.exit(bool({'torch', 'pydantic', 'numpy', 'rich', 'pluggy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "Usage"),
        (["plann"], "plan"),
        (["plan"], "SCHEDULE"),
        (["plan", "fake.yaml", "--jsn"], "--json"),
        (["run"], "a schedule is missing; gatekit run SCHEDULE -p PROMPT"),
        (["run", "fake.yaml"], "-p: a prompt is missing"),
        (
            ["run", "fake.yaml", "-p", "x", "-o", "x.gif"],
            "or a folder of frames; use x.mp4, or x/ for frames",
        ),
        (["run", "fake.yaml", "-p", "x", "-i", "no.png"], "no such image (got 'no.png'); check -i"),
        (["run", "fake.yaml", "-p", "x", "--seed", "one"], "--seed"),
        (["run", "--resume", "."], "no run folder; name the folder that holds run.json"),
        (["plan", "none.yaml"], "none.yaml: cannot read the schedule: No such file or directory"),
        (["plan", "fake.yaml", "--set", "phases.low.smapler=x"], "did you mean 'sampler'?"),
        (["plan", "fake.yaml", "--set", "phases.low.sampler=eulr"], "did you mean 'euler'?"),
        (["plan", "fake.yaml", "--set", "phases.high.until=0.2"], "left without a step"),
        (["plan", "fake.yaml", "--plot", "x.txt"], "--plot: plots are written as .png"),
        (["inspect", "none.gguf"], "none.gguf: no such file"),
        (["inspect", "text.bin"], "no installed plugin can use this file"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(here, capsys, argv, expected):
    assert call(argv) == 2
    captured = capsys.readouterr()
    text = captured.err + (captured.out if not argv else "")
    assert expected in " ".join(text.split())
    assert "Traceback" not in text
    assert not list(here.glob("*.mp4*"))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["plann"], "no such command 'plann'"),
        (["plan"], "missing argument 'SCHEDULE'; see 'gatekit plan -h'"),
        (["plan", "a", "b"], "got unexpected extra argument"),
        (["plan", "fake.yaml", "--jsn"], "no such option: --jsn"),
        (["run", "fake.yaml", "--seed", "one"], "invalid value for '--seed'"),
        (["run", "fake.yaml", "-p"], "option '-p' requires an argument; see 'gatekit run -h'"),
        (["--plugins"], "option '--plugins' requires an argument; see 'gatekit -h'"),
    ],
)
def test_a_usage_error_is_said_as_all_others_are(here, capsys, argv, said):
    assert call(argv) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"gatekit: {said}") and line.endswith(" -h'") and not captured.out


LONG = "n" * 300


@pytest.mark.parametrize(
    "argv",
    [
        ["plan", "fake.yaml", "--models-dir", LONG],
        ["run", "fake.yaml", "-p", "x", "-o", f"{LONG}.mp4"],
        ["fit", "fake.yaml", "-p", "x", "-o", f"{LONG}.yaml"],
        ["report", LONG],
        ["inspect", f"{LONG}.gguf"],
    ],
)
def test_a_name_that_no_file_can_have_is_wrong_input(here, capsys, argv):
    assert call(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "File name too long; name a place that you may use" in line


def test_a_folder_that_may_not_be_looked_into_is_wrong_input(here, capsys, monkeypatch):
    def closed(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "closed/fake.yaml")

    monkeypatch.setattr("gatekit.load.load_schedule", closed)
    assert call(["plan", "closed/fake.yaml"]) == 2
    said = "gatekit: closed/fake.yaml: Permission denied; name a place that you may use\n"
    assert capsys.readouterr().err == said
    with pytest.raises(PermissionError):
        call(["--debug", "plan", "closed/fake.yaml"])


def test_an_error_of_the_system_without_a_path_is_no_input(here, capsys, monkeypatch):
    def broken(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("gatekit.load.load_schedule", broken)
    assert call(["plan", "fake.yaml"]) == 1
    assert "unexpected PermissionError" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["plan", "empty.yaml"], ["plan", "empty.yaml", "--set", "a=1"]])
def test_an_empty_file_is_no_schedule(here, capsys, argv):
    (here / "empty.yaml").touch()
    assert call(argv) == 2
    assert "empty.yaml: a schedule is a mapping of keys" in capsys.readouterr().err


def test_a_file_is_no_folder_of_models(here, capsys):
    assert call(["plan", "fake.yaml", "--models-dir", "fake.yaml"]) == 2
    said = "--models-dir: a file, where a folder was expected (got 'fake.yaml')"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["fit", "x", "-o", "y", "--fine", "3"], "than or equal to 40 (got '3'); see"),
        (["run", "x", "--seed", "one"], "must be a whole number (got 'one'); see"),
    ],
)
def test_an_option_out_of_range_is_told_with_its_value(here, capsys, argv, said):
    assert call(argv) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith(f"gatekit: invalid value for '{argv[-2]}': ")


@pytest.mark.parametrize("out", ["nope/x.mp4", "nope/x/", "nope/x.safetensors", "nope/a/x.png"])
def test_a_folder_that_is_not_there_is_not_made(here, capsys, fake, monkeypatch, out):
    monkeypatch.setattr(fake.Number, "velocity", None)  # nothing is computed before it is told
    assert call(["run", "fake.yaml", "-p", "x", "-o", out]) == 2
    assert f"-o: no such folder (got '{Path(out).parent}')" in capsys.readouterr().err
    assert not (here / "nope").exists()


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (["--device", "cuda:99"], "device: torch cannot use"),
        (["--set", "device=cuda:99"], "--set device=cuda:99: device: torch cannot use"),
    ],
)
def test_a_device_that_is_not_here_is_told_at_its_place(here, capsys, given, place):
    assert call(["run", "fake.yaml", "-p", "x", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"gatekit: {place}") and "(got 'cuda:99')" in error
    assert error.endswith("; choose another one: --device cpu\n")


def test_a_folder_of_models_that_is_not_there(here, capsys, monkeypatch):
    monkeypatch.setenv("GATEKIT_MODELS", "not/mounted")  # a list for all machines may name it
    assert call(["plan", "fake.yaml", "--models-dir", "."]) == 0
    capsys.readouterr()
    for command in (["plan", "fake.yaml"], ["run", "fake.yaml", "-p", "x"], ["doctor"]):
        assert call([*command, "--models-dir", ".", "--models-dir", "modells"]) == 2
        captured = capsys.readouterr()
        assert "--models-dir: no such folder (got 'modells')" in captured.err and not captured.out


def test_an_error_is_one_line_with_its_place(here, capsys):
    (here / "fake.yaml").write_text((here / "fake.yaml").read_text().replace("until", "untill"))
    assert call(["run", "fake.yaml", "-p", "x"]) == 2
    assert capsys.readouterr().err == (
        "gatekit: fake.yaml:14:5: phases[0].untill: unknown key 'untill'; did you mean 'until'?\n"
    )


def test_a_missing_weight_file(here, capsys):
    (here / "fine.num").unlink()
    assert call(["plan", "fake.yaml"]) == 0
    assert "fine: fine.num (MISSING)" in capsys.readouterr().out
    assert call(["run", "fake.yaml", "-p", "x"]) == 2
    error = capsys.readouterr().err
    assert "fake.yaml:8:42: variants.fine.file: no such weight file (got 'fine.num')" in error
    assert "--models-dir" in error


def test_plan_as_text_and_as_json(here, capsys):
    assert call(["plan", "fake.yaml"]) == 0
    text = capsys.readouterr().out
    assert "high: from sigma 1 until sigma 0.9, reaches 0.8929; 3 steps of unipc" in text
    assert "guidance cfg(scale=2.0)" in text
    defaults = ["--set", "phases.high.guidance=cfg", "--set", "phases.high.until={step: 1}"]
    assert call(["plan", "fake.yaml", *defaults]) == 0
    text = capsys.readouterr().out
    assert "guidance cfg(scale=5.0)" in text and "; 1 step of unipc" in text
    assert call(["plan", "fake.yaml", "--json", "--set", "sigmas.steps=4"]) == 0
    assert len(json.loads(capsys.readouterr().out)["steps"]) == 4


def test_plot(here):
    pytest.importorskip("matplotlib")
    assert call(["plan", "fake.yaml", "--plot", "p.png"]) == 0
    assert (here / "p.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", ["x.xyz", "none/p.png"])
def test_a_plot_that_cannot_be_is_told_before_the_plan(here, capsys, name):
    pytest.importorskip("matplotlib")
    assert call(["plan", "fake.yaml", "--plot", name]) == 2
    out, error = capsys.readouterr()
    assert error.startswith("gatekit: --plot: ") and not out
    assert not (here / "none").exists()


@pytest.mark.parametrize("name", ["quickstart", "wan22_i2v_3phase"])
def test_no_line_of_a_plot_runs_through_the_text_of_a_bar(name):
    figures = pytest.importorskip("matplotlib.figure")
    from gatekit.plot import _draw

    figure = figures.Figure(figsize=(10, 5.6), dpi=160)
    plan = gatekit.resolve(gatekit.load_schedule(ROOT / "schedules" / f"{name}.yaml"))
    _draw(figure, plan)
    figure.canvas.draw()
    strip = figure.axes[1]
    texts = [text.get_window_extent() for text in strip.texts]
    lines = [line.get_window_extent() for line in strip.lines]
    assert len(texts) == 3 and len(lines) >= 2 * (len(plan.table()) - 3)
    assert not [text for text in texts for line in lines if text.overlaps(line)]


def test_plot_without_matplotlib(here, capsys, monkeypatch):
    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert call(["plan", "fake.yaml", "--plot", "p.png"]) == 2
    assert (
        "install the extra 'report': pip install \"gatekit-diffusion[report]\""
        in capsys.readouterr().err
    )


def test_run_writes_the_video_and_says_where(here, capsys):
    assert call(["run", "fake.yaml", "-p", "a ball", "--seed", "7"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "fake-seed7.mp4\n"
    begun = [f"gatekit: {p}: begins at step 1/{n}" for p, n in (("high", 3), ("low", 5))]
    assert captured.err.splitlines() == begun
    assert (here / "fake-seed7.run" / "run.json").is_file()
    assert call(["run", "fake.yaml", "-p", "a ball", "--seed", "7"]) == 0
    assert capsys.readouterr().out == "fake-seed7-2.mp4\n"
    assert (here / "fake-seed7.mp4").read_bytes() == (here / "fake-seed7-2.mp4").read_bytes()


def test_a_name_that_is_no_file_name(here, capsys):
    assert call(["run", "fake.yaml", "-p", "x", "--set", "name=../a gate/2"]) == 0
    assert capsys.readouterr().out == "a-gate-2-seed0.mp4\n"


def test_a_video_is_made_again_bit_for_bit(here, capsys, tmp_path, monkeypatch):
    (here / "cat.png").write_bytes(b"cat")
    first = ["run", "fake.yaml", "-p", "a ball", "-n", "no", "--seed", "7", "-i", "cat.png"]
    changes = ["--set", "phases.low.sampler=heun", "--set", "device=null", "--device", "cpu"]
    assert call([*first, "-o", "out.mp4", *changes]) == 0
    original = (here / "out.mp4").read_bytes()
    assert call(["run", "out.mp4", "-o", "again.mp4"]) == 0
    assert (here / "again.mp4").read_bytes() == original
    assert call(["run", "out.mp4", "-o", "other.mp4", "--seed", "8"]) == 0
    assert (here / "other.mp4").read_bytes() != original
    capsys.readouterr()
    assert call(["plan", "out.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schedule"]["device"] == "cpu"
    assert call(["plan", "out.mp4"]) == 0
    assert "of heun" in capsys.readouterr().out

    # Elsewhere, without the run folder: weights come from --models-dir, the image from beside.
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "out.mp4").write_bytes(original)
    monkeypatch.chdir(moved)
    argv = ["run", "out.mp4", "-o", "again.mp4", "--models-dir", str(here)]
    assert call(argv) == 2
    assert "the image of the earlier run is gone or has changed" in capsys.readouterr().err
    (moved / "cat.png").write_bytes(b"cat")
    assert call(argv) == 0
    assert (moved / "again.mp4").read_bytes() == original


def test_a_result_that_is_inspected_says_what_can_be_done_with_it(here, capsys):
    assert call(["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]) == 0
    capsys.readouterr()
    assert call(["inspect", "out.mp4"]) == 2
    assert "gatekit run out.mp4 makes it again" in capsys.readouterr().err
    (here / "other.mp4").write_bytes(b"no video")
    assert call(["inspect", "other.mp4"]) == 2
    assert "no installed plugin can use this file" in capsys.readouterr().err


def test_other_weights_under_an_old_name_are_said(here, capsys):
    assert call(["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]) == 0
    (here / "fine.num").write_text('{"gain": 0.7}')
    assert call(["run", "out.mp4", "-o", "again.mp4"]) == 0
    assert "warning: fine.num is not the file that the first video" in capsys.readouterr().err


def test_ctrl_c_ends_after_the_step_and_the_run_goes_on(here, capsys, ctrl_c, monkeypatch):
    assert call(["run", "fake.yaml", "-p", "x", "-o", "whole.mp4"]) == 0
    ctrl_c(7)
    before = signal.getsignal(signal.SIGINT)
    capsys.readouterr()
    assert call(["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]) == 130
    error = capsys.readouterr().err
    assert error.endswith(
        "gatekit: interrupted after step 4 of 8 (phase low); "
        "go on with: gatekit run --resume out.run\n"
    )
    assert signal.getsignal(signal.SIGINT) is before
    assert not (here / "out.mp4").exists()
    assert json.loads((here / "out.run" / "run.json").read_text())["steps"][-1]["step"] == 3
    assert call(["run", "--resume", "out.run", "--set", "sigmas.steps=9"]) == 2
    assert "the run to resume had another schedule" in capsys.readouterr().err
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert call(["run", "--resume", "../out.run"]) == 0
    assert "gatekit: going on with step 5 of 8 (phase low)\n" in capsys.readouterr().err
    assert (here / "out.mp4").read_bytes() == (here / "whole.mp4").read_bytes()


def test_ctrl_c_in_any_command_says_so(here, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt  # a signal may be ignored where tests run in the background

    monkeypatch.setattr("gatekit.resolver.resolve", interrupted)
    assert call(["plan", "fake.yaml"]) == 130
    assert capsys.readouterr().err == "gatekit: interrupted\n"


def test_plain_run_goes_on_with_what_was_interrupted(here, capsys, ctrl_c):
    assert call(["run", "fake.yaml", "-p", "x", "-o", "whole.mp4"]) == 0
    ctrl_c(7)
    argv = ["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]
    assert call(argv) == 130
    capsys.readouterr()
    ctrl_c()
    assert call(argv) == 0
    error = capsys.readouterr().err
    assert "interrupted after step 4; going on; remove out.run to start anew\n" in error
    assert "going on with step 5 of 8 (phase low)\n" in error
    assert (here / "out.mp4").read_bytes() == (here / "whole.mp4").read_bytes()

    ctrl_c(7)
    assert call([*argv[:-1], "other.mp4"]) == 130
    ctrl_c()
    capsys.readouterr()
    assert call(["run", "fake.yaml", "-p", "y", "-o", "other.mp4"]) == 0
    error = capsys.readouterr().err
    assert "the unfinished run in other.run is given up, as inputs.prompt was 'x', is 'y'" in error
    assert "going on" not in error


def test_how_to_go_on_is_a_line_that_works(here, capsys, ctrl_c):
    """Weights of --models-dir, which run.json does not tell; a name with a space."""
    (here / "the models").mkdir()
    for name in ("coarse.num", "fine.num"):
        (here / name).rename(here / "the models" / name)
    ctrl_c(7)
    argv = ["run", "fake.yaml", "-p", "x", "-o", "an out.mp4", "--models-dir", "the models"]
    assert call(argv) == 130
    line = capsys.readouterr().err.splitlines()[-1].partition("go on with: gatekit ")[2]
    ctrl_c()
    assert call(shlex.split(line)) == 0
    assert (here / "an out.mp4").exists()


def test_a_second_ctrl_c_ends_at_once(here, capsys, ctrl_c):
    calls = ctrl_c(5, 6)
    assert call(["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]) == 130
    assert len(calls) == 6, "in the midst of the step"
    assert "go on with: gatekit run --resume out.run\n" in capsys.readouterr().err


def test_an_unexpected_exception_is_logged(here, capsys, fake, monkeypatch):
    def broken(self, x, sigma, conditioning):
        raise ValueError("a bug\nin two lines")

    monkeypatch.setattr(fake.Number, "velocity", broken)
    assert call(["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "gatekit: unexpected ValueError: a bug; the traceback is in out.run/error.log"
    assert "Traceback" in (here / "out.run" / "error.log").read_text()
    with pytest.raises(ValueError, match="a bug"):
        call(["--debug", "run", "fake.yaml", "-p", "x", "-o", "out.mp4"])


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import conftest
from gatekit.registry import registry
from gatekit.cli import call
registry().register(conftest.load_fake(), "fake")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
sys.exit(call(sys.argv[3:]))
"""


@pytest.mark.parametrize(("limit", "place"), [(20_000, "out.mp4"), (1_000, "run.json")])
def test_a_full_disk(here, limit, place):
    """A limit on the size of files fails as a full disk does: in the midst of a write."""
    big = [f"video.{k}={v}" for k, v in {"width": 512, "height": 512, "frames": 41}.items()]
    argv = ["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]
    argv += [word for change in big for word in ("--set", change)]
    tests = str(ROOT / "tests")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tests, str(limit), *argv], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    ignored = "begins at step", "warning: no checkpoint of step"  # a run goes on without one
    lines = [x for x in done.stderr.splitlines() if not any(word in x for word in ignored)]
    assert len(lines) == 1, done.stderr
    assert f"{place}: cannot write: " in done.stderr
    assert not list(here.glob("*.mp4"))
    assert not [p for p in here.rglob("*") if ".part" in p.name]


def test_an_unwritable_output(here, capsys):
    (here / "file").write_text("")
    assert call(["run", "fake.yaml", "-p", "x", "-o", "file/out.mp4"]) == 2
    assert "-o: no such folder (got 'file'); make it" in capsys.readouterr().err
    assert call(["run", "fake.yaml", "-p", "x", "--run-dir", "file"]) == 2
    assert (
        "cannot write: File exists; choose another folder with --run-dir" in capsys.readouterr().err
    )
    (here / "out.run").write_text("")
    assert call(["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]) == 2
    assert "out.run: cannot write: File exists; choose another place with -o" in (
        capsys.readouterr().err
    )


def test_inspect(here, capsys):
    assert call(["inspect", "fine.num"]) == 0
    text = capsys.readouterr().out
    assert "storage: fp64, 64.00 bits a weight" in text
    assert "variants: {fine: {use: number, file: fine.num}}" in text
    assert call(["inspect", "fine.num", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["opens_as"]
    assert [(entry["family"], entry["use"]) for entry in found] == [
        ("fake", "number"),
        ("derived", "number"),
    ]


def test_samplers(capsys):
    assert call(["samplers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    (at,) = (i for i, line in enumerate(lines) if line.startswith("rk45 "))
    assert lines[at].split() == ["rk45", "5", "adaptive", "no"]
    assert lines[at + 1].startswith("    Dormand-Prince 5(4)")
    assert "c3=0.6667" in "\n".join(lines)
    assert call(["samplers", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["heun"]["order"] == 2
    assert found["unipc"]["params"]["coordinate"] == "lam"


def test_plugins(fake, capsys):
    assert call(["plugins", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["plugins"]}
    assert found["fake"]["offers"] == {
        "model family": ["derived", "fake"],
        "variant": ["fake/number"],
    }
    assert found["samplers"]["package"] == "gatekit-diffusion"
    assert found["basics"]["offers"]["command"] == ["step-cache", "curvature", "fit"]


def test_bars_on_a_terminal(here, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    assert call(["run", "fake.yaml", "-p", "x", "-o", "out.mp4"]) == 0
    error = capsys.readouterr().err
    assert "3/3" in error
    assert "5/5" in error
    assert "coarse (fp64), unipc" in error


def test_a_plugins_own_command(capsys):
    from gatekit.registry import registry

    class Plugin:
        @gatekit.hookimpl
        def gatekit_register_commands(self, app):
            @app.command("hello")
            def hello():
                print("hello")

    registry().register(Plugin(), "greeter")
    try:
        assert call(["hello"]) == 0
        assert capsys.readouterr().out == "hello\n"
    finally:
        registry().remove("greeter")


def test_the_schema_has_every_plugin_and_no_reference(fake, capsys):
    assert call(["schema"]) == 0
    text = capsys.readouterr().out
    assert "$ref" not in text
    whole = json.loads(text)["else"]
    phase = whole["properties"]["phases"]["anyOf"][0]["items"]
    assert {"euler", "unipc"} <= set(phase["properties"]["sampler"]["anyOf"][0]["enum"])
    assert set(phase["required"]) == {"name", "variant", "sampler"}
    variants = whole["properties"]["variants"]["additionalProperties"]["anyOf"]
    assert "number" in [option["title"] for option in variants]
    assert "required" in whole
    assert "required" not in json.loads(text)["then"]


def test_the_schema_accepts_what_is_shipped_and_no_misspelling():
    jsonschema = pytest.importorskip("jsonschema")
    from gatekit.schema import json_schema
    from gatekit.yamlparse import parse

    schema = json.loads(json.dumps(json_schema()))
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)  # once: it takes a second
    validator = kind(schema)
    for path in sorted((ROOT / "schedules").glob("*.yaml")):
        validator.validate(parse(path.read_text(), path.name).plain())
    for name in ("quickstart", "wan22_official_i2v"):
        bad = parse((ROOT / f"schedules/{name}.yaml").read_text(), "x").plain()
        phases = bad["phases"]
        (phases[0] if isinstance(phases, list) else phases["high"])["guidanse"] = "cfg"
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(bad)


def test_the_installed_command(here):
    command = shutil.which("gatekit", path=Path(sys.executable).parent)
    assert command, "install the project, such as with pip install -e ."
    argv = [command, "plan", "nowhere.yaml"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gatekit: nowhere.yaml: cannot read the schedule")
