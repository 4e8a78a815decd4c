"""Weight files that others are about to cut: they wait until the run has let go of its maps."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import gatekit
from gatekit import Inputs, WeightsError, execute, load_schedule, resolve
from gatekit.leases import Leases, leased, mapped

pytest.importorskip("fcntl")
CUT = "import os, sys; os.truncate(sys.argv[1], 3)"


@pytest.fixture
def file(tmp_path):
    """A file that this system gives a lease on."""
    fcntl, path = pytest.importorskip("fcntl"), tmp_path / "a.bin"
    path.write_bytes(b"12345")
    with path.open("rb") as stream:
        try:
            fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except (OSError, AttributeError):
            pytest.skip("no leases here")
    return path


def wait(seconds=30.0):
    """What a long evaluation is to the signal: something that it interrupts."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)


def others():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_who_cuts_a_file_waits_until_it_is_let_go(file):
    descriptors = others()
    told = "another program is about to write"
    with pytest.raises(WeightsError, match=told) as caught, leased([file]):
        cutting = subprocess.Popen([sys.executable, "-c", CUT, file])
        try:
            wait()
        finally:
            assert cutting.poll() is None and file.read_bytes() == b"12345"
    assert caught.value.where == str(file)
    assert cutting.wait(30) == 0 and file.read_bytes() == b"123"
    assert signal.getsignal(signal.SIGIO) is signal.SIG_DFL and others() == descriptors


def test_reading_replacing_and_removing_wait_for_nothing(file):
    with leased([file, file.parent / "missing"]):
        assert file.read_bytes() == b"12345"
        other = file.with_suffix(".new")
        other.write_bytes(b"1")
        other.replace(file)
        file.unlink()


def test_a_folder_is_its_files(file):
    with pytest.raises(WeightsError, match=r"a\.bin"), leased([file.parent]):
        file.write_bytes(b"")
    assert file.read_bytes() == b"12345", "held until the error was on its way"


@pytest.mark.parametrize("why", ["not wanted", "another thread", "SIGIO in use"])
def test_nothing_is_held_where(file, why):
    def hold():
        with leased([file] if why != "not wanted" else []):
            file.write_bytes(b"1")

    before = signal.getsignal(signal.SIGIO)
    if why == "SIGIO in use":
        signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        if why == "another thread":
            thread = threading.Thread(target=hold)
            thread.start()
            thread.join()
        else:
            hold()
    finally:
        signal.signal(signal.SIGIO, before)
    assert file.read_bytes() == b"1"


def test_it_is_told_once(file):
    leases = Leases()
    leases._held[file] = os.open(file, os.O_RDONLY)  # no lease, as where it was broken
    with pytest.raises(WeightsError):
        leases.told(signal.SIGIO, None)
    leases.told(signal.SIGIO, None)
    leases.release()
    leases.release()


def test_a_run_ends_before_its_file_is_cut_and_goes_on_later(project, tmp_path, file):
    weights, started = project / "coarse.num", []
    content, stat = weights.read_bytes(), weights.stat()
    plan = resolve(load_schedule(project / "fake.yaml"))
    whole = gatekit.run(plan, Inputs(prompt="x")).latent

    def cut(state, record, denoised):
        if record.step == 1:
            started.append(subprocess.Popen([sys.executable, "-c", CUT, weights]))
            wait()

    with pytest.raises(WeightsError, match="about to write to this file") as caught:
        gatekit.run(plan, Inputs(prompt="x"), run_dir=tmp_path / "r", observers=[cut])
    assert caught.value.where == str(weights) and "go on with the run" in caught.value.remedy
    assert started[0].wait(30) == 0 and weights.read_bytes() == content[:3]
    weights.write_bytes(content)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert torch.equal(gatekit.run(plan, Inputs(prompt="x"), resume=tmp_path / "r").latent, whole)


@pytest.mark.parametrize(("place", "held"), [("cpu", True), ("cuda", False)])
def test_what_a_cpu_encodes_with_is_held_in_a_run_on_a_gpu(project, monkeypatch, fake, place, held):
    """Before anything is asked of the GPU, so none is needed here."""
    encoder = project / "encoder.num"
    encoder.write_bytes((project / "coarse.num").read_bytes())
    given = load_schedule(
        project / "fake.yaml", [f"text_encoder={{file: encoder.num, device: {place}}}"]
    )
    plan = resolve(given, device="cuda")
    assert mapped(plan) == mapped(plan, "vae") == ()
    assert mapped(resolve(given, device="cpu")) == plan.files()

    def encode(self, inputs, video, device):
        encoder.write_bytes(b"another")
        raise ZeroDivisionError

    monkeypatch.setattr(execute, "check_ready", lambda plan, inputs: None)
    monkeypatch.setattr(fake.FakeFamily, "encode", encode)
    with pytest.raises(WeightsError if held else ZeroDivisionError) as caught:
        gatekit.run(plan, Inputs(prompt="x"))
    assert not held or caught.value.where == str(encoder)


MAPPED = """
import mmap, subprocess, sys, time
from pathlib import Path
import numpy
from gatekit import WeightsError
from gatekit.leases import leased

file, wanted = Path(sys.argv[1]), sys.argv[2] == "leased"
with file.open("rb") as stream:
    weights = numpy.frombuffer(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ), numpy.uint8)
try:
    with leased([file] if wanted else []):
        subprocess.Popen([sys.executable, "-c", sys.argv[3], file])
        until = time.monotonic() + 30
        while time.monotonic() < until:
            weights.sum()
except WeightsError as error:
    print(error)
"""


@pytest.mark.parametrize(("how", "code"), [("leased", 0), ("mapped", -signal.SIGBUS)])
def test_a_map_that_is_computed_from_does_not_end_the_process(file, how, code):
    file.write_bytes(bytes(8 << 20))
    argv = [sys.executable, "-c", MAPPED, file, how, CUT]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert ("another program is about to write" in done.stdout) == (how == "leased")
