"""What flows through a run: evaluations, the state, records of steps.

A State is frozen and complete: a run resumed from it continues bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from gatekit.errors import InputError, OutputError
from gatekit.packing import MALFORMED, Packer, detached, unpack
from gatekit.sealing import check_tensors, check_texts, sealed

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "gatekit-state-1"


@dataclass(frozen=True)
class Evaluation:
    """One past evaluation of a denoiser, made at the start of a step.

    Attributes:
        sigma: Noise level of the evaluation.
        x: State it was made at, ``[B, ...]``.
        denoised: The prediction D(x, sigma), same shape.
        field: Stable name of what predicted it: variant, LoRAs, precision, guidance.
        start: State that the step left from, after correction; None where x was changed
            otherwise since (stochastic step, renoise, boundary hook).
    """

    sigma: float
    x: Tensor
    denoised: Tensor
    field: str
    start: Tensor | None = None

    @property
    def velocity(self) -> Tensor:
        """dx/dsigma = (x - denoised) / sigma."""
        return (self.x - self.denoised) / self.sigma


@dataclass(frozen=True)
class State:
    """Everything a run knows between two steps.

    Attributes:
        x: State ``[B, ...]``, float32 or float64.
        sigma: Its noise level.
        step: Intervals taken since the run began, upward ones included.
        visit: Renoisings since the run began.
        phase: Index of the phase it is in.
        past: Past evaluations, newest first, their sigmas strictly above ``sigma``.
        ahead: D(x, sigma) where it is known already.
        closing: The leaving model's evaluation at a boundary, while ``close`` crosses it.
        memory: The sampler's own.
        guidance_memory: The guidance's own, and the step cache's.
        visited: Sigmas this phase has stood at, oldest first, ``sigma`` last.
        sampler: Identity of the sampler that ``memory`` belongs to.
        note: What the last boundary decided, for the next record.
    """

    x: Tensor
    sigma: float
    step: int = 0
    visit: int = 0
    phase: int = 0
    past: tuple[Evaluation, ...] = ()
    ahead: Tensor | None = None
    closing: Evaluation | None = None
    memory: Mapping[str, Tensor | float] = field(default_factory=dict[str, "Tensor | float"])
    guidance_memory: Mapping[str, Any] = field(default_factory=dict[str, Any])
    visited: tuple[float, ...] = ()
    sampler: str = ""
    note: str = ""

    def forget(self) -> State:
        """Without history: no past, nothing ahead, no memory of the sampler."""
        return replace(self, past=(), ahead=None, closing=None, memory={})

    def displaced(self, x: Tensor) -> State:
        """With another ``x``: past evaluations lose their ``start``, what was ahead is void."""
        past = tuple(replace(p, start=None) for p in self.past)
        return replace(self, x=x, past=past, ahead=None, closing=None)

    def packed(self, copy: Callable[[Tensor], Tensor] = detached) -> Packed:
        """Everything as JSON and tensors, each copied once by ``copy``.

        Raises:
            OutputError: A sampler or guidance remembers what cannot be saved.
        """
        packer = Packer(_KINDS, copy)
        return Packed(packer.pack(self), packer.tensors)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, its JSON in the header, atomically.

        Raises:
            OutputError: It could not be written; nothing is left under ``path``.
        """
        path, content = Path(path), self.packed().serialised()
        partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise OutputError(
                f"the state could not be written: {error}",
                where=str(path),
                remedy="free space there, or choose another place",
            ) from error

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> State:
        """Read what ``save`` wrote.

        Raises:
            InputError: No such file, a damaged one, or another kind of file.
        """
        import safetensors

        safe_open: Any = safetensors.safe_open  # pyright: ignore[reportUnknownMemberType]

        remedy = "start the run anew, or name another checkpoint"
        try:
            with safe_open(path, framework="pt") as opened:
                metadata: dict[str, str] = opened.metadata() or {}
                tensors: dict[str, Tensor] = {n: opened.get_tensor(n) for n in opened.keys()}  # noqa: SIM118
            if metadata.get("format") == FORMAT:
                check_texts(metadata)
                check_tensors(metadata, tensors)
                there = {name: tensor.to(device) for name, tensor in tensors.items()}
                found = unpack(json.loads(metadata["state"]), there, _KINDS)
                if not isinstance(found, cls):
                    raise ValueError("no state in it")
                return found
        except (OSError, safetensors.SafetensorError, *MALFORMED) as error:
            raise InputError(
                f"no readable checkpoint: {error}", where=str(path), remedy=remedy
            ) from error
        raise InputError("not a saved state of gatekit", where=str(path), remedy=remedy)


_KINDS: dict[str, type[Any]] = {"Evaluation": Evaluation, "State": State}


@dataclass(frozen=True)
class Packed:
    """A state on its way to a file.

    Attributes:
        tree: JSON, in which tensors are names.
        tensors: In host memory.
    """

    tree: Any
    tensors: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def serialised(self, **more: str) -> bytes:
        """The bytes of a safetensors file; ``more`` goes into its metadata."""
        from safetensors.torch import save

        metadata = {"format": FORMAT, "state": json.dumps(self.tree), **more}
        return save(dict(self.tensors), metadata=sealed(metadata, self.tensors))


@dataclass(frozen=True)
class Record:
    """What one interval did.

    Attributes:
        step: Its number, from 0.
        phase: Name of the phase.
        sigma: Where it started.
        sigma_next: Where it ended (above ``sigma`` for a renoise).
        nfe: Denoiser evaluations it took, those of a boundary just before it included.
        passes: Model passes in them: guidance may take several an evaluation.
        seconds: Wall time without loading of models. On a GPU, the time until the last prediction
            was there if somebody observes the run, else the time to ask for it.
        field: What predicted.
        sampler: Name of the sampler; ``renoise`` for an upward interval.
        note: What the boundary before it decided.
        skipped: Model passes in which a step cache left blocks out.
    """

    step: int
    phase: str
    sigma: float
    sigma_next: float
    nfe: int
    passes: int
    seconds: float
    field: str
    sampler: str
    note: str = ""
    skipped: int = 0


@dataclass(frozen=True)
class Trajectory:
    """A finished run: the final state and a record of every interval."""

    state: State
    records: tuple[Record, ...] = ()

    @property
    def x(self) -> Tensor:
        """Final x ``[B, ...]``."""
        return self.state.x

    @property
    def nfe(self) -> int:
        """Denoiser evaluations of the run."""
        return sum(r.nfe for r in self.records)

    @property
    def seconds(self) -> float:
        """Wall time of the steps, without loading of models."""
        return sum(r.seconds for r in self.records)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Every sigma stood at, in order."""
        return (*(r.sigma for r in self.records), self.state.sigma)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]
