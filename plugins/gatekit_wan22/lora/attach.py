"""LoRAs on a loaded transformer: as branches beside its layers, or merged into its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .. import layout_transformer as layout
from ..header import TensorInfo
from ..mapped import MappedFile
from ..model import in_fp32
from .branch import new_lora_linear
from .file import Change, LoraFile
from .fit import weight_name
from .scale import noted, scale_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..sizes import Shape

_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Target:
    """The model that LoRAs are attached to, and where its weights came from.

    Attributes:
        model: diffusers' transformer.
        mapped: Its file: what strengths change is read from there again, in float32.
        tensors: The file's tensors by official name.
        shapes: Of the model's tensors.
        dtype: Compute type.
        device: Where it is.
    """

    model: Any
    mapped: MappedFile
    tensors: Mapping[str, TensorInfo]
    shapes: Mapping[str, Shape]
    dtype: torch.dtype
    device: str

    def type_of(self, name: str) -> torch.dtype:
        """Type that a tensor is held in."""
        import torch

        return torch.float32 if in_fp32(name) else self.dtype

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A weight of the file itself."""
        return self.mapped.read(self.tensors[name], dtype, self.device, self.shapes[name])

    def is_view(self, name: str) -> bool:
        """Whether the weight is held as a view of the file, taking no memory of its own."""
        import torch

        stored = getattr(torch, _FLOATS.get(self.tensors[name].type, ""), None)
        return self.device == "cpu" and stored is self.type_of(name)


