"""Weight files of named sizes: with every byte of their headers, and of weights all or none.

Without weights a file is sparse and takes next to no space: what is loaded from it is zeros,
which ``weights.fill`` replaces. With weights they are random, the same for all tensors of a shape.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit_bench.blocks import is_matrix, mix, random_blocks, stored_bytes
from gatekit_wan22.sizes import TransformerSizes, expected_shapes

if TYPE_CHECKING:
    from torch import Tensor

ALIGNED = 32
Fill = Callable[[str, tuple[int, ...]], "Tensor | None"]  # type, shape -> bytes


def no_weights(type_name: str, shape: tuple[int, ...]) -> Tensor | None:
    """A hole in the file."""
    return None


class Random:
    """Random weights: normal, of standard deviation 1 over the root of the fan-in."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._made: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def __call__(self, type_name: str, shape: tuple[int, ...]) -> Tensor:
        """Bytes on the CPU, the same for the same arguments."""
        import torch

        key = (type_name, shape)
        if key not in self._made:
            count, std = prod(shape), prod(shape[1:]) ** -0.5
            if type_name == "BF16":
                generator = torch.Generator(self.device).manual_seed(len(self._made))
                w = torch.randn(count, generator=generator, device=self.device)
                made = w.mul_(std).bfloat16().view(torch.uint8)
            else:
                made = random_blocks(type_name, count, std, self.device, len(self._made))
            self._made[key] = made.cpu()
        return self._made[key]


def kinds_of(sizes: TransformerSizes, variant: str) -> dict[str, str]:
    """The type of each tensor of a GGUF whose ten matrices a block are of ``variant``."""
    return {n: mix(variant, n) if is_matrix(n) else "BF16" for n in expected_shapes(sizes)}


def weights_of(sizes: TransformerSizes, variant: str) -> int:
    """Bytes of all tensors of ``write_gguf``'s file."""
    shapes = expected_shapes(sizes)
    return sum(_bytes(kind, shapes[name]) for name, kind in kinds_of(sizes, variant).items())


def write_gguf(path: Path, sizes: TransformerSizes, variant: str, fill: Fill = no_weights) -> Path:
    """A GGUF whose ten matrices a block are of ``variant``, all else BF16."""
    from gguf.constants import GGMLQuantizationType

    shapes, kinds = expected_shapes(sizes), kinds_of(sizes, variant)
    entries, offset = b"", 0
    places: list[tuple[int, str, tuple[int, ...]]] = []
    for name, shape in shapes.items():
        text, kind = name.encode(), kinds[name]
        entries += struct.pack("<Q", len(text)) + text + struct.pack("<I", len(shape))
        entries += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        entries += struct.pack("<IQ", int(GGMLQuantizationType[kind]), offset)
        places.append((offset, kind, shape))
        offset += -(-_bytes(kind, shape) // ALIGNED) * ALIGNED
    key, value = b"general.architecture", b"wan"
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), 1)
    head += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    content = head + entries
    content += b"\0" * (-len(content) % ALIGNED)
    return _write(path, content, offset, places, fill)


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    fill: Fill = no_weights,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A safetensors file in bf16."""
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    places: list[tuple[int, str, tuple[int, ...]]] = []
    offset = 0
    for name, shape in shapes.items():
        end = offset + _bytes("BF16", shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        places.append((offset, "BF16", shape))
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return _write(path, struct.pack("<Q", len(text)) + text, offset, places, fill)


def _bytes(kind: str, shape: tuple[int, ...]) -> int:
    return 2 * prod(shape) if kind == "BF16" else stored_bytes(kind, prod(shape))


def _write(
    path: Path,
    head: bytes,
    size: int,
    places: list[tuple[int, str, tuple[int, ...]]],
    fill: Fill,
) -> Path:
    with path.open("wb") as stream:
        stream.write(head)
        for offset, kind, shape in places:
            content = fill(kind, shape)
            if content is not None:
                stream.seek(len(head) + offset)
                stream.write(content.numpy().data)
        stream.truncate(len(head) + size)
    return path
