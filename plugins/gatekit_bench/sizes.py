"""Sizes of models by name, and latents by their number of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

from gatekit import InputError
from gatekit_wan22.sizes import TransformerSizes

SIZES = {
    "a14b": TransformerSizes(5120, 13824, 40, 16, 16, 4096),
    "ti2v5b": TransformerSizes(3072, 14336, 30, 48, 48, 4096),
    "wan1.3b": TransformerSizes(1536, 8960, 30, 16, 16, 4096),
    "tinywan": TransformerSizes(256, 1024, 5, 36, 16, 128),
}
# Latents ``T, H, W`` of videos that have so many tokens.
KNOWN = {32_760: (21, 60, 104), 4_590: (9, 34, 60), 510: (1, 34, 60), 252: (7, 12, 12)}
VIDEOS = {32_760: "832x480x81", 4_590: "480x272x33", 510: "480x272x1", 252: "96x96x25"}
# Tokens of small models where nothing is said of them: what a CPU does soon, and their own video.
SMALL_TOKENS = {"tinywan": (510, 252)}
MOST = 512  # tokens along one axis, half of what the rotary tables hold
TEXT = 512  # tokens of text


@dataclass(frozen=True)
class Work:
    """What one pass multiplies: multiplications and additions, each counted.

    Attributes:
        matrices: In the ten matrices of each block.
        attention: In scores and their sums, of both attentions.
    """

    matrices: float
    attention: float


def size_named(name: str) -> TransformerSizes:
    """Raises InputError for an unknown name."""
    if name not in SIZES:
        raise InputError(
            "unknown size", where="--size", value=name, remedy=f"one of {', '.join(SIZES)}"
        )
    return SIZES[name]


def shortened(sizes: TransformerSizes, layers: int) -> TransformerSizes:
    """The same model with its first ``layers`` blocks alone."""
    return replace(sizes, layers=layers)


def latent_of(tokens: int) -> tuple[int, int, int]:
    """``T, H, W`` of a latent of so many tokens, patches being (1, 2, 2).

    Raises:
        InputError: The number has no divisors that an axis can have.
    """
    if tokens in KNOWN:
        return KNOWN[tokens]
    wide = max((d for d in range(1, isqrt(tokens) + 1) if tokens % d == 0 and d <= 64), default=0)
    rest = tokens // wide if wide else 0
    high = max((d for d in range(1, 65) if rest and rest % d == 0), default=0)
    if not high or rest // high > MOST:
        raise InputError(
            "no video has so many tokens",
            where="--tokens",
            value=tokens,
            remedy="give a product of three numbers up to 64, such as 4590",
        )
    return rest // high, 2 * high, 2 * wide


def matrices(sizes: TransformerSizes) -> int:
    """Weights of the ten matrices of each block."""
    return sizes.layers * (8 * sizes.dim**2 + 2 * sizes.dim * sizes.ffn_dim)


def work(sizes: TransformerSizes, tokens: int) -> Work:
    """Of one pass, batch 1."""
    dim, layers = sizes.dim, sizes.layers
    text = layers * 2 * dim**2 * (TEXT - tokens)  # keys and values of the text instead of the video
    multiplied = 2.0 * (matrices(sizes) * tokens + text)
    return Work(multiplied, 4.0 * layers * dim * tokens * (tokens + TEXT))
