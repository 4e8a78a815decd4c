"""Random GGUF blocks whose weights are of a wanted size: any bits, but sensible scales."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from gatekit import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the halves are that scale a block.

    Attributes:
        scale: Byte of d.
        offset: Byte of what is subtracted or added, if there is such.
        ratio: That over d which makes the mean zero.
    """

    scale: int
    offset: int | None = None
    ratio: float = 0.0


LAYOUTS = {
    "Q2_K": Layout(80, 82, 1.5), "Q3_K": Layout(108), "Q4_K": Layout(0, 2, 7.5),
    "Q5_K": Layout(0, 2, 15.5), "Q6_K": Layout(208), "Q8_0": Layout(0),
    "Q4_0": Layout(0), "Q4_1": Layout(0, 2, -7.5), "Q5_0": Layout(0), "Q5_1": Layout(0, 2, -15.5),
    "IQ4_NL": Layout(0), "IQ4_XS": Layout(0),
}  # fmt: skip


def mix(variant: str, name: str) -> str:
    """Type of a matrix in a file of a variant: Q2_K files have the values of attention in Q3_K."""
    return "Q3_K" if variant == "Q2_K" and ".v." in name else variant


def is_matrix(name: str) -> bool:
    """Whether files quantise a tensor, by official name: the ten matrices of each block."""
    return name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name


def stored_bytes(type_name: str, count: int) -> int:
    """Bytes of so many weights."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    weights, size = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    return count // weights * size


def check_type(name: str) -> None:
    """Raise InputError for a type that has no random blocks."""
    if name not in LAYOUTS:
        raise InputError(
            "no such variant",
            where="--variants",
            value=name,
            remedy=f"one of {', '.join(LAYOUTS)}, fp8",
        )


def random_blocks(type_name: str, count: int, std: float, device: str, seed: int) -> Tensor:
    """Blocks of ``count`` weights with mean near 0 and standard deviation near ``std``, uint8."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    nbytes = stored_bytes(type_name, count)
    data = torch.randint(0, 256, (nbytes,), dtype=torch.uint8, device=device, generator=generator)
    blocks = data.view(-1, _block_bytes(type_name))
    _scaled(blocks, type_name, std / _spread(type_name))
    return data


def _block_bytes(type_name: str) -> int:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[type_name]][1]


def _scaled(blocks: Tensor, type_name: str, d: float) -> None:
    """Write d, and what goes with it, into blocks ``[n, bytes]``."""
    import torch

    layout = LAYOUTS[type_name]

    def put(at: int, value: float) -> None:
        half = torch.tensor([value], dtype=torch.float16).view(torch.uint8)
        blocks[:, at : at + 2] = half.to(blocks.device)

    put(layout.scale, d)
    if layout.offset is not None:
        put(layout.offset, d * layout.ratio)


@cache
def _spread(type_name: str) -> float:
    """Standard deviation of random blocks with d = 2^-10, over that."""
    import torch

    from gatekit_wan22.dequantise import dequantise

    size, d = _block_bytes(type_name), 2.0**-10
    generator = torch.Generator().manual_seed(0)
    data = torch.randint(0, 256, (512 * size,), dtype=torch.uint8, generator=generator)
    _scaled(data.view(-1, size), type_name, d)
    return float(dequantise(data, type_name).std()) / d
