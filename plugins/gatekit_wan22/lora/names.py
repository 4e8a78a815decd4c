"""Keys of LoRA files: which tensor of the model an entry changes, and how.

Layouts in use: kohya (``lora_unet_blocks_0_self_attn_q.lora_down.weight``), diffusers and
PEFT (``transformer.blocks.0.attn1.to_q.lora_A.weight``, ``base_model.model.`` before it),
ComfyUI and lightx2v (``diffusion_model.blocks.0.self_attn.q.lora_down.weight``). The
differences that some carry are ``.diff`` (a weight), ``.diff_b`` (a bias) and ``.diff_m``
(the modulation).
"""

from __future__ import annotations

import re
from functools import cache

from .. import layout_transformer as layout
from ..sizes import TransformerSizes, expected_shapes

PREFIXES = (
    *("base_model.model.", "model.diffusion_model.", "diffusion_model.", "pipe.dit."),
    *("transformer_2.", "transformer.", "model.", "dit.", "unet."),
    *("lora_unet__", "lora_unet_", "lora_transformer_", "lycoris_"),
)
FIRST, SECOND = "transformer.", "transformer_2."  # diffusers' names of the experts, high and low
_ADAPTER = r"(?:\.[A-Za-z0-9_-]+)?"  # PEFT's name of the adapter: lora_A.default.weight
ROLES = {
    "down": re.compile(rf"(.+)\.(?:lora_down|lora_A|lora\.down)(?:{_ADAPTER}\.weight)?"),
    "up": re.compile(rf"(.+)\.(?:lora_up|lora_B|lora\.up)(?:{_ADAPTER}\.weight)?"),
    "up_bias": re.compile(rf"(.+)\.(?:lora_up|lora_B){_ADAPTER}\.bias"),
    "alpha": re.compile(r"(.+)\.alpha"),
    "diff": re.compile(r"(.+)\.(?:diff|w_norm)"),
    "diff_b": re.compile(r"(.+)\.(?:diff_b|b_norm)"),
    "diff_m": re.compile(r"(.+)\.diff_m"),
}
OTHER_KINDS = {
    "DoRA": re.compile(r".+\.(?:dora_scale|lora_magnitude_vector(?:\..+)?)"),
    "LoHa": re.compile(r".+\.hada_.+"),
    "LoKr": re.compile(r".+\.lokr_.+"),
    "LoCon with a middle kernel": re.compile(r".+\.lora_mid(?:\.weight)?"),
    "OFT": re.compile(r".+\.oft_.+"),
    "GLoRA": re.compile(r".+\.[ab][12]\.weight"),
}
_BLOCK = re.compile(r"blocks([._])(\d{1,6})\1(.+)")
# Modules that only some Wan models have; a LoRA for them is recognised whatever the model.
_CLIP = (
    *(f"blocks.0.cross_attn.{part}" for part in ("k_img", "v_img", "norm_k_img")),
    *(f"img_emb.proj.{i}" for i in (0, 1, 3, 4)),
)


def kind_of(key: str) -> str | None:
    """Name of an adapter kind other than LoRA that a key belongs to; None for LoRA's own."""
    return next((kind for kind, form in OTHER_KINDS.items() if form.fullmatch(key)), None)


def split(key: str) -> tuple[str, str] | None:
    """``(module as the file writes it, role)`` of a key; None for no LoRA's key."""
    for role, form in ROLES.items():
        if found := form.fullmatch(key):
            of_modulation = role == "diff_m"
            return (f"{found[1]}.modulation", "diff") if of_modulation else (found[1], role)
    return None


def official_module(written: str) -> str | None:
    """Official name of a module of a Wan transformer, from any layout; None for no such module.

    Modulations, which are tensors without a module, count as modules here.
    """
    bare, before = written, None
    while bare != before:
        before = bare
        for prefix in PREFIXES:
            bare = bare.removeprefix(prefix)
    found = _BLOCK.fullmatch(bare)
    if found is None:
        return _modules().get(bare)
    module = _modules().get(f"blocks{found[1]}0{found[1]}{found[3]}")
    return module.replace(".0.", f".{int(found[2])}.", 1) if module else None


@cache
def _modules() -> dict[str, str]:
    """Module of a one-block model, as each layout writes it -> its official name."""
    sizes = TransformerSizes(128, 128, 1, 16, 16, 128)
    official = {
        name.removesuffix(".weight").removesuffix(".bias") for name in expected_shapes(sizes)
    }
    table: dict[str, str] = {}
    for module in sorted(official | set(_CLIP)):
        theirs = layout.to_diffusers(f"{module}.weight") or layout.to_diffusers(module) or module
        for written in (module, theirs.removesuffix(".weight")):
            table[written] = table[written.replace(".", "_")] = module
    return table
