"""diffusers' own Wan transformer, beside gatekit's and with its weights."""

from __future__ import annotations

from typing import Any

from gatekit_wan22.sizes import EPS, FREQ_DIM, HEAD_DIM, PATCH, TransformerSizes


def diffusers_config(sizes: TransformerSizes) -> dict[str, Any]:
    """What ``WanTransformer3DModel`` is made from."""
    return {
        "patch_size": PATCH,
        "num_attention_heads": sizes.heads,
        "attention_head_dim": HEAD_DIM,
        "in_channels": sizes.in_channels,
        "out_channels": sizes.out_channels,
        "text_dim": sizes.text_dim,
        "freq_dim": FREQ_DIM,
        "ffn_dim": sizes.ffn_dim,
        "num_layers": sizes.layers,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": EPS,
        "rope_max_seq_len": 1024,
    }


def diffusers_model(ours: Any, sizes: TransformerSizes, device: str) -> Any:
    """The model as ``from_pretrained`` would give it in ours' arithmetic, sharing ours' memory.

    What diffusers keeps in float32 is in float32 in ours too; the projection of the time, which
    it does not keep so, is converted.
    """
    import torch
    from diffusers.models.transformers.transformer_wan import (
        WanRotaryPosEmbed,
        WanTransformer3DModel,
    )

    with torch.device("meta"):
        peer: Any = WanTransformer3DModel(**diffusers_config(sizes))
    peer.load_state_dict(dict(ours.named_parameters()), assign=True)
    peer.rope = WanRotaryPosEmbed(HEAD_DIM, PATCH, 1024).to(device)
    dtype = ours.patch_embedding.weight.dtype
    projection = ours.condition_embedder.time_proj
    linear = torch.nn.Linear(*reversed(projection.weight.shape), device=device, dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(projection.weight)
        linear.bias.copy_(projection.bias)
    peer.condition_embedder.time_proj = linear
    return peer.eval().requires_grad_(False)
