"""What a fine run leaves for ``fitting``: products of its predictions, measured and kept."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
BESIDE = 1e-3  # times s (1 - s): how far below a switch the next field takes over


@dataclass(frozen=True)
class Fine:
    """What fine runs leave, one for each of ``B`` inputs.

    Attributes:
        travelled: The trajectory, by mean products.
        profile: Pairs (sigma, density) for a ``curvature`` grid, of the mean curvature.
        ends: Where they ended, float32 ``[B, n]``: of each latent what is looked at.
        inputs: What they were made from, as plain data.
    """

    travelled: Travelled
    profile: list[list[float]]
    ends: Tensor
    inputs: tuple[Mapping[str, Any], ...] = ()


def fine_grid(first: float, steps: int, boundaries: Sequence[float] = ()) -> list[float]:
    """``steps`` steps from ``first`` to 0, even in log((1 - s + EDGE)/(s + EDGE)).

    Like lam, but finite at both ends: short steps where a guided model is touchy, near 1, and
    where its prediction still changes as fast as sigma, near 0. It meets every boundary, and has
    a node right below, from where the next field predicts: a step across would err by as much as
    what is to be measured.
    """
    inside = [b for b in boundaries if 0.0 < b < first]
    found = _even(first, steps - len(inside))
    for boundary in inside:
        near = 1 + min(range(len(found) - 2), key=lambda i: abs(found[i + 1] - boundary))
        found.pop(near)
        at = bisect_left(found, -boundary, key=lambda s: -s)
        found[at:at] = [boundary, boundary - BESIDE * boundary * (1.0 - boundary)]
    return found


def _even(first: float, steps: int) -> list[float]:
    def place(sigma: float) -> float:
        return math.log((1.0 - sigma + EDGE) / (sigma + EDGE))

    low, high = place(first), place(0.0)
    ratios = (math.exp(low + (high - low) * i / steps) for i in range(1, steps))
    return [first, *((1.0 + EDGE - r * EDGE) / (1.0 + r) for r in ratios), 0.0]


def looked_at(x: Tensor) -> Tensor:
    """Of latents ``[B, ...]`` at most MOST elements each, always the same: ``[B, n]``, CPU."""
    flat = x.detach().flatten(1)
    if flat.shape[1] > MOST:
        flat = flat[:, _chosen(flat.shape[1], MOST).to(flat.device)]
    return flat.float().cpu()


@lru_cache(2)
def _chosen(elements: int, most: int) -> Tensor:
    import torch

    return torch.randperm(elements, generator=torch.Generator().manual_seed(0))[:most]


class Travel(Bends):
    """An observer that keeps a run's predictions and its end, and measures how they bend.

    Attributes:
        end: What is looked at of the last state, ``[B, n]``.
    """

    end: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._places: list[float] = []
        self._seen: list[Tensor] = []

    def __call__(self, state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        """Take one more prediction."""
        super().__call__(state, record, denoised)
        self._places.append(record.sigma)
        self._seen.append(looked_at(denoised))
        self.end = looked_at(state.x)

    def travelled(self, boundaries: Sequence[float]) -> Travelled:
        """Where it went."""
        import torch

        seen = torch.stack(self._seen, dim=1).double()  # [B, n, elements]
        gram = (seen @ seen.mT) / seen[:, -1].square().sum(1)[:, None, None]
        return Travelled(tuple(self._places), gram.mean(0).numpy(), tuple(boundaries))


def mean_of(
    travels: Sequence[Travel],
    boundaries: Sequence[float],
    inputs: Sequence[Mapping[str, Any]] = (),
) -> Fine:
    """Runs on one grid as one: the mean of their products, the profile of their mean curvature."""
    import torch

    each = [travel.travelled(boundaries) for travel in travels]
    gram = sum((t.gram for t in each[1:]), each[0].gram) / len(each)
    sigmas = travels[0].sigmas
    squares = zip(*([v * v for v in t.values] for t in travels), strict=True)
    bends = [math.sqrt(sum(column) / len(travels)) for column in squares]
    travelled = Travelled(each[0].sigmas, gram, each[0].boundaries)
    profile = thinned(sigmas, log_profile(sigmas, bends))
    return Fine(travelled, profile, torch.cat([t.end for t in travels]), tuple(inputs))


def switches(plan: gatekit.Plan) -> list[float]:
    """Sigmas below which another field predicts."""
    pairs = zip(plan.phases, plan.phases[1:], strict=False)
    return [a.boundary.until for a, b in pairs if a.field != b.field]


def save(file: Path, fine: Fine, fields: Sequence[str]) -> None:
    """Write a measurement, whole or not at all. Raises OutputError."""
    import torch
    from safetensors.torch import save as serialised

    about: dict[str, Any] = {
        "boundaries": fine.travelled.boundaries,
        "fields": list(fields),
        "profile": fine.profile,
        "inputs": list(fine.inputs),
    }
    tensors = {
        "sigmas": torch.tensor(fine.travelled.sigmas, dtype=torch.float64),
        "gram": torch.from_numpy(fine.travelled.gram).contiguous(),
        "ends": fine.ends.contiguous(),
    }
    gatekit.write_atomic(file, serialised(tensors, metadata={"gatekit_travel": json.dumps(about)}))


def load(file: Path, fields: Sequence[str]) -> Fine:
    """Read a measurement of a plan with these fields.

    Raises:
        InputError: It is none, or of other models, guidance, boundaries, size or first sigma.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            about = json.loads((opened.metadata() or {})["gatekit_travel"])
            sigmas, gram, ends = (opened.get_tensor(key) for key in ("sigmas", "gram", "ends"))
        known, profile, inputs = about["fields"], about["profile"], about["inputs"]
        travelled = Travelled(tuple(sigmas.tolist()), gram.numpy(), tuple(about["boundaries"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise gatekit.InputError(
            "this is no measurement of 'gatekit fit'",
            where="--keep",
            value=str(file),
            remedy="name a file that it wrote, or one that is not there yet",
        ) from error
    if known != list(fields):
        raise gatekit.InputError(
            "measured with other models, guidance, boundaries, video size or first sigma",
            where="--keep",
            value=str(file),
            remedy="name another file, to measure anew",
        )
    return Fine(travelled, profile, ends, tuple(inputs))
