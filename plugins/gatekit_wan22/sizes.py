"""The sizes of a Wan transformer, read off the shapes of its tensors and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

from gatekit import WeightsError

from . import layout_transformer as layout
from .header import Header, TensorInfo, printable

HEAD_DIM = 128
FREQ_DIM = 256
PATCH = (1, 2, 2)
EPS = 1e-6
Shape = tuple[int, ...]
MARKS = ("blocks.0.self_attn.norm_q.weight", "text_embedding.2.weight", "head.modulation")
WHAT_FITS = "give the diffusion model of Wan 2.1 or 2.2"


@dataclass(frozen=True)
class TransformerSizes:
    """What decides the shape of every tensor."""

    dim: int
    ffn_dim: int
    layers: int
    in_channels: int
    out_channels: int
    text_dim: int

    @property
    def heads(self) -> int:
        """Attention heads, of 128 channels each."""
        return self.dim // HEAD_DIM

    @property
    def image_channels(self) -> int:
        """Channels that a first frame fills: mask and condition. 0 for text-to-video."""
        return self.in_channels - self.out_channels

    @property
    def takes_first_frame(self) -> bool:
        """Whether it was trained on clean first frames in its state: TI2V-5B, told by z 48."""
        return self.in_channels == self.out_channels == 48

    @property
    def published(self) -> str | None:
        """What the model of these sizes is known as; None for a size nobody published."""
        return PUBLISHED.get(self)

    def __str__(self) -> str:
        return (
            f"wan {self.layers} layers x {self.dim} ({self.heads} heads, ffn {self.ffn_dim}), "
            f"{self.in_channels} channels in, {self.out_channels} out"
        )


PUBLISHED = {
    TransformerSizes(5120, 13824, 40, 16, 16, 4096): "Wan 2.2 T2V A14B, one expert, or 2.1 T2V 14B",
    TransformerSizes(5120, 13824, 40, 36, 16, 4096): "Wan 2.2 I2V A14B, one expert",
    TransformerSizes(3072, 14336, 30, 48, 48, 4096): "Wan 2.2 TI2V-5B",
    TransformerSizes(1536, 8960, 30, 16, 16, 4096): "Wan 2.1 T2V 1.3B",
}
# Tensors that models made from Wan's have and Wan's own do not.
RELATIVES = {
    "img_emb.": "a Wan 2.1 image-to-video model: its cross-attention also reads CLIP's embedding "
    "of the image, which no part of gatekit makes",
    "vace_": "a Wan VACE model, with blocks for control videos",
    "casual_audio_encoder.": "a Wan S2V model, driven by speech",
    "face_adapter.": "a Wan Animate model, driven by a face",
    "control_adapter.": "a Wan Fun model with camera control",
    "ref_conv.": "a Wan Fun control model",
}


def expected_shapes(s: TransformerSizes) -> dict[str, Shape]:
    """Official name -> shape of every tensor a model of these sizes has."""
    dim = s.dim
    shapes: dict[str, Shape] = {"head.modulation": (1, 2, dim)}

    def linear(name: str, into: int, out: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    shapes["patch_embedding.weight"] = (dim, s.in_channels, *PATCH)
    shapes["patch_embedding.bias"] = (dim,)
    linear("text_embedding.0", s.text_dim, dim)
    linear("text_embedding.2", dim, dim)
    linear("time_embedding.0", FREQ_DIM, dim)
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", dim, 6 * dim)
    linear("head.head", dim, s.out_channels * 4)
    for i in range(s.layers):
        block = f"blocks.{i}"
        for attention in ("self_attn", "cross_attn"):
            for matrix in "qkvo":
                linear(f"{block}.{attention}.{matrix}", dim, dim)
            for norm in ("norm_q", "norm_k"):
                shapes[f"{block}.{attention}.{norm}.weight"] = (dim,)
        shapes[f"{block}.norm3.weight"] = shapes[f"{block}.norm3.bias"] = (dim,)
        linear(f"{block}.ffn.0", dim, s.ffn_dim)
        linear(f"{block}.ffn.2", s.ffn_dim, dim)
        shapes[f"{block}.modulation"] = (1, 6, dim)
    return shapes


def official_tensors(header: Header) -> dict[str, TensorInfo]:
    """The file's tensors by official name, whichever of the known layouts it has."""
    stripped = {layout.strip_prefix(name): info for name, info in header.tensors.items()}
    if any(name.startswith("condition_embedder.") for name in stripped):
        return layout.diffusers_to_official(stripped)
    return stripped


