"""Run ComfyUI's own samplers beside gatekit's, on an analytic problem, and print the difference.

    git clone https-or-local-copy-of ComfyUI; pip install --no-deps k-diffusion
    python tests/parity/comfyui.py /path/to/ComfyUI

Nothing of ComfyUI's is part of this project: ``comfy/k_diffusion/sampling.py`` is loaded from the
given folder and run as it is, on float64 tensors. Of the modules that it imports for functions not
used here (model patching, images) only the names are given.

One row a sampler, grid and splitting: the largest difference anywhere in the final state, against
the function of the k-diffusion package run by gatekit, and against gatekit's own method. "Two
runs" is ComfyUI's way to chain: two calls that share a sigma, against two phases with ``reset``.
Exit code 1 if a row that should agree is further apart than 1e-6.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gatekit
from gatekit.testing import Mixture

AIM = 1e-6


@dataclass(frozen=True)
class Row:
    """One of ComfyUI's functions, and what answers to it here.

    ``ends``: the package's function takes the interval to 0 otherwise than ComfyUI's, which
    was changed, so these two are compared at the last sigma above 0.
    """

    theirs: str
    packaged: str | None
    native: str | None
    params: Mapping[str, Any] = field(default_factory=dict)
    stochastic: bool = False
    ends: bool = False


ROWS = (
    Row("euler", "k_diffusion/euler", "euler"),
    Row("heun", "k_diffusion/heun", "heun"),
    Row("dpm_2", "k_diffusion/dpm_2", None),
    Row("lms", "k_diffusion/lms", "lms", ends=True),
    Row("dpmpp_2m", "k_diffusion/dpmpp_2m", "dpmpp_2m", {"coordinate": "u"}),
    Row("res_multistep", None, "res_2m", {"coordinate": "u"}),
    Row("euler_ancestral", None, "euler_ancestral", {"rule": "linear"}, stochastic=True),
)


def main() -> None:
    """Compare everything that can be compared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comfyui", type=Path, help="folder of a clone of ComfyUI")
    folder = parser.parse_args().comfyui
    sampling = load(folder)
    print(f"ComfyUI {commit(folder)}, torch {torch.__version__}, float64\n")
    print("| function | grid | | `k_diffusion/*` | gatekit's own |\n|---|---|---|---|---|")
    worst = 0.0
    for row in ROWS:
        for grid, sigmas in GRIDS.items():
            for cut in (None, len(sigmas) // 3):
                worst = max(worst, compare(sampling, row, grid, sigmas, cut))
    print(f"\nlargest difference {worst:.1e}, aim {AIM:.0e}")
    sys.exit(worst > AIM)


def load(root: Path) -> Any:
    """Import ``comfy.k_diffusion.sampling`` without what its neighbours pull in."""
    if not (root / "comfy" / "k_diffusion" / "sampling.py").exists():
        sys.exit(f"{root}: no comfy/k_diffusion/sampling.py; give the folder of a clone of ComfyUI")
    for name in ("comfy", "comfy.k_diffusion"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[name] = package
    for name, names in {"comfy.model_patcher": (), "comfy.model_sampling": ("CONST",)}.items():
        module = types.ModuleType(name)
        for inner in names:
            setattr(module, inner, type(inner, (), {}))
        sys.modules[name] = module
        setattr(sys.modules["comfy"], name.rpartition(".")[2], module)
    return importlib.import_module("comfy.k_diffusion.sampling")


def commit(root: Path) -> str:
    """The clone's commit, where git can tell it."""
    asked = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return f"at {asked.stdout.strip()}" if asked.returncode == 0 else "of unknown commit"


def shifted(steps: int, shift: float) -> list[float]:
    """Wan's grid."""
    return [shift * u / (1 + (shift - 1) * u) for u in (1 - i / steps for i in range(steps + 1))]


GRIDS = {"shift 5, 20 steps": shifted(20, 5.0), "shift 12, 9 steps": shifted(9, 12.0)}


def compare(sampling: Any, row: Row, grid: str, sigmas: Sequence[float], cut: int | None) -> float:
    """Print one row; the larger of its differences."""
    x = torch.randn(2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [sigmas] if cut is None else [sigmas[: cut + 1], sigmas[cut:]]
    found: list[str] = []
    worst = 0.0
    for ours, params in ((row.packaged, {}), (row.native, row.params)):
        if ours is None:
            found.append("")
            continue
        short = row.ends and ours == row.packaged
        over = [*parts[:-1], parts[-1][:-1]] if short else parts
        theirs = run_theirs(getattr(sampling, f"sample_{row.theirs}"), x, over, row.stochastic)
        difference = float((run_ours(ours, params, x, over) - theirs).abs().max())
        worst = max(worst, difference)
        cell = f"{difference:.0e}" if difference else "0"
        found.append(cell + (" above 0" if short else f" `{ours}`" if ours == row.native else ""))
    how = "one run" if cut is None else f"two runs, cut at {sigmas[cut]:.3f}"
    print(f"| `{row.theirs}` | {grid} | {how} | {found[0]} | {found[1]} |")
    return worst


class Model:
    """A model as ComfyUI's functions call it; they find the kind of its path inside it."""

    def __init__(self) -> None:
        self.denoise = Mixture()
        self.inner_model = self
        self.model_sampling = sys.modules["comfy.model_sampling"].CONST()

    def __call__(self, x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        return self.denoise(x, float(sigma[0]))


def run_theirs(
    function: Callable[..., Tensor], x: Tensor, parts: Sequence[Sequence[float]], draws: bool
) -> Tensor:
    """One call a part, on float64 sigmas; noise of gatekit's counter where it draws."""
    source = gatekit.NoiseSource(0)
    starts = [sigma for part in parts for sigma in part[:-1]]
    steps = {sigma: i for i, sigma in enumerate(starts)}
    for part in parts:
        more = {}
        if draws:
            more["noise_sampler"] = lambda s, _, like=x: source.like(like, step=steps[float(s)])
        grid = torch.tensor(part, dtype=torch.float64)
        x = function(Model(), x.clone(), grid, disable=True, **more)
    return x


def run_ours(
    sampler: str, params: Mapping[str, Any], x: Tensor, parts: Sequence[Sequence[float]]
) -> Tensor:
    """Phases of one field that forget, as two calls do."""
    phases = [
        gatekit.FunctionPhase(
            Mixture(), sampler, part, params=params, field="mixture", history="reset"
        )
        for part in parts
    ]
    return gatekit.sample_phases(phases, x, seed=0)


if __name__ == "__main__":
    main()
