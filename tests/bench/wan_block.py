"""A few transformer blocks of Wan with random weights, for benchmarks: plain, in fp8, in GGUF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gatekit_wan22.feed_forward import use_fp8_feed_forward
from gatekit_wan22.fp8 import new_fp8_linear, quantised
from gatekit_wan22.self_attention import use_own_processor
from gatekit_wan22.stored_linear import new_stored_linear

TEXT = 512
MATRICES = (
    *(f"attn{i}.{name}" for i in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *("ffn.net.0.proj", "ffn.net.2"),
)


@dataclass(frozen=True)
class Size:
    """Width, inner width of the feed-forward part, and (frames, height, width) in tokens."""

    dim: int
    ffn: int
    grids: tuple[tuple[int, int, int], ...]


A14B = Size(5120, 13824, ((21, 30, 52), (9, 17, 30), (1, 17, 30)))
TINY = Size(256, 512, ((3, 4, 6), (2, 3, 4), (1, 3, 4)))


class Blocks(nn.Module):
    """Some blocks, one after the other, as a model runs them."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, text: Tensor, time: Tensor, rotary: Any) -> Tensor:
        for block in self.blocks:
            x = block(x, text, time, rotary)
        return x


def random_blocks(size: Size, count: int, dtype: torch.dtype, device: Any, seed: int) -> Blocks:
    """Blocks whose weights are normal with variance 1 / columns; norms and modulation float32."""
    from diffusers.models.transformers.transformer_wan import WanTransformerBlock

    generator = torch.Generator(device).manual_seed(seed)
    made = []
    for _ in range(count):
        with torch.device("meta"):
            block = WanTransformerBlock(
                size.dim, size.ffn, size.dim // 128, cross_attn_norm=True, eps=1e-6
            )
        for name, p in list(block.named_parameters()):
            fp32 = name == "scale_shift_table" or name.startswith("norm")
            value = torch.randn(p.shape, generator=generator, device=device)
            value *= 0.3 if p.ndim != 2 else p.shape[1] ** -0.5
            value += 1.0 if "norm" in name and name.endswith("weight") else 0.0
            owner, _, leaf = name.rpartition(".")
            value = nn.Parameter(value.to(torch.float32 if fp32 else dtype), requires_grad=False)
            block.get_submodule(owner).register_parameter(leaf, value)
        made.append(block.eval())
    use_own_processor(made)
    return Blocks(made)


def converted(model: Blocks, layer: Any) -> Blocks:
    """The same blocks, each matrix replaced by ``layer(name, linear)``; all else is shared."""
    import copy

    made = []
    for block in model.blocks:
        memo = {id(p): p for p in block.parameters()}  # not copied
        twin = copy.deepcopy(block, memo)
        for name in MATRICES:
            owner, _, leaf = name.rpartition(".")
            setattr(twin.get_submodule(owner), leaf, layer(name, block.get_submodule(name)))
        made.append(twin)
    return Blocks(made)


def in_fp8(model: Blocks) -> Blocks:
    """The blocks as ``compute: fp8`` has them."""
    made = converted(
        model, lambda _, linear: new_fp8_linear(*quantised(linear.weight), linear.bias)
    )
    use_fp8_feed_forward(made.blocks)
    return made


def in_blocks(model: Blocks, kind: str, v: str | None = None) -> Blocks:
    """The blocks with random GGUF weights; ``v`` is the type of value matrices, as files mix."""

    def stored(name: str, linear: Any) -> nn.Module:
        rows, columns = linear.weight.shape
        type_name = v if v and name.endswith("to_v") else kind
        data = random_gguf(type_name, rows, columns, linear.weight.device)
        return new_stored_linear(data, type_name, (rows, columns), linear.bias, linear.weight.dtype)

    return converted(model, stored)


def decoded(model: Blocks) -> Blocks:
    """Blocks of stored weights with each matrix decoded: what they are to be compared with."""

    def plain(_: str, stored: Any) -> nn.Module:
        with torch.device("meta"):
            linear = nn.Linear(stored.in_features, stored.out_features)
        linear.weight = nn.Parameter(stored.decoded(), requires_grad=False)
        linear.bias = stored.bias
        return linear

    return converted(model, plain)


def to_float32(model: Blocks) -> Blocks:
    """Copies in float32 of plain blocks."""
    import copy

    return copy.deepcopy(model).float()


SCALES = {  # bytes of a block, where d is, its size for weights of variance 1, where the minimum is
    "Q2_K": (84, 80, 0.09, 82, 1.5),
    "Q3_K": (110, 108, 0.024, None, 0.0),
    "Q5_K": (176, 0, 0.0029, 2, 15.5),
}


def random_gguf(kind: str, rows: int, columns: int, device: Any) -> Tensor:
    """Random blocks whose weights have about the variance 1 / columns and a mean of about 0."""
    size, at, scale, minimum, offset = SCALES[kind]
    data = torch.randint(0, 256, (rows * columns // 256, size), dtype=torch.uint8, device=device)
    d = (torch.rand(len(data), 1, device=device) + 0.5) * scale * columns**-0.5
    data[:, at : at + 2] = d.half().view(torch.uint8)
    if minimum is not None:
        data[:, minimum : minimum + 2] = (d * offset).half().view(torch.uint8)
    return data.view(-1)


def inputs(size: Size, grid: tuple[int, int, int], dtype: torch.dtype, device: Any) -> Any:
    """Random (x, text, time, rotary) for so many tokens."""
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    generator = torch.Generator(device).manual_seed(9)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    frames, height, width = grid
    rope = WanRotaryPosEmbed(128, (1, 2, 2), 1024).to(device)
    rotary = rope(torch.empty(1, 16, frames, 2 * height, 2 * width, device=device))
    x = normal(1, frames * height * width, size.dim).to(dtype)
    text = normal(1, TEXT, size.dim).to(dtype)
    return x, text, 0.3 * normal(1, 6, size.dim), rotary
