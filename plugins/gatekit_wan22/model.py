"""diffusers' Wan transformer, built from sizes on no device and filled from a mapped file.

What stays in float32 whatever the compute type (as in Wan's own code): modulation, time
embedding and its projection, and the norms; the time's sinusoid is float64, the rotary
angles too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from . import layout_transformer as layout
from .feed_forward import use_fp8_feed_forward
from .fp8 import in_fp8, new_fp8_linear, stored_in_fp8
from .header import TensorInfo
from .memory import free_bytes
from .self_attention import use_own_processor
from .sizes import EPS, FREQ_DIM, HEAD_DIM, PATCH, TransformerSizes, expected_shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .mapped import MappedFile

MODEST_SHARE = 0.25  # of free memory: up to this, decoded matrices are kept
_FP32 = ("modulation", "time_embedding", "time_projection", "norm3")


def in_fp32(name: str) -> bool:
    """Whether a tensor, by official name, is held and used in float32."""
    return any(part in _FP32 for part in name.split("."))


def keep_decoded(
    keep: str, tensors: dict[str, TensorInfo], dtype: torch.dtype, device: str
) -> bool:
    """Whether quantised matrices are decoded once, at load, instead of at every use."""
    if keep != "auto":
        return keep == "always"
    if device != "cpu":  # what is resident is planned by what is stored
        return False
    decoded = sum(t.count for t in tensors.values()) * dtype.itemsize
    return decoded <= MODEST_SHARE * free_bytes(device)


def empty_transformer(sizes: TransformerSizes) -> Any:
    """``WanTransformer3DModel`` whose parameters have shapes but no memory."""
    import torch
    from diffusers.models.transformers.transformer_wan import (
        WanRotaryPosEmbed,
        WanTransformer3DModel,
    )

    with torch.device("meta"):
        model = WanTransformer3DModel(
            patch_size=PATCH,
            num_attention_heads=sizes.heads,
            attention_head_dim=HEAD_DIM,
            in_channels=sizes.in_channels,
            out_channels=sizes.out_channels,
            text_dim=sizes.text_dim,
            freq_dim=FREQ_DIM,
            ffn_dim=sizes.ffn_dim,
            num_layers=sizes.layers,
            cross_attn_norm=True,
            eps=EPS,
            rope_max_seq_len=1024,
        )
    model.rope = WanRotaryPosEmbed(HEAD_DIM, PATCH, 1024)
    use_own_processor(model.blocks)
    embedder = model.condition_embedder
    embedder.forward = partial(embed_time_and_text, embedder)
    return model.eval()


def embed_time_and_text(
    embedder: Any,
    timestep: Tensor,
    encoder_hidden_states: Tensor,
    encoder_hidden_states_image: Tensor | None = None,
    timestep_seq_len: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The condition embedder's forward with the time in float32, its sinusoid in float64.

    Stands in for diffusers' own, which rounds the time embedding to the compute type. Where
    each token has its own time, what few times there are, are embedded once each; such times
    come on the CPU, so that looking for them does not wait for the device.
    """
    import torch

    half = FREQ_DIM // 2
    device, where = encoder_hidden_states.device, None
    if timestep_seq_len is not None:
        timestep, where = timestep.unique(return_inverse=True)
    steps = torch.arange(half, dtype=torch.float64, device=device)
    angles = torch.outer(timestep.to(device).double(), 10000.0 ** (-steps / half))
    wave = torch.cat([angles.cos(), angles.sin()], dim=1).float()
    time = embedder.time_embedder(wave)
    modulation = embedder.time_proj(embedder.act_fn(time))
    if where is not None:
        where = where.to(device).view(-1, timestep_seq_len)
        time, modulation = time[where], modulation[where]
    return time, modulation, embedder.text_embedder(encoder_hidden_states), None


def load_transformer(
    mapped: MappedFile,
    tensors: dict[str, TensorInfo],
    sizes: TransformerSizes,
    *,
    dtype: torch.dtype,
    device: str,
    keep: str = "auto",
    fp8: bool = False,
) -> Any:
    """Build the model and fill it, tensor by tensor, so that nothing is held twice.

    Args:
        mapped: The file.
        tensors: Its tensors by official name.
        sizes: What ``read_sizes`` found.
        dtype: Compute type.
        device: Where the weights go.
        keep: ``auto``, ``always`` or ``never`` hold quantised matrices decoded.
        fp8: Hold the matrices of the blocks in fp8 and multiply so, whatever ``keep`` says.
    """
    model = empty_transformer(sizes)
    model.rope.to(device)
    kept = keep_decoded(keep, tensors, dtype, device)
    shapes = expected_shapes(sizes)
    with mapped.coming([tensors[name] for name in shapes], device):
        _fill(model, mapped, tensors, shapes, dtype, device, kept, fp8)
    if fp8:
        use_fp8_feed_forward(model.blocks)
    return model


def _fill(
    model: nn.Module,
    mapped: MappedFile,
    tensors: dict[str, TensorInfo],
    shapes: dict[str, tuple[int, ...]],
    dtype: torch.dtype,
    device: str,
    kept: bool,
    fp8: bool,
) -> None:
    import torch

    biases: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        info, target = tensors[name], layout.to_diffusers(name)
        assert target is not None
        if fp8 and in_fp8(name):
            bias_name = name.removesuffix("weight") + "bias"
            biases[bias_name] = mapped.read(tensors[bias_name], dtype, device)
            q, scale = stored_in_fp8(mapped, info, device)
            _replace(model, target, new_fp8_linear(q, scale, biases[bias_name]))
            continue
        as_blocks = info.quantised and not kept and len(shape) == 2 and not in_fp32(name)
        if as_blocks:
            bias_name = name.removesuffix("weight") + "bias"
            biases[bias_name] = mapped.read(tensors[bias_name], dtype, device)
            _replace_linear(model, target, mapped, info, biases[bias_name], dtype, device)
        elif name not in biases:
            wanted = torch.float32 if in_fp32(name) else dtype
            _assign(model, target, mapped.read(info, wanted, device, shape))


def _assign(model: nn.Module, target: str, value: Tensor) -> None:
    from torch import nn

    owner, _, leaf = target.rpartition(".")
    parameter = nn.Parameter(value, requires_grad=False)
    model.get_submodule(owner).register_parameter(leaf, parameter)


def _replace_linear(
    model: nn.Module,
    target: str,
    mapped: MappedFile,
    info: TensorInfo,
    bias: Tensor,
    dtype: torch.dtype,
    device: str,
) -> None:
    from .stored_linear import new_stored_linear

    stored, scale = mapped.raw(info, device), mapped.scale(info, device)
    _replace(model, target, new_stored_linear(stored, info.type, info.shape, bias, dtype, scale))


def _replace(model: nn.Module, target: str, new: nn.Module) -> None:
    """Put a layer in the place of the one whose weight is ``target``."""
    owner, _, leaf = target.removesuffix(".weight").rpartition(".")
    setattr(model.get_submodule(owner), leaf, new)  # an index into a ModuleList is a name too
