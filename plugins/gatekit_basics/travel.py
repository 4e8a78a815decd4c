"""What a fine run leaves for ``fitting``: products of its predictions, measured and kept."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_basics.curvature import log_profile
from gatekit_basics.curvature_command import Bends, thinned
from gatekit_basics.travelled import Travelled

if TYPE_CHECKING:
    from torch import Tensor

MOST = 2**18  # elements of a latent that are looked at, chosen at random where it has more
EDGE = 0.003  # where the fine grid stops following lam


def fine_grid(first: float, steps: int) -> list[float]:
    """``steps`` steps from ``first`` to 0, even in log((1 - s + EDGE)/(s + EDGE)).

    Like lam, but finite at both ends: short steps where a guided model is touchy, near 1, and
    where its prediction still changes as fast as sigma, near 0.
    """

    def place(sigma: float) -> float:
        return math.log((1.0 - sigma + EDGE) / (sigma + EDGE))

    low, high = place(first), place(0.0)
    ratios = (math.exp(low + (high - low) * i / steps) for i in range(1, steps))
    return [first, *((1.0 + EDGE - r * EDGE) / (1.0 + r) for r in ratios), 0.0]


class Travel(Bends):
    """An observer that keeps the predictions of a run, and measures how they bend."""

    def __init__(self) -> None:
        super().__init__()
        self._places: list[float] = []
        self._seen: list[Tensor] = []
        self._chosen: Tensor | None = None

    def __call__(self, state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        """Take one more prediction."""
        super().__call__(state, record, denoised)
        import torch

        flat = denoised.detach().flatten(1)
        if flat.shape[1] > MOST:
            if self._chosen is None:
                generator = torch.Generator().manual_seed(0)
                chosen = torch.randperm(flat.shape[1], generator=generator)[:MOST]
                self._chosen = chosen.to(flat.device)
            flat = flat[:, self._chosen]
        self._places.append(record.sigma)
        self._seen.append(flat.float().cpu())

    def travelled(self, boundaries: Sequence[float]) -> Travelled:
        """Where it went."""
        import torch

        seen = torch.stack(self._seen, dim=1).double()  # [B, n, elements]
        gram = (seen @ seen.mT) / seen[:, -1].square().sum(1)[:, None, None]
        return Travelled(tuple(self._places), gram.mean(0).numpy(), tuple(boundaries))


def mean_of(
    travels: Sequence[Travel], boundaries: Sequence[float]
) -> tuple[Travelled, list[list[float]]]:
    """Runs on one grid as one: the mean of their products, and a profile of the mean curvature.

    Returns:
        The trajectory, and pairs (sigma, density) for a ``curvature`` grid.
    """
    each = [travel.travelled(boundaries) for travel in travels]
    gram = sum((t.gram for t in each[1:]), each[0].gram) / len(each)
    sigmas = travels[0].sigmas
    squares = zip(*([v * v for v in t.values] for t in travels), strict=True)
    bends = [math.sqrt(sum(column) / len(travels)) for column in squares]
    travelled = Travelled(each[0].sigmas, gram, each[0].boundaries)
    return travelled, thinned(sigmas, log_profile(sigmas, bends))


def switches(plan: gatekit.Plan) -> list[float]:
    """Sigmas below which another field predicts."""
    pairs = zip(plan.phases, plan.phases[1:], strict=False)
    return [a.boundary.until for a, b in pairs if a.field != b.field]


def save(
    file: Path, travelled: Travelled, profile: Sequence[Sequence[float]], fields: Sequence[str]
) -> None:
    """Write a measurement, whole or not at all. Raises OutputError."""
    import numpy as np
    from safetensors.numpy import save as serialised

    about: dict[str, Any] = {
        "boundaries": travelled.boundaries,
        "fields": list(fields),
        "profile": profile,
    }
    tensors = {
        "sigmas": np.asarray(travelled.sigmas),
        "gram": np.ascontiguousarray(travelled.gram),
    }
    gatekit.write_atomic(file, serialised(tensors, metadata={"gatekit_travel": json.dumps(about)}))


def load(file: Path, fields: Sequence[str]) -> tuple[Travelled, list[list[float]]]:
    """Read a measurement of a plan with these fields.

    Raises:
        InputError: It is none, or of other models, guidance, boundaries or first sigma.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            about = json.loads((opened.metadata() or {})["gatekit_travel"])
            sigmas, gram = opened.get_tensor("sigmas"), opened.get_tensor("gram")
        known, boundaries, profile = about["fields"], about["boundaries"], about["profile"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise gatekit.InputError(
            "this is no measurement of 'gatekit fit'",
            where="--keep",
            value=str(file),
            remedy="name a file that it wrote, or one that is not there yet",
        ) from error
    if known != list(fields):
        raise gatekit.InputError(
            "measured with other models, guidance, boundaries or first sigma",
            where="--keep",
            value=str(file),
            remedy="name another file, to measure anew",
        )
    return Travelled(tuple(sigmas.tolist()), gram, tuple(boundaries)), profile
