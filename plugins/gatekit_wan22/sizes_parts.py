"""Sizes of a VAE, read off the shapes of its tensors; facts of the parts that are no model."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from gatekit import VariantFacts, WeightsError

from . import layout_vae
from .header import Header, TensorInfo, read_header
from .sizes import check_types, few
from .sizes_umt5 import read_umt5_sizes, umt5_tensors
from .tokenizer import find_tokenizer

Tensors = dict[str, TensorInfo]


@dataclass(frozen=True)
class VAESizes:
    """Sizes of a VAE of Wan 2.1 or 2.2.

    Attributes:
        base_dim: Channels at full resolution, encoder.
        decoder_base_dim: The same, decoder.
        z_dim: Latent channels.
        dim_mult: Width of each resolution, in base_dim.
        res_blocks: Residual blocks a resolution.
        down_in_time: For each step down in resolution, whether time is halved too.
        residual: Whether each resolution has a shortcut around it (2.2).
        patch: Pixels, each way, that become channels before the first layer (2 in 2.2).
    """

    base_dim: int
    decoder_base_dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    res_blocks: int
    down_in_time: tuple[bool, ...]
    residual: bool = False
    patch: int = 1

    def __str__(self) -> str:
        stride = f"{self.temporal_stride}x{self.spatial_stride}x{self.spatial_stride}"
        kind = "2.2" if self.residual else "2.1"
        return f"Wan VAE ({kind}), z {self.z_dim}, stride {stride}, base {self.base_dim}"

    @property
    def spatial_stride(self) -> int:
        """Pixels a latent pixel, each way."""
        return self.patch * 2 ** (len(self.dim_mult) - 1)

    @property
    def temporal_stride(self) -> int:
        """Frames a latent frame, after the first."""
        return 2 ** sum(self.down_in_time)


def _refuse(header: Header, what: str, names: Iterable[str]) -> WeightsError:
    names = list(names)
    return WeightsError(
        f"not {what}: {len(names)} tensors, such as {few(names)[:200] or 'none'}",
        where=str(header.path),
        remedy=f"give the file of {what}",
    )


def _numbers(pattern: str, names: Iterable[str]) -> list[int]:
    """The layer numbers that occur in ``names``, in order."""
    return sorted({int(m[1]) for name in names if (m := re.match(pattern, name))})


def vae_tensors(header: Header) -> Tensors:
    """A VAE's tensors by diffusers name, from either layout."""
    return layout_vae.official_to_diffusers(header.tensors)


def read_vae_sizes(header: Header) -> VAESizes:
    """Sizes of the VAE in a file.

    Raises:
        WeightsError: The file holds no VAE of Wan 2.1 or 2.2.
    """
    tensors = vae_tensors(header)
    residual = layout_vae.is_grouped(tensors)
    widths = _grouped_widths if residual else _flat_widths
    try:
        found, blocks, in_time = widths(tensors)
        base, channels = tensors["encoder.conv_in.weight"].shape[:2]
        mult = tuple(width // base for width in found)
        sizes = VAESizes(
            base_dim=base,
            decoder_base_dim=tensors["decoder.norm_out.gamma"].shape[0] // mult[0],
            z_dim=tensors["post_quant_conv.weight"].shape[0],
            dim_mult=mult,
            res_blocks=blocks,
            down_in_time=in_time,
            residual=residual,
            patch=max(1, math.isqrt(channels // 3)),
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise _refuse(header, "a Wan VAE", header.tensors) from error
    check_types(header, tensors)
    return sizes


Widths = tuple[list[int], int, tuple[bool, ...]]


def _flat_widths(tensors: Tensors) -> Widths:
    """Width of each resolution, residual blocks in one, and where time is halved; of 2.1."""
    widths: list[int] = []
    in_time: list[bool] = []
    blocks = 0
    for i in _numbers(r"encoder\.down_blocks\.(\d{1,4})\.", tensors):
        block = f"encoder.down_blocks.{i}"
        if f"{block}.resample.1.weight" in tensors:
            in_time.append(f"{block}.time_conv.weight" in tensors)
            continue
        if len(widths) == len(in_time):
            widths.append(tensors[f"{block}.conv2.weight"].shape[0])
        blocks += len(widths) == 1
    return widths, blocks, tuple(in_time)


def _grouped_widths(tensors: Tensors) -> Widths:
    """The same, of 2.2."""
    groups = _numbers(r"encoder\.down_blocks\.(\d{1,4})\.", tensors)
    names = [f"encoder.down_blocks.{i}" for i in groups]
    widths = [tensors[f"{name}.resnets.0.conv2.weight"].shape[0] for name in names]
    blocks = len(_numbers(r"encoder\.down_blocks\.0\.resnets\.(\d{1,4})\.", tensors))
    in_time = tuple(f"{name}.downsampler.time_conv.weight" in tensors for name in names[:-1])
    return widths, blocks, in_time


def component_facts(file: Path) -> dict[str, VariantFacts]:
    """Facts of a text encoder or a VAE by its section; empty for another file.

    A root folder has both.
    """
    found: dict[str, VariantFacts] = {}
    for section, read in (("text_encoder", read_umt5_sizes), ("vae", read_vae_sizes)):
        try:
            header = read_header(file, role=section)
            sizes = read(header)
        except WeightsError:
            continue
        weights = Counter[str]()
        for tensor in header.tensors.values():
            weights[tensor.type] += tensor.count
        facts = VariantFacts(
            storage=weights.most_common(1)[0][0],
            file_bytes=header.file_bytes,
            parameters=header.parameters,
            bits_per_weight=8.0 * header.tensor_bytes / header.parameters,
            resident_bytes=4 * header.parameters,  # fp32, the default precision of both
            types=header.types,
            details={"model": str(sizes)},
        )
        found[section] = _of_text(header, facts) if section == "text_encoder" else facts
    return found


def _of_text(header: Header, facts: VariantFacts) -> VariantFacts:
    """What holds of a text encoder alone: its weights stay in the file, and it has a tokenizer."""
    blocks = (t for name, t in umt5_tensors(header).items() if name.startswith("encoder."))
    place = find_tokenizer(header, None)
    if place is None:
        said = "none"
        warning = "there is no tokenizer in it nor beside it: add 'tokenizer: FILE' to its section"
    else:
        said = "in the file" if place == header.path else str(place)
        warning = ""
    return replace(
        facts,
        resident_bytes=4 * max(t.count for t in blocks),  # one decoded matrix at a time
        details={**facts.details, "tokenizer": said},
        warnings=(warning,) if warning else (),
    )
