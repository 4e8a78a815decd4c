"""One latent of every sampler, to be compared with: ``python tests/bench/golden.py`` writes them.

Two phases with a model each, mixtures of Gaussians, over ten steps from noise to 0, in float64,
each sampler with its default parameters. Write them anew only where a sampler is meant to give
something else, and say so in the changelog.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FILE = Path(__file__).parents[1] / "plugins" / "samplers" / "data" / "golden.json"
SHAPE = (1, 2, 2, 2, 2)
STEPS, BOUNDARY, SHIFT, SEED = 10, 4, 5.0, 7


def natives() -> list[str]:
    """Names of the samplers that gatekit's own plugin offers."""
    from gatekit.registry import registry

    known = registry()
    return sorted(key for (kind, key), owner in known.owners.items() if (kind, owner) == OWN)


OWN = ("sampler", "samplers")


def latent(name: str, dtype: Any = None) -> Tensor:
    """What a sampler makes of the seed."""
    import torch

    import gatekit
    from gatekit import FunctionPhase
    from gatekit.testing import Mixture

    u = [1 - i / STEPS for i in range(STEPS + 1)]
    sigmas = [SHIFT * t / (1 + (SHIFT - 1) * t) for t in u]
    high = Mixture()
    low = Mixture(weights=(0.5, 0.5), means=(-0.8, 1.1), stds=(0.3, 0.6))
    x = gatekit.NoiseSource(SEED).normal(SHAPE, step=0, purpose="start")
    phases = [
        FunctionPhase(high, sampler=name, sigmas=sigmas[: BOUNDARY + 1], field="high"),
        FunctionPhase(low, sampler=name, sigmas=sigmas[BOUNDARY:], field="low"),
    ]
    return gatekit.sample_phases(phases, x.to(dtype or torch.float64), seed=SEED)


def stored() -> dict[str, list[float]]:
    """Name -> values, from the file."""
    return json.loads(FILE.read_text("utf-8"))


def main() -> None:
    """Write all of them."""
    import torch

    torch.set_num_threads(1)
    lines = [f'"{name}": {json.dumps(latent(name).flatten().tolist())}' for name in natives()]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    print(f"{len(lines)} latents in {FILE}, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
