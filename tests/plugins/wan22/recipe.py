"""Weights and inputs from names: the same bits wherever numpy's Philox runs.

Only raw words of the generator are used, whose stream numpy guarantees; ``README.md`` in
``data`` says it in words. Both the script that recorded Wan's outputs and the tests use it.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch

GRID = (1.0, 0.7, 0.05)  # sigmas at which transformers are recorded
STEPS, SHIFT, SCALE = 8, 5.0, 5.0  # of the recorded run of TI2V-5B
TOKENS = 20
SHARED = {"dim": 256, "ffn_dim": 384, "text_dim": 32, "num_heads": 2, "num_layers": 2}
TRANSFORMERS = {
    "t2v": {"model_type": "t2v", "in_dim": 16, "out_dim": 16, **SHARED},
    "i2v": {"model_type": "i2v", "in_dim": 36, "out_dim": 16, **SHARED},
    "ti2v": {"model_type": "ti2v", "in_dim": 48, "out_dim": 48, **SHARED},
}
UMT5 = {
    "vocab": 100, "dim": 64, "dim_attn": 128, "dim_ffn": 96, "num_heads": 2, "num_layers": 2,
    "num_buckets": 32, "shared_pos": False,
}  # fmt: skip
STAGES = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "temperal_downsample": [False, True, True]}
VAES = {
    "vae21": {"dim": 16, "z_dim": 16, **STAGES},
    "vae22": {"dim": 16, "dec_dim": 24, "z_dim": 48, **STAGES},
}


def numbers(name: str, *shape: int) -> torch.Tensor:
    """Uniform numbers of mean 0 and deviation 1, float32, decided by ``name``."""
    digest = hashlib.sha256(name.encode()).digest()
    words = np.random.Philox(key=int.from_bytes(digest[:16], "little")).random_raw(math.prod(shape))
    uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return torch.from_numpy(((uniform - 0.5) * 12**0.5).astype(np.float32)).reshape(shape)


def weight(model: str, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One tensor of a model, by its official name."""
    values = numbers(f"{model}/{name}", *shape)
    leaf = name.rpartition(".")[2]
    if leaf == "gamma" or (leaf == "weight" and len(shape) == 1):
        return 1.0 + 0.1 * values
    if len(shape) == 1 or leaf == "modulation":
        return 0.1 * values
    scale = math.prod(shape[1:]) ** -0.5
    return values * (0.125 * scale if name.endswith("attn.q.weight") and model == "umt5" else scale)


def state_dict(model: str, shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """All tensors of a model."""
    return {name: weight(model, name, tuple(shape)) for name, shape in shapes.items()}


def state(channels: int) -> torch.Tensor:
    """A noisy latent ``[1, C, 3, 4, 6]``."""
    return numbers(f"state/{channels}", 1, channels, 3, 4, 6)


def text(which: str = "positive") -> torch.Tensor:
    """Embeddings of 20 tokens, not padded."""
    return numbers(f"text/{which}", 1, TOKENS, SHARED["text_dim"])


def ids() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens ``[2, 12]`` and their mask: 12 and 7 of them."""
    found = (numbers("ids", 2, 12) * 1000).abs().long() % 98 + 2
    return found, (torch.arange(12) < torch.tensor([[12], [7]])).long()