def few(names: Iterable[str]) -> str:
    """The first three names and how many more."""
    names = sorted(map(printable, names))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _foreign(header: Header, tensors: Mapping[str, TensorInfo]) -> WeightsError:
    """The error for a file that is no Wan transformer, naming what it seems to be."""
    architecture = header.metadata.get("general.architecture")
    seems = "not a Wan diffusion model"
    if any(n.startswith(("blk.", "enc.blk.", "model.layers.")) for n in tensors):
        seems = "a language model, not a Wan diffusion model"
    elif any(".attn.q." in n or "SelfAttention" in n for n in tensors):
        seems = "a text encoder, not a Wan diffusion model"
    elif any(n.startswith(("decoder.", "encoder.")) for n in tensors):
        seems = "a VAE, not a Wan diffusion model"
    elif any("lora_" in n for n in tensors):
        seems = "a LoRA, not a Wan diffusion model"
    elif any(n.startswith("double_blocks.") for n in tensors):
        seems = "a Flux or Hunyuan model, not a Wan diffusion model"
    if isinstance(architecture, str):
        seems += f" (architecture '{printable(architecture)[:40]}')"
    return WeightsError(
        f"{seems}: {len(tensors)} tensors, such as {few(tensors)[:200] or 'none'}",
        where=str(header.path),
        remedy=WHAT_FITS,
    )


def patch_channels(info: TensorInfo, dim: int) -> int:
    """Input channels of the patch embedding, whether 5-D or folded to 4-D, 2-D or 1-D."""
    return info.count // (dim * 4) if dim and info.count % (dim * 4) == 0 else 0


def read_sizes(header: Header) -> TransformerSizes:
    """Sizes of the transformer in a file, every tensor accounted for.

    Raises:
        WeightsError: Another model, or tensors that are missing, unexpected or misshapen.
    """
    where, tensors = str(header.path), official_tensors(header)
    if not any(mark in tensors for mark in MARKS):
        raise _foreign(header, tensors)
    for start, relative in RELATIVES.items():
        if any(n.startswith(start) for n in tensors):
            raise WeightsError(
                relative,
                where=where,
                remedy="use Wan 2.2 (T2V or I2V A14B, TI2V-5B) or Wan 2.1 T2V",
            )

    def tensor(name: str) -> TensorInfo:
        if name not in tensors:
            raise WeightsError(
                f"a Wan model without '{name}'", where=where, remedy="get a complete file"
            )
        return tensors[name]

    def shape(name: str, rank: int) -> Shape:
        found = tensor(name).shape
        if len(found) != rank:
            raise WeightsError(
                f"'{name}' has {len(found)} dimensions, not {rank}",
                where=where,
                value=list(found),
                remedy="the file mixes models, or is damaged",
            )
        return found

    dim, text_dim = shape("text_embedding.0.weight", 2)
    found = (re.match(r"blocks\.(\d{1,6})\.", name) for name in tensors)
    numbers = {int(match[1]) for match in found if match} or {-1}
    sizes = TransformerSizes(
        dim=dim,
        ffn_dim=shape("blocks.0.ffn.0.weight", 2)[0],
        layers=max(numbers) + 1,
        in_channels=patch_channels(tensor("patch_embedding.weight"), dim),
        out_channels=shape("head.head.bias", 1)[0] // 4,
        text_dim=text_dim,
    )
    if dim % HEAD_DIM or not sizes.in_channels or sizes.image_channels < 0:
        raise WeightsError(
            f"the widths fit no Wan model: dim {dim}, patch embedding "
            f"{list(tensors['patch_embedding.weight'].shape)}, {sizes.out_channels} channels out",
            where=where,
            remedy="dim must be a multiple of 128 and the patch (1, 2, 2)",
        )
    if len(numbers) != sizes.layers:
        first = next(i for i in range(sizes.layers) if i not in numbers)
        raise WeightsError(
            f"block {first} of {sizes.layers} is missing", where=where, remedy="get it whole"
        )
    _compare(header, tensors, sizes)
    return sizes


def _compare(header: Header, found: Mapping[str, TensorInfo], sizes: TransformerSizes) -> None:
    expected = expected_shapes(sizes)
    patch = "patch_embedding.weight"  # converters fold it; only its count must be right
    if patch in found and found[patch].count == prod(expected[patch]):
        found = {**found, patch: replace(found[patch], shape=expected[patch])}
    compare_shapes(header, found, expected)


def check_types(header: Header, tensors: Mapping[str, TensorInfo]) -> None:
    """Raise WeightsError for a tensor whose type cannot be read as weights."""
    from .dequantise import readable

    for tensor in tensors.values():
        if not readable(tensor.type):
            raise WeightsError(
                f"'{printable(tensor.name)}' is {printable(tensor.type)}, which cannot be decoded",
                where=str(header.path),
                remedy="give a file of fp32, fp16, bf16, fp8, K, legacy or IQ types",
            )


def compare_shapes(
    header: Header, found: Mapping[str, TensorInfo], expected: Mapping[str, Shape]
) -> None:
    """Raise WeightsError unless the names and shapes are those expected."""
    where = str(header.path)
    if missing := expected.keys() - found.keys():
        raise WeightsError(
            f"{len(missing)} tensors are missing: {few(missing)}",
            where=where,
            remedy="get a complete file",
        )
    if extra := found.keys() - expected.keys():
        raise WeightsError(
            f"{len(extra)} tensors are unexpected: {few(extra)}",
            where=where,
            remedy="the file is of another model, or mixes several",
        )
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise WeightsError(
                f"'{name}' has shape {list(found[name].shape)}, expected {list(shape)}",
                where=where,
                remedy="the file mixes models, or is damaged",
            )
