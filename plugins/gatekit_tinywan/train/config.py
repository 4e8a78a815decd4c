"""Sizes of the small model and the time each stage of its training may take."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

VAE = {"base_dim": 32, "dim_mult": [1, 1, 2, 2], "num_res_blocks": 1, "z_dim": 16}
TRANSFORMER = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 128,
    "in_channels": 36,
    "out_channels": 16,
    "text_dim": 128,
    "freq_dim": 256,
    "ffn_dim": 1024,
    "num_layers": 5,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
}
TEXT_ENCODER = {
    "d_model": 128,
    "d_ff": 256,
    "d_kv": 64,
    "num_heads": 2,
    "num_layers": 2,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.0,
}
FRAMES, HEIGHT, WIDTH = 25, 96, 96
BOUNDARY = 0.875


@dataclass(frozen=True)
class Config:
    """One training run.

    Each stage takes a fixed time rather than a fixed number of steps, so that the whole always
    fits a lease; its log says how many steps that was. Learning rates decay over the stage.
    """

    seed: int = 0
    vae_seconds: float = 210.0
    base_seconds: float = 590.0
    expert_seconds: float = 130.0
    clips: int = 28_672
    vae_batch: int = 8
    vae_crop: tuple[int, int] = (17, 64)
    vae_full_from: float = 0.8
    vae_rate: float = 1.5e-3
    kl_weight: float = 1e-6
    batch: int = 128
    base_rate: float = 1.5e-3
    expert_rate: float = 4e-4
    base_shift: float = 3.0
    text_dropout: float = 0.1
    image_share: float = 0.5
    ema_decay: float = 0.9995
    extra: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Everything that decides the result, for the log."""
        sizes = {"vae": VAE, "transformer": TRANSFORMER, "text_encoder": TEXT_ENCODER}
        return {**asdict(self), "sizes": sizes, "video": [FRAMES, HEIGHT, WIDTH]}


REHEARSAL = Config(
    vae_seconds=12, base_seconds=12, expert_seconds=5, clips=16, vae_batch=2, batch=4,
    vae_crop=(5, 32),
)  # fmt: skip
