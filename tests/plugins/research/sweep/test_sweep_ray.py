"""Sweeps on workers: the order they are given cells in, one that dies, and Ray itself."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from gatekit_research.sweep import workers
from gatekit_research.sweep.local import run_all
from gatekit_research.sweep.setup import Setup
from gatekit_research.sweep.store import Store


class RayError(Exception):
    pass


class FakeRay:
    """Ray's few calls, in this process: work is done when it is waited for, the last first."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, dies_at=()):
        self.dies_at, self.log, self.hired, self.killed = set(dies_at), [], 0, 0

    def is_initialized(self):
        return True

    def cluster_resources(self):
        return {"CPU": 2.0}

    def kill(self, actor):
        self.killed += 1

    def remote(self, **options):
        return lambda cls: SimpleNamespace(remote=lambda *args: self._actor(cls(*args)))

    def _actor(self, worker):
        self.hired += 1
        number = self.hired

        def ask(digest, line):
            return lambda: self._run(worker, number, digest, line)

        return SimpleNamespace(run=SimpleNamespace(remote=ask))

    def _run(self, worker, number, digest, line):
        cell = worker._cells[digest]
        self.log.append((number, cell.arm.name, cell.prompt))
        if cell.digest in self.dies_at:
            self.dies_at.remove(cell.digest)
            raise RayError("the worker died")
        return worker.run(digest, line)

    def wait(self, futures, num_returns):
        return futures[-1:], futures[:-1]

    def get(self, future):
        return future()


def go(file, folder, ray, count=2):
    setup, store = Setup.of(file), Store(folder)
    store.begin(setup.about())
    crew = workers.Crew(file, None, None, count, _ray=ray)
    told = []
    crew.run_all(setup.bench(store), store, setup.cells, lambda cell, line: told.append(line))
    return setup, store, told


def test_workers_find_what_one_process_finds(sweep, project):
    ray = FakeRay()
    setup, store, told = go(sweep(), project / "many", ray)
    alone = Store(project / "one")
    alone.begin(setup.about())
    run_all(setup.bench(alone), alone, setup.cells, lambda *_: None)
    one, many = alone.read(), store.read()
    assert {k: x["metrics"] for k, x in one.items()} == {k: x["metrics"] for k, x in many.items()}
    assert len(told) == 10 and (ray.hired, ray.killed) == (2, 2)


def test_cells_wait_for_their_reference_and_workers_stay_with_their_arm(sweep, project):
    ray = FakeRay()
    go(sweep(), project / "many", ray)
    at = {(arm, prompt): i for i, (_, arm, prompt) in enumerate(ray.log)}
    others = {key: i for key, i in at.items() if key[0] != "reference"}
    assert all(at["reference", prompt] < i for (_, prompt), i in others.items())
    by_arm = {}
    for worker, arm, _ in ray.log:
        by_arm.setdefault(arm, []).append(worker)
    assert sum(len(set(of)) == 1 for name, of in by_arm.items() if name != "reference") >= 3


def test_a_worker_that_dies_costs_its_cell_and_is_replaced(sweep, project):
    file = sweep()
    victim = next(c for c in Setup.of(file).cells if c.arm.name == "plain, steps=8")
    ray = FakeRay(dies_at=[victim.digest])
    _, store, told = go(file, project / "many", ray)
    lines = store.read()
    assert lines[victim.digest]["error"] == "RayError: the worker died"
    assert sum(x["status"] == "done" for x in lines.values()) == 9 and len(told) == 10
    assert ray.hired == 3
    again = FakeRay()
    _, store, told = go(file, project / "many", again)
    assert len(told) == 1 and all(x["status"] == "done" for x in store.read().values())
    assert again.hired == 1  # no more workers than cells


def test_nothing_to_do_hires_nobody(sweep, project):
    file = sweep()
    go(file, project / "many", FakeRay())
    ray = FakeRay()
    go(file, project / "many", ray)
    assert ray.hired == 0


TINY = """\
version: 1
name: tiny
base: {base}
set:
  video: {{width: 16, height: 16, frames: 9, fps: 16}}
  sigmas.steps: 2
  phases.high.until: 0.9
list:
  - {{name: unipc}}
  - {{name: euler, set: {{phases.high.sampler: euler}}}}
reference: unipc
prompts: [a small green cross, a large red circle]
metrics: [latent_rmse]
"""


def test_with_ray_itself(tmp_path, pytestconfig):
    pytest.importorskip("ray", reason="Ray is not installed (the extra 'ray')")
    base = pytestconfig.rootpath / "schedules" / "tinywan_fp16.yaml"
    (tmp_path / "tiny.yaml").write_text(TINY.format(base=base))

    def start(*options):
        code = "import sys; from gatekit.cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, "sweep", "tiny.yaml", "--device", "cpu"]
        command += ["--allow-outside", *options]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert start("-o", "many", "--ray", "--workers", "2").splitlines()[-1] == "many"
    start("-o", "one")

    def read(name):
        lines = (tmp_path / name / "results.jsonl").read_text().splitlines()
        return {x["cell"]: x["metrics"] for x in map(json.loads, lines)}

    assert len(read("many")) == 4 and read("many") == read("one")
