"""A project folder with a schedule, and files that a fake family can run."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

pytest_plugins = ["real_kdiffusion"]  # by name: benchmarks import this file without pytest
settings.register_profile("gatekit", deadline=None)  # no test asserts timing
settings.load_profile("gatekit")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two workers share two cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_cache():
    """No test reads or writes the cache of who runs it; those of a cache name their own."""
    before = os.environ.get("GATEKIT_CACHE")
    os.environ["GATEKIT_CACHE"] = "off"
    yield
    os.environ.pop("GATEKIT_CACHE")
    if before is not None:
        os.environ["GATEKIT_CACHE"] = before


SCHEDULE = """\
version: 1
name: fake
family: {use: fake}
text_encoder: {file: text.bin}
vae: {file: vae.bin}
variants:
  coarse: {use: number, expert: high, file: coarse.num}
  fine: {use: number, expert: low, file: fine.num}
video: {width: 32, height: 32, frames: 5}
sigmas: {use: shifted_linear, steps: 8, shift: 5.0}
device: cpu
phases:
  - name: high
    until: 0.9
    variant: coarse
    sampler: {use: unipc}
    guidance: {use: cfg, scale: 2.0}
  - name: low
    variant: fine
    sampler: euler
    history: carry
"""


def load_fake() -> ModuleType:
    path = Path(__file__).with_name("fakefamily.py")
    spec = importlib.util.spec_from_file_location("gatekit_test_fakefamily", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake():
    """The fake family, registered for one test."""
    from gatekit.registry import registry

    module = load_fake()
    registry().register(module, "fake")
    yield module
    registry().remove("fake")


@pytest.fixture
def project(fake, tmp_path, monkeypatch) -> Path:
    """A folder with ``fake.yaml`` and every file it names."""
    monkeypatch.delenv("GATEKIT_MODELS", raising=False)
    monkeypatch.setenv("GATEKIT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "fake.yaml").write_text(SCHEDULE)
    (folder / "coarse.num").write_text(json.dumps({"gain": 0.5}))
    (folder / "fine.num").write_text(json.dumps({"gain": 0.8}))
    (folder / "text.bin").write_bytes(b"text")
    (folder / "vae.bin").write_bytes(b"vae")
    return folder
