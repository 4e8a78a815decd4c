"""Metrics of one cell, compared with its reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gatekit
from gatekit_research.sweep.cells import Cell
from gatekit_research.sweep.store import LATENTS, TRACES, Store
from gatekit_research.sweep.watch import Trace, load_trace

if TYPE_CHECKING:
    from torch import Tensor

NONE = "no reference"
FAILED = "failed: "  # begins the reason of a metric that raised what no metric should
ROOM = 1 << 31  # bytes of decoded references that are kept


@dataclass(frozen=True)
class Measured:
    """What metrics said.

    Attributes:
        metrics: Name -> value.
        curves: Name -> pairs (sigma, value).
        unmeasured: Name -> why it has no value.
    """

    metrics: dict[str, float]
    curves: dict[str, list[tuple[float, float]]]
    unmeasured: dict[str, str]


class Measures:
    """The metrics of a sweep.

    Args:
        names: As the sweep says.
        store: Where references are.
    """

    def __init__(self, names: Sequence[str], store: Store) -> None:
        self.metrics = [gatekit.find_metric(name)() for name in names]
        self._store = store
        self._references: dict[str, gatekit.Sample] = {}
        self._sizes: dict[str, int] = {}

    @property
    def traced(self) -> bool:
        """Whether any needs predictions along the run."""
        return any("trace" in metric.needs for metric in self.metrics)

    def of(
        self, cell: Cell, latent: Tensor, video: Callable[[], Tensor], trace: Trace | None
    ) -> Measured:
        """Every metric of one result; a metric that cannot tell says why, one that fails is named.

        Without a trace (of a run that is over) those that need one are left out.
        """
        own = cell.reference in (None, cell.digest)
        plan = cell.arm.plan

        def sample(frames: Callable[[], Tensor], other: gatekit.Sample | None) -> gatekit.Sample:
            prompt, fps = cell.inputs.prompt, plan.video.fps
            return gatekit.Sample(
                video=frames,
                latent=latent,
                prompt=prompt,
                fps=fps,
                trace=trace or (),
                reference=other,
            )

        itself, lacking = sample(video, None), ""
        try:
            compared = itself if own else self._reference(cell)
        except (OSError, gatekit.UserError) as exc:
            compared, lacking = None, f"{NONE}: {exc}"
        whole = sample(lambda: itself.video, compared)
        found = Measured({}, {}, {})
        for metric in self.metrics:
            if trace is None and "trace" in metric.needs:
                continue
            if lacking and "reference" in metric.needs:
                found.unmeasured[metric.name] = lacking
                continue
            try:
                self._take(metric, whole, found)
            except gatekit.UserError as exc:
                found.unmeasured[metric.name] = str(exc)
            except gatekit.Cancelled:
                raise
            except (Exception, SystemExit) as exc:  # of a plugin: the others still have a value
                said = gatekit.one_line(exc)
                module = type(metric).__module__
                found.unmeasured[metric.name] = f"{FAILED}{metric.name!r} of {module} raised {said}"
        return found

    @staticmethod
    def _take(metric: gatekit.Metric, sample: gatekit.Sample, found: Measured) -> None:
        value = metric.measure(sample)
        parts = {"": value} if isinstance(value, float | int) else value
        numbers = {f"{metric.name}.{part}" if part else metric.name: v for part, v in parts.items()}
        finite = {name: math.isfinite(number) for name, number in numbers.items()}
        curve = [(float(s), float(v)) for s, v in metric.curve(sample) or ()]
        # All of it or nothing: what raises has raised by now.
        found.metrics.update({n: float(v) for n, v in numbers.items() if finite[n]})
        found.unmeasured.update(
            {n: f"the value is {v}" for n, v in numbers.items() if not finite[n]}
        )
        if curve:
            found.curves[metric.name] = curve

    def _reference(self, cell: Cell) -> gatekit.Sample:
        """The reference's result, its frames decoded once and kept while there is room."""
        digest = str(cell.reference)
        if digest in self._references:
            return self._references[digest]
        latent = load_latent(self._store, digest)
        plan = cell.arm.plan

        def video() -> Tensor:
            frames = decode(plan, latent)
            self._make_room(digest, frames.numel() * frames.element_size())
            return frames

        traces = self._store.file(TRACES, digest)
        made = gatekit.Sample(
            video=video,
            latent=latent,
            prompt=cell.inputs.prompt,
            trace=load_trace(traces) if self.traced else (),
        )
        self._references[digest] = made
        self._sizes[digest] = 0
        return made

    def _make_room(self, digest: str, size: int) -> None:
        self._sizes[digest] = size
        for other in list(self._sizes):
            if sum(self._sizes.values()) <= ROOM or other == digest:
                break
            del self._sizes[other], self._references[other]


def load_latent(store: Store, digest: str) -> Tensor:
    """A finished cell's latent ``[C, T, H, W]``. Raises InputError where it is not there."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(store.file(LATENTS, digest))["latent"]
    except (OSError, SafetensorError, KeyError) as exc:
        raise gatekit.InputError(
            "the latent of this cell is not there", where=digest, remedy="run the sweep again"
        ) from exc


def decode(plan: gatekit.Plan, latent: Tensor) -> Tensor:
    """Frames ``[F, H, W, 3]`` in [0, 1], on the CPU."""
    return plan.family.decode(latent.to(plan.device), plan.video, plan.device).float().cpu()
