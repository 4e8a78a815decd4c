"""``gatekit doctor`` on installations that are broken in every way, in processes of their own."""

import json
import os
import subprocess
import sys

import pytest

import gatekit
from gatekit import Check, Finding, hookimpl
from gatekit.check import examined
from gatekit.cli import call
from gatekit.doctor import asking, computing, folders, machine, requirements
from gatekit.registry import registry


def doctor(folder, *options, **environ):
    """Run the command with modules of ``folder`` before the installed ones."""
    folder.mkdir(exist_ok=True)
    path = os.pathsep.join([str(folder), *(p for p in sys.path if p)])
    code = "import sys; from gatekit.cli import main; main(['doctor', *sys.argv[1:]])"
    return subprocess.run(
        [sys.executable, "-c", code, *options],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "80"} | environ,
    )


def poison(folder, **modules):
    folder.mkdir(exist_ok=True)
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    return folder


def by_name(output):
    return {line["name"]: line for line in json.loads(output)["checks"]}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("healthy")
    code = (
        "import sys; from gatekit.cli import call; code = call(['doctor'])\n"
        "heavy = [m for m in ('torch', 'diffusers', 'transformers', 'av') if m in sys.modules]\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


def test_all_is_there(healthy):
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert healthy.stdout.endswith("All that is needed is there.\n")
    for name in ("Python", "torch", "video codecs", "extra wan", "attention", "Triton", "caches"):
        assert f"\n{name} " in healthy.stdout


def test_the_table_fits_80_columns_and_has_no_colours_in_a_pipe(healthy):
    table = healthy.stdout.partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "\x1b" not in healthy.stdout


def test_a_torch_that_crashes_takes_nothing_with_it(tmp_path):
    folder = poison(tmp_path / "torn", torch="import os\nos.abort()\n")
    done = doctor(folder, "--json")
    assert done.returncode == 1, done.stderr
    found = by_name(done.stdout)
    assert (found["torch"]["state"], found["torch"]["found"]) == ("broken", "crashed (signal 6)")
    assert found["video codecs"]["state"] == "ok"
    assert found["plugins"]["state"] == "ok"
    assert not json.loads(done.stdout)["ok"]


def test_packages_that_fail_in_their_own_ways(tmp_path):
    folder = poison(
        tmp_path / "torn",
        av="raise OSError('libavcodec.so.62: cannot open shared object file')\n",
        rich="raise ImportError('no such thing')\n",
        numpy="raise SystemExit(3)\n",
    )
    done = doctor(folder)
    assert done.returncode == 1, done.stderr
    assert "video codecs: broken: OSError: libavcodec.so.62" in done.stdout
    assert "requirements: broken: numpy: SystemExit: 3" in done.stdout
    assert "Not ready: " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_broken_pydantic_is_told_although_no_plugin_loads_without_it(tmp_path):
    done = doctor(poison(tmp_path / "torn", pydantic="raise ImportError('half')\n"), "--json")
    assert done.returncode == 1, done.stderr
    found = by_name(done.stdout)
    assert "pydantic: ImportError: half" in found["requirements"]["found"]
    assert found["plugins"]["state"] == "broken"
    assert found["torch"]["state"] == "ok"


def test_a_probe_that_hangs_is_killed(tmp_path, monkeypatch):
    poison(tmp_path, sleepy="import time\nprint('hm', end='', flush=True)\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = asking.Asked(["json", "sleepy", "math"], seconds=3.0)
    try:
        assert asked.answer("json") == {}
        assert asked.answer("sleepy") == Finding("broken", "no answer within 3 s")
        late = asked.answer("math")
        assert late.found == "no answer within 3 s while sleepy was looked at"
        assert asked._process.poll() is not None
    finally:
        asked.close()


def test_what_a_check_raises_is_its_finding():
    def leave():
        raise SystemExit("gone")

    found = examined(Check("x", "y", leave, needed=True))
    assert (found.finding.state, found.finding.found) == ("broken", "SystemExit: gone")
    assert found.fails
    assert not examined(Check("x", "y", leave)).fails
    with pytest.raises(KeyboardInterrupt):
        examined(Check("x", "y", lambda: (_ for _ in ()).throw(KeyboardInterrupt())))


def test_plugins_that_are_broken(monkeypatch, capsys):
    class Careless:
        @hookimpl
        def gatekit_register_checks(self):
            raise ValueError("oh")

    registry().register(Careless(), "careless")
    registry().add(lambda: 1 / 0, "third", "gatekit-third", "1.0", "third")
    try:
        call(["doctor", "--json"])
        found = by_name(capsys.readouterr().out)
    finally:
        registry().remove("careless")
        del registry().plugins["third"]
    careless = found["checks of careless"]
    assert careless["found"] == "ValueError: oh" and careless["remedy"] == "update or remove it"
    assert not careless["needed"], "gatekit is ready without what others add"
    assert "third: ZeroDivisionError" in found["more plugins"]["found"]
    assert not found["more plugins"]["needed"]
    assert found["plugins"]["state"] == "ok"


def test_what_gatekit_requires_is_read_from_its_metadata():
    lines = [
        "torch>=2.4",
        "diffusers>=0.35; extra == 'wan'",
        "gatekit-diffusion[wan]; extra == 'all'",
        'ray>=2.40; extra == "ray"',
    ]
    found = requirements.required(lines)
    assert found == {
        "": [("torch", "2.4")],
        "wan": [("diffusers", "0.35")],
        "ray": [("ray", "2.40")],
    }
    old = [("numpy", "999.1"), ("no-such-package-anywhere", "")]
    assert requirements.lacking(old) == ["numpy>=999.1", "no-such-package-anywhere"]
    assert requirements.lacking([("numpy", "1.0")]) == []
    assert requirements.pip(["numpy>=2", "av"]) == 'pip install "numpy>=2" av'


def test_every_extra_has_a_line():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(gatekit.__file__).parent.parent / "pyproject.toml").read_text())
    extras = set(project["project"]["optional-dependencies"])
    assert set(requirements.EXTRAS) == extras - {"dev", "all"}


