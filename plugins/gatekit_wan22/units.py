"""How a model's bytes are cut for placing: what is always there, and the matrices of each block.

From headers alone. Norms, biases and modulation of the blocks are always there: they are a
thousandth of a block, and would cost a read each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from gatekit import Footprint

from .fp8 import SLICE, in_fp8
from .header import TensorInfo
from .model import in_fp32
from .sizes import TransformerSizes, expected_shapes

Form = Literal["stored", "plain", "decoded", "rounded"]
ALIGNED = 256
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
TYPES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
MARGIN = 1.25  # of the estimate of activations
ROUNDING = 10  # bytes a number that is rounded: in float32, multiplied, in e4m3


@dataclass(frozen=True)
class Part:
    """One tensor in a piece of device memory.

    Attributes:
        name: Official name.
        info: Where the file has it.
        shape: In the model.
        form: ``stored`` as the file's blocks, which are decoded at every use; ``plain`` bytes
            that are the weights; ``decoded`` on the device as they arrive; or ``rounded`` there
            to e4m3, a float32 scale for each row behind them.
        dtype: Type of the weights in the model, such as ``bf16``.
        offset: First byte in its piece of memory.
        nbytes: Bytes there.
    """

    name: str
    info: TensorInfo
    shape: tuple[int, ...]
    form: Form
    dtype: str
    offset: int
    nbytes: int

    @property
    def through_staging(self) -> bool:
        """Whether the file's bytes are not what is kept."""
        return self.form == "decoded" or (self.form == "rounded" and self.info.type != "F8_E4M3")


@dataclass(frozen=True)
class Units:
    """A model's tensors: ``fixed`` ones, each in memory of its own, and those of each block."""

    fixed: tuple[Part, ...]
    blocks: tuple[tuple[Part, ...], ...]

    @property
    def block_bytes(self) -> tuple[int, ...]:
        """Bytes of each block."""
        return tuple(ends(parts) for parts in self.blocks)

    @property
    def fixed_bytes(self) -> int:
        """Bytes of what is always there."""
        return sum(aligned(part.nbytes) for part in self.fixed)

    @property
    def staging(self) -> int:
        """Bytes of the largest tensor that is decoded or rounded as it arrives."""
        every = (part for parts in (self.fixed, *self.blocks) for part in parts)
        return max((p.info.nbytes for p in every if p.through_staging), default=0)

    @property
    def rounding(self) -> int:
        """Bytes that rounding the widest matrix takes, some rows at a time."""
        every = (part for parts in self.blocks for part in parts if part.form == "rounded")
        return max((ROUNDING * SLICE * part.shape[1] for part in every), default=0)

    @property
    def scratch(self) -> int:
        """Bytes of the largest matrix that is decoded when it is used."""
        every = (part for parts in (self.fixed, *self.blocks) for part in parts)
        stored = (p for p in every if p.form == "stored")
        return max((p.info.count * BYTES[p.dtype] for p in stored), default=0)


def aligned(count: int) -> int:
    """The next place where a tensor may begin."""
    return -(-count // ALIGNED) * ALIGNED


def ends(parts: tuple[Part, ...]) -> int:
    """Bytes that parts one after another take."""
    return aligned(parts[-1].offset + parts[-1].nbytes) if parts else 0


def cut(
    tensors: Mapping[str, TensorInfo], sizes: TransformerSizes, compute: str, *, kept: bool
) -> Units:
    """Cut a model.

    Args:
        tensors: Of its file, by official name.
        sizes: Of the model.
        compute: ``fp32``, ``bf16``, ``fp16`` or ``fp8``.
        kept: Whether quantised matrices are held decoded.
    """
    wide = wide_type(compute)
    fixed: list[Part] = []
    blocks: list[list[Part]] = [[] for _ in range(sizes.layers)]
    for name, shape in expected_shapes(sizes).items():
        info = tensors[name]
        dtype = "fp32" if in_fp32(name) else wide
        form: Form = "decoded"
        nbytes = info.count * BYTES[dtype]
        matrix = len(shape) == 2 and not in_fp32(name)
        if compute == "fp8" and in_fp8(name):
            form, nbytes = "rounded", aligned(prod(shape)) + shape[0] * BYTES["fp32"]
        elif info.quantised and not kept and matrix:
            form, nbytes = "stored", info.nbytes
        elif info.type == TYPES[dtype]:
            form = "plain"
        of_block = matrix and name.startswith("blocks.")
        parts = blocks[int(name.split(".")[1])] if of_block else fixed
        at = ends(tuple(parts)) if of_block else 0
        parts.append(Part(name, info, shape, form, dtype, at, nbytes))
    return Units(tuple(fixed), tuple(map(tuple, blocks)))


def footprint(
    units: Units,
    sizes: TransformerSizes,
    compute: str,
    latent: tuple[int, int, int, int],
    more: int,
    *,
    at_once: bool = False,
) -> Footprint:
    """What a model takes, ``more`` bytes of LoRAs included; for ``at_once`` see ``Footprint``."""
    _, frames, height, width = latent
    tokens = frames * (height // 2) * (width // 2)
    working = activations(tokens, sizes) * BYTES[wide_type(compute)] // 2 + units.scratch
    fixed = units.fixed_bytes + units.staging + units.rounding + more
    return Footprint(fixed, units.block_bytes, working, at_once)


def wide_type(compute: str) -> str:
    """What is not multiplied in fp8 is held in."""
    return "bf16" if compute == "fp8" else compute


def activations(tokens: int, sizes: TransformerSizes) -> int:
    """Peak of what a block computes, in 16 bits: some 10 x width + 4 x ffn bytes a token.

    diffusers' own peak less its weights is 3.3 GiB at 32,760 tokens of A14B.
    """
    return int(MARGIN * tokens * (10 * sizes.dim + 4 * sizes.ffn_dim))
