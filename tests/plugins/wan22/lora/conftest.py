"""LoRA files for the tiny model, in every layout."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

MATRICES = [
    f"blocks.{i}.{m}"
    for i in range(2)
    for m in (
        *(f"{a}.{x}" for a in ("self_attn", "cross_attn") for x in "qkvo"),
        *("ffn.0", "ffn.2"),
    )
]
OUTSIDE = [
    *("text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2"),
    *("time_projection.1", "head.head", "patch_embedding"),
]


def kohya(module):
    return "lora_unet_" + module.replace(".", "_"), "lora_down.weight", "lora_up.weight"


def wan_fun(module):
    return "lora_unet__" + module.replace(".", "_"), "lora_down.weight", "lora_up.weight"


def comfy(module):
    return f"diffusion_model.{module}", "lora_down.weight", "lora_up.weight"


def official(module):
    return f"diffusion_model.{module}", "lora_A.weight", "lora_B.weight"


def bare(module):
    return module, "lora_A.default.weight", "lora_B.default.weight"


def theirs(module):
    from gatekit_wan22 import layout_transformer as layout

    return layout.to_diffusers(f"{module}.weight").removesuffix(".weight")


def diffusers(module):
    return f"transformer.{theirs(module)}", "lora_A.weight", "lora_B.weight"


def peft(module):
    return f"base_model.model.{theirs(module)}", "lora_A.weight", "lora_B.weight"


def diffusers_flat(module):
    return (
        "lora_transformer_" + theirs(module).replace(".", "_"),
        "lora_down.weight",
        "lora_up.weight",
    )


LAYOUTS = {
    f.__name__: f for f in (kohya, wan_fun, comfy, official, bare, diffusers, peft, diffusers_flat)
}


def lora_pairs(state, modules=(*MATRICES, *OUTSIDE), rank=4, seed=0, size=0.3):
    """Module -> (down, up) whose product is a good part of the weight, in float32."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for module in modules:
        weight = state[f"{module}.weight"]
        down = torch.randn(rank, *weight.shape[1:], generator=generator) / rank**0.5
        up = torch.randn(weight.shape[0], rank, generator=generator) * size * weight.std()
        pairs[module] = (down, up.view(-1, rank, *[1] * (weight.ndim - 2)))
    return pairs


def write_lora(path, pairs, layout=comfy, alpha=None, dtype=torch.float32, extra=None, meta=None):
    """A LoRA file; ``alpha`` a tensor, or None for none."""
    tensors = dict(extra or {})
    for module, (down, up) in pairs.items():
        stem, a, b = layout(module)
        tensors[f"{stem}.{a}"] = down.to(dtype).contiguous()
        tensors[f"{stem}.{b}"] = up.to(dtype).contiguous()
        if alpha is not None:
            tensors[f"{stem}.alpha"] = alpha.clone()
    save_file(tensors, path, metadata=meta)
    return path


def with_deltas(state, *deltas):
    """The state dict with each {tensor name: delta} added in float32."""
    total = {name: value.float().clone() for name, value in state.items()}
    for delta in deltas:
        for name, value in delta.items():
            total[name] += value.view(total[name].shape)
    return total


def products(pairs, scale=1.0):
    """What pairs add, by tensor name."""
    return {
        f"{m}.weight": scale * (up.flatten(1).float() @ down.flatten(1).float())
        for m, (down, up) in pairs.items()
    }


def velocity(variant, inputs, compute="fp32"):
    from gatekit_wan22 import WanConditioning

    variant.load("cpu", compute)  # not unloaded: that collects garbage, a second each time
    return variant.velocity(inputs.x, inputs.sigma, WanConditioning(text=inputs.text))


@pytest.fixture(scope="session")
def kit(tools):
    return SimpleNamespace(
        layouts=LAYOUTS,
        matrices=MATRICES,
        outside=OUTSIDE,
        pairs=lora_pairs,
        write=write_lora,
        with_deltas=with_deltas,
        products=products,
        velocity=velocity,
        open=tools.open_file,
    )