class Answers:
    """Probes that were answered."""

    def __init__(self, **answers):
        self.answers = answers

    def answer(self, name):
        return self.answers[name]


def test_gpus(monkeypatch, tmp_path):
    gpu = {"name": "H100", "capability": [9, 0], "memory": [70 << 30, 80 << 30]}
    there = {"cuda": "13.0", "cudnn": 91002, "gpus": [gpu], "mps": False}
    found = computing.cuda(Answers(cuda=there))
    assert found.state == "ok"
    assert found.found == "H100 (9.0), 70.0 GiB of 80.0 GiB free; cuDNN 91002"
    driver = tmp_path / "nvidiactl"
    monkeypatch.setattr(computing, "DRIVERS", (str(driver),))
    none = there | {"gpus": []}
    assert computing.cuda(Answers(cuda=none)).found == "no NVIDIA driver; runs are on the CPU"
    driver.touch()
    assert computing.cuda(Answers(cuda=none)).state == "broken"
    assert "without CUDA" in computing.cuda(Answers(cuda=none | {"cuda": None})).found
    assert computing.cuda(Answers(cuda=none | {"mps": True})).state == "note"


def test_codecs_that_are_lacking():
    video = {"version": "14.0", "libavcodec": "61", "lacking": ["libx264 (encoder)"]}
    picture = {"version": "10", "webp": False}
    found = computing.codec(Answers(av=video, pillow=picture))
    assert found.state == "missing"
    assert "without libx264 (encoder), WebP (Pillow)" in found.found


def test_model_folders(tmp_path, monkeypatch):
    monkeypatch.delenv("GATEKIT_MODELS", raising=False)
    assert folders.models().state == "note"
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "a.safetensors").write_bytes(bytes(2048))
    monkeypatch.setenv("GATEKIT_MODELS", str(tmp_path))
    assert folders.models() == Finding("ok", f"{tmp_path}: 1 files, 2.0 KiB")
    found = folders.models([tmp_path / "gone"])
    assert found.state == "missing"
    assert "gone: no such folder" in found.found


def test_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEKIT_CACHE", str(tmp_path / "c"))
    assert folders.caches().found.endswith("c: empty")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "x").write_bytes(bytes(4096))
    assert folders.caches().found.endswith("c: 4.0 KiB")
    monkeypatch.setenv("GATEKIT_CACHE", "off")
    assert folders.caches().state == "note"


@pytest.mark.parametrize(
    ("free", "state"), [(1 << 20, "broken"), (1 << 30, "note"), (100 << 30, "ok")]
)
def test_disk(free, state, tmp_path, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: machine_usage(free))
    assert machine.disk().state == state


def machine_usage(free):
    return type("Usage", (), {"free": free})()


@pytest.mark.parametrize(("free", "state"), [(1 << 30, "note"), (64 << 30, "ok"), (None, "note")])
def test_memory(free, state, monkeypatch):
    monkeypatch.setattr(machine, "host_bytes", lambda: free)
    assert machine.memory().state == state


def test_where_no_process_can_be_started_each_line_says_so(monkeypatch):
    def refuse(*args, **kwargs):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(asking.subprocess, "Popen", refuse)
    asked = asking.Asked(["torch"])
    found = asked.answer("torch")
    asked.close()
    assert found.state == "broken" and "no process could be started: Resource" in found.found
