"""Whether a LoRA fits a model, and which model it is for, from shapes alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

from gatekit import WeightsError

from ..header import TensorInfo
from ..sizes import Shape, TransformerSizes, expected_shapes
from .file import Change, LoraFile

KNOWN = {
    (5120, 40): "Wan 2.1 14B and Wan 2.2 A14B",
    (3072, 30): "Wan 2.2 TI2V-5B",
    (1536, 30): "Wan 2.1 1.3B",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Meant:
    """What a LoRA's shapes tell of the model it is for; 0 where they tell nothing.

    Attributes:
        dim: Width.
        ffn_dim: Width inside the feed-forward layers.
        layers: Blocks, at least: 1 more than the highest number.
        in_channels: Input channels, from the patch embedding.
    """

    dim: int = 0
    ffn_dim: int = 0
    layers: int = 0
    in_channels: int = 0

    def __str__(self) -> str:
        text = f"{self.layers} layers x {self.dim or 'unknown width'}"
        extra = [f"ffn {self.ffn_dim}"] if self.ffn_dim else []
        extra += [f"{self.in_channels} channels in"] if self.in_channels else []
        known = KNOWN.get((self.dim, self.layers))
        return (f"{known}, " if known else "") + ", ".join([text, *extra])


def meant(lora: LoraFile) -> Meant:
    """The model that a LoRA is for."""
    dims: list[int] = []
    ffn: list[int] = []
    numbers: list[int] = []
    channels = 0
    for change in lora.changes.values():
        if change.module == "patch_embedding":
            channels = _ends(change)[0] // 4
        found = _BLOCK.fullmatch(change.module)
        if found is None:
            continue
        numbers.append(int(found[1]))
        into, out = _ends(change)
        inner = found[2]
        if inner == "ffn.0":
            dims, ffn = [*dims, into], [*ffn, out]
        elif inner == "ffn.2":
            dims, ffn = [*dims, out], [*ffn, into]
        elif "attn." in inner:
            dims.append(out)
    layers = max(numbers, default=-1) + 1
    return Meant(max(dims, default=0), max(ffn, default=0), layers, channels)


def _ends(change: Change) -> tuple[int, int]:
    """(in, out) of a module, as far as the entries tell; 0 for what they do not."""
    if change.down is not None and change.up is not None:
        return prod(change.down.shape[1:]), change.up.shape[0]
    if change.diff is not None and len(change.diff.shape) > 1:
        return prod(change.diff.shape[1:]), change.diff.shape[0]
    bias = change.diff_b or change.diff
    return 0, bias.shape[-1] if bias is not None and bias.shape else 0


def check_fit(lora: LoraFile, sizes: TransformerSizes, *, skip: bool = False) -> dict[str, Change]:
    """The changes that apply to a model.

    Args:
        lora: The file.
        sizes: The model's.
        skip: Leave out what names no tensor of the model, instead of raising.

    Raises:
        WeightsError: A LoRA for another model, keys that match nothing, wrong shapes.
    """
    where, for_ = str(lora.path), meant(lora)
    shapes = expected_shapes(sizes)
    pairs = (
        (for_.dim, sizes.dim),
        (for_.ffn_dim, sizes.ffn_dim),
        (for_.in_channels, sizes.in_channels),
    )
    if any(a and a != b for a, b in pairs) or for_.layers > sizes.layers:
        raise WeightsError(
            f"a LoRA for another model: {for_}; this one is {sizes}",
            where=where,
            remedy="use it with the model it was made for, or get the LoRA for this one",
        )
    lost = [
        *lora.unmatched,
        *(t.name for c in lora.changes.values() for t in _without_target(c, shapes)),
    ]
    if lost and not skip:
        raise WeightsError(
            f"{len(lost)} keys match nothing in the model: {', '.join(sorted(lost)[:8])}"
            + (f" and {len(lost) - 8} more" if len(lost) > 8 else ""),
            where=where,
            remedy="use the LoRA for this model, or write 'unmatched: skip' beside its file",
        )
    kept = {m: c for m, c in lora.changes.items() if not list(_without_target(c, shapes))}
    for change in kept.values():
        _check_shapes(change, shapes, where)
    return kept


def targets(change: Change) -> dict[str, TensorInfo]:
    """Tensor of the model -> the entry that changes it, the pair's being ``up``."""
    weight, bias = change.up or change.diff, change.diff_b or change.up_bias
    found = {} if weight is None else {weight_name(change.module): weight}
    return found if bias is None else found | {f"{change.module}.bias": bias}


def weight_name(module: str) -> str:
    """Official name of a module's weight; a modulation is a tensor of its own."""
    return module if module.endswith("modulation") else f"{module}.weight"


def _without_target(change: Change, shapes: dict[str, Shape]) -> list[TensorInfo]:
    return [info for name, info in targets(change).items() if name not in shapes]


def _check_shapes(change: Change, shapes: dict[str, Shape], where: str) -> None:
    for name in targets(change):
        shape = shapes[name]
        for info in (change.diff_b, change.up_bias) if name.endswith(".bias") else (change.diff,):
            if info is not None and _plain(info.shape) != _plain(shape):
                raise _misshapen(info, list(info.shape), name, list(shape), where)
    if change.down is None or change.up is None:
        return
    weight = f"{change.module}.weight"
    shape = shapes.get(weight, ())
    found = (change.up.shape[0], prod(change.down.shape[1:]))
    if len(shape) < 2 or found != (shape[0], prod(shape[1:])) or prod(change.up.shape[2:]) != 1:
        raise _misshapen(change.up, list(found), weight, list(shape), where)


def _plain(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def _misshapen(
    info: TensorInfo, found: list[int], name: str, shape: list[int], where: str
) -> WeightsError:
    return WeightsError(
        f"'{info.name}' changes {found[:8]} weights, but '{name}' is {shape}",
        where=where,
        remedy="use the LoRA for this model",
    )
