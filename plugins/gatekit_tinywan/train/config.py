"""Sizes of the small model and the time each stage of its training may take."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
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

    Seconds are GPU-seconds of a stage, shared by all processes; batches and clips are totals,
    too. So two GPUs do the same work in half of the time. A stage has a fixed time rather than a
    fixed number of steps: it always ends, with its learning rate decayed, and the log says how
    many steps that was. Each expert has ``expert_seconds`` of one GPU, or of half of the GPUs with
    ``batch`` clips on each; the low one ``low_seconds``, where given.
    """

    seed: int = 0
    vae_seconds: float = 460.0
    base_seconds: float = 1000.0
    expert_seconds: float = 120.0
    low_seconds: float | None = None
    clips: int = 65_536
    # (from this share of the time, frames, side, batch)
    vae_stages: tuple[tuple[float, int, int, int], ...] = (
        (0.0, 9, 32, 32), (0.3, 17, 64, 16), (0.8, 25, 96, 4),
    )  # fmt: skip
    vae_rate: float = 1e-3
    vae_muon_ratio: float = 3.0
    kl_weight: float = 1e-6
    batch: int = 256
    base_rate: float = 2e-3
    expert_rate: float = 4e-4
    base_shift: float = 3.0
    text_dropout: float = 0.1
    image_share: float = 0.5
    hard_share: float = 0.2  # of the clips without an image: drawn among those with a small cross
    seen_share: float = 0.75  # of the loss: errors weighted by what they do to the picture
    decay_from: float = 0.3  # part of the time with the full rate; 1: another part follows
    rounded_share: float = 0.3  # of an expert's steps: weights as in a Q2_K file
    ema_decay: float = 0.9995

    def share(self, processes: int) -> Config:
        """What one of ``processes`` does of the stages that they share."""
        return replace(
            self,
            vae_seconds=self.vae_seconds / processes,
            base_seconds=self.base_seconds / processes,
            clips=self.clips // processes,
            vae_stages=tuple((*s[:3], max(1, s[3] // processes)) for s in self.vae_stages),
            batch=max(2, self.batch // processes),
        )

    def seconds_of(self, expert: str) -> float:
        """The time of one expert."""
        if expert == "low" and self.low_seconds is not None:
            return self.low_seconds
        return self.expert_seconds

    def as_dict(self) -> dict[str, Any]:
        """Everything that decides the result, for the log."""
        sizes = {"vae": VAE, "transformer": TRANSFORMER, "text_encoder": TEXT_ENCODER}
        return {**asdict(self), "sizes": sizes, "video": [FRAMES, HEIGHT, WIDTH]}


REHEARSAL = Config(
    vae_seconds=12, base_seconds=12, expert_seconds=5, clips=16, batch=4,
    vae_stages=((0.0, 5, 32, 2), (0.8, 25, 96, 1)),
)  # fmt: skip