class Part:
    """One LoRA file opened: its changes as tensors."""

    def __init__(self, lora: LoraFile, changes: Mapping[str, Change], device: str) -> None:
        self.changes, self.device = changes, device
        self.mapped, notes = MappedFile(lora.header), noted(lora)
        self.scales = {m: scale_of(self.mapped, c, notes) for m, c in changes.items() if c.rank}

    def pair(self, module: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Down ``[rank, in]`` and up ``[out, rank]``; kernels of convolutions flattened."""
        change = self.changes[module]
        assert change.down is not None and change.up is not None
        down = self.mapped.read(change.down, dtype, self.device).flatten(1)
        up = self.mapped.read(change.up, dtype, self.device).flatten(1)
        return down, up

    def delta(self, name: str, shape: Shape, *, pairs: bool) -> Tensor | None:
        """What strength 1 adds to a tensor of the model, float32; None for nothing."""
        import torch

        module, _, leaf = name.rpartition(".")
        module = name if leaf == "modulation" else module
        change = self.changes.get(module)
        if change is None:
            return None
        found: list[Tensor] = []
        if leaf == "bias":
            if change.diff_b is not None:
                found.append(self.mapped.read(change.diff_b, torch.float32, self.device))
            if change.up_bias is not None:
                bias = self.mapped.read(change.up_bias, torch.float32, self.device)
                found.append(bias * self.scales[module])
        else:
            if change.diff is not None:
                found.append(self.mapped.read(change.diff, torch.float32, self.device))
            if pairs and change.rank:
                down, up = self.pair(module, torch.float32)
                found.append((up @ down) * self.scales[module])
        return sum(d.reshape(shape) for d in found) if found else None  # pyright: ignore


class Attached:
    """The LoRAs of one loaded model; ``set`` changes their strengths in place.

    Args:
        target: The model.
        parts: The files with the changes that apply, in the order of the schedule.
        merge: Add pairs to weights that are held as floating point, instead of computing
            them beside: ``yes``, ``no``, or ``own`` where the weight takes memory of its own.
    """

    def __init__(
        self, target: Target, parts: Sequence[tuple[LoraFile, Mapping[str, Change]]], merge: str
    ) -> None:
        self.target = target
        self.parts = [Part(lora, changes, target.device) for lora, changes in parts]
        self.strengths: tuple[float, ...] | None = None
        self._branches: dict[str, tuple[Any, list[int]]] = {}  # module -> branch, its parts
        self._direct: dict[str, bool] = {}  # tensor -> whether pairs are merged into it
        for module in dict.fromkeys(m for part in self.parts for m in part.changes):
            self._place(module, merge)

    def _place(self, module: str, merge: str) -> None:
        """Decide how a module is changed, and put a branch beside it where one is needed."""
        changes = {i: p.changes[module] for i, p in enumerate(self.parts) if module in p.changes}
        if any(c.diff_b or c.up_bias for c in changes.values()):
            self._direct[f"{module}.bias"] = False
        weight = weight_name(module)
        paired = [i for i, c in changes.items() if c.rank]
        differs = any(c.diff is not None for c in changes.values())
        if not (paired or differs):
            return
        matrix = weight != module and len(self.target.shapes[weight]) == 2
        held = matrix and self._held(module)
        merged = not matrix or (
            held and (merge == "yes" or (merge == "own" and not self.target.is_view(weight)))
        )
        if merged or (differs and (held or not matrix)):
            self._direct[weight] = merged
        if merged or not (paired or not held):
            return
        base = self.target.model.get_submodule(_path(module))
        dtype = self.target.type_of(weight) if held else base.dtype
        pairs = [self.parts[i].pair(module, dtype) for i in paired]
        scales = [self.parts[i].scales[module] for i in paired]
        branch = new_lora_linear(base, [d for d, _ in pairs], [u for _, u in pairs], scales)
        owner, _, leaf = _path(module).rpartition(".")
        setattr(self.target.model.get_submodule(owner), leaf, branch)
        self._branches[module] = (branch, paired)

    def _held(self, module: str) -> bool:
        """Whether a layer holds its weight as a matrix of floating-point numbers."""
        from torch import nn

        layer = self.target.model.get_submodule(_path(module))
        return isinstance(layer, nn.Linear) and layer.weight.is_floating_point()

    @property
    def branches(self) -> int:
        """Number of layers with a branch beside them."""
        return len(self._branches)

    def set(self, strengths: Sequence[float]) -> None:
        """Use these strengths. What is not merged changes at the cost of a few small tensors."""
        if self.strengths == tuple(strengths):
            return
        before = self.strengths or (0.0,) * len(strengths)
        self.strengths = tuple(strengths)
        changed = {i for i, (a, b) in enumerate(zip(before, strengths, strict=True)) if a != b}
        for module, (branch, paired) in self._branches.items():
            weight = weight_name(module)
            full = None if self._held_base(branch) else self._sum(weight, pairs=False)
            full = None if full is None else full.to(branch.base.dtype)
            branch.set([strengths[i] for i in paired], full)
        for name, pairs in self._direct.items():
            if any(_module(name) in self.parts[i].changes for i in changed):
                self._assign(name, pairs)

    @staticmethod
    def _held_base(branch: Any) -> bool:
        from torch import nn

        return isinstance(branch.base, nn.Linear)

    def _sum(self, name: str, *, pairs: bool) -> Tensor | None:
        """Sum of the parts' deltas times their strengths, float32; None where it is zero."""
        assert self.strengths is not None
        total: Tensor | None = None
        for part, strength in zip(self.parts, self.strengths, strict=True):
            if strength == 0:
                continue
            delta = part.delta(name, self.target.shapes[name], pairs=pairs)
            if delta is not None:
                total = delta * strength if total is None else total.add_(delta, alpha=strength)
        return total

    def _assign(self, name: str, pairs: bool) -> None:
        """Give a tensor of the model the value that the strengths make it, rounded once."""
        import torch
        from torch import nn

        dtype, total = self.target.type_of(name), self._sum(name, pairs=pairs)
        if total is None:
            value = self.target.read(name, dtype)
        else:
            value = total.add_(self.target.read(name, torch.float32)).to(dtype)
        path = layout.to_diffusers(name)
        assert path is not None
        owner, _, leaf = path.rpartition(".")
        holder = self.target.model.get_submodule(owner)
        holder = cast("nn.Module", getattr(holder, "base", holder))
        holder.register_parameter(leaf, nn.Parameter(value, requires_grad=False))


def _path(module: str) -> str:
    """Where a module is in diffusers' model."""
    path = layout.to_diffusers(f"{module}.weight")
    assert path is not None
    return path.removesuffix(".weight")


def _module(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return name if leaf == "modulation" else module
