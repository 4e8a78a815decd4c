"""The real k-diffusion, 33 kB, without the dozen packages that it asks for and we do not use.

No requirement that pip knows says "without dependencies", so what is not installed is
downloaded once, checked against its hash, into pytest's cache.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

PINNED = (
    "k-diffusion==0.1.1.post1 "
    "--hash=sha256:b4bdcc74e35dd66df5d25433ea76b19edeaeaf2aad05ed97438be447cf4f5ee1\n"
)


def fetched(cache: Path) -> Path:
    """A folder with the package's files."""
    ready = cache / "0.1.1.post1"
    if ready.is_dir():
        return ready
    with tempfile.TemporaryDirectory(dir=cache) as name:
        folder = Path(name)
        (folder / "requirements.txt").write_text(PINNED)
        argv = ["pip", "download", "-q", "--no-deps", "--require-hashes", "-d", name]
        done = subprocess.run(
            [sys.executable, "-m", *argv, "-r", str(folder / "requirements.txt")],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.fail(
                "these tests need the real k-diffusion, and pip could not download it; "
                f"pip install --no-deps k-diffusion\n{done.stderr[-2000:]}"
            )
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(folder / "files")
        try:
            (folder / "files").rename(ready)
        except OSError:  # another worker was faster
            assert ready.is_dir()
    return ready


@pytest.fixture(scope="session")
def package(request, tmp_path_factory):
    """The folder that ``k_diffusion`` is in."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is not None:
        return Path(spec.submodule_search_locations[0]).parent
    return fetched(request.config.cache.mkdir("k_diffusion"))


@pytest.fixture
def k_diffusion(package, monkeypatch):
    """The real k-diffusion importable, and its samplers registered, for one test."""
    import gatekit_kdiffusion
    from gatekit.registry import registry

    monkeypatch.syspath_prepend(package)
    gatekit_kdiffusion.sampler_classes.cache_clear()
    registry.cache_clear()
    yield
    gatekit_kdiffusion.sampler_classes.cache_clear()
    registry.cache_clear()
