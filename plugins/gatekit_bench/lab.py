"""The lab: models of one size on one device, opened when a part asks for them."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_bench import sizes as named
from gatekit_bench.clock import Clock
from gatekit_bench.findings import Findings, LeftOut
from gatekit_bench.weights import fill
from gatekit_wan22.sizes import TransformerSizes, expected_shapes

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit_wan22.variant import WanVariant

SIGMA = 0.7
# Names of models that are no GGUF type: weights in the compute type, products in fp8, the same
# with its attention in fp8 too, and diffusers'.
PLAIN, FP8, FP8_ALL, PEER = "plain", "fp8", "fp8 attention too", "diffusers"
SHARE = 0.8  # of free memory that weights may take
GIB = 1 << 30


@dataclass
class Lab:
    """What parts share.

    Attributes:
        whole: The model's sizes as named.
        sizes: Those that are measured: fewer layers where memory is short.
        device: Where.
        compute: The plain arithmetic: bf16 on a GPU, fp32 on a CPU.
        folder: For weight files.
        tokens: Numbers of tokens, the most first.
        variants: GGUF types, in order, and ``fp8``.
        rates: Measured: ``copy``, ``matmul``, ``fp8``, ``host``; bytes or operations a second.
        seconds: Measured forwards by (name, tokens, how).
        loads: Measured seconds of loading a model, by name.
    """

    whole: TransformerSizes
    sizes: TransformerSizes
    device: str
    compute: str
    folder: Path
    tokens: Sequence[int]
    variants: Sequence[str]
    findings: Findings
    clock: Clock
    rates: dict[str, float] = field(default_factory=dict[str, float])
    seconds: dict[tuple[str, int, str], float] = field(
        default_factory=dict[tuple[str, int, str], float]
    )
    loads: dict[str, float] = field(default_factory=dict[str, float])
    _open: dict[str, Any] = field(default_factory=dict[str, Any])
    _peer: Any = None

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU of NVIDIA."""
        return self.device.startswith("cuda")

    @property
    def types(self) -> list[str]:
        """The GGUF types among the variants."""
        return [name for name in self.variants if name != FP8]

    @property
    def factor(self) -> float:
        """Layers of the whole model over those measured."""
        return self.whole.layers / self.sizes.layers

    @property
    def note(self) -> str:
        """Says that figures are extrapolated, where they are."""
        if self.factor == 1.0:
            return ""
        return f"extrapolated from {self.sizes.layers} of {self.whole.layers} blocks"

    @property
    def measured(self) -> str:
        """Says that figures are of fewer blocks than the model has, where they are."""
        if self.factor == 1.0:
            return ""
        return f"of {self.sizes.layers} of {self.whole.layers} blocks, not extrapolated"

    def label(self, name: str) -> str:
        """What a model is called in rows."""
        return {PLAIN: self.compute, PEER: f"{PEER} {self.compute}"}.get(name, name)

    def model(self, name: str) -> WanVariant:
        """``plain``, a GGUF type, or ``fp8``: loaded, with random weights.

        The first GGUF type comes first: the others take its weights.
        """
        name = FP8 if name == FP8_ALL else name
        if self.types and name != self.types[0] and not self._open:
            self.model(self.types[0])
        if name not in self._open:
            from gatekit_bench.files import write_gguf, write_safetensors

            if name == PLAIN:
                shapes = expected_shapes(self.sizes)
                file = write_safetensors(self.folder / "plain.safetensors", shapes)
                spec: dict[str, Any] = {"use": "safetensors", "file": str(file)}
            else:
                kind = self.types[0] if name == FP8 else name
                file = write_gguf(self.folder / f"{kind}.gguf", self.sizes, kind)
                spec = {"use": "gguf", "file": str(file), "keep": "never"}
            compute = FP8 if name == FP8 else self.compute
            variant: Any = gatekit.open_variant(
                spec, family="wan22", device=self.device, compute=compute
            )
            first = next(iter(self._open.values()), None)
            fill(variant.module, first.module if first is not None else None)
            self._open[name] = variant
        return self._open[name]

    def drop(self, *names: str) -> None:
        """Give models back."""
        for name in names:
            if name in self._open:
                self._open.pop(name).unload()

    def room(self, need: float) -> None:
        """Raise LeftOut where ``need`` bytes of files are more than there is room for."""
        free = shutil.disk_usage(self.folder).free
        if free < need:
            raise LeftOut(
                f"{need / 1e9:.0f} GB are needed in {self.folder} and {free / 1e9:.0f} are free; "
                "name another place with --files"
            )

    def close(self) -> None:
        """Give everything back."""
        self._peer = None
        self.drop(*list(self._open))
        gc.collect()

    def peer(self) -> Any:
        """Diffusers' own model with the weights of ``bf16``."""
        if self._peer is None:
            from gatekit_bench.peer import diffusers_model

            self._peer = diffusers_model(self.model(PLAIN).module, self.sizes, self.device)
        return self._peer

    def drop_peer(self) -> None:
        """Give diffusers' model back."""
        self._peer = None

    def inputs(self, tokens: int) -> tuple[Tensor, Tensor]:
        """A state ``[1, C, T, H, W]`` and text ``[1, 512, d]``, float32 and random."""
        import torch

        generator = torch.Generator(self.device).manual_seed(tokens)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=self.device)

        x = normal(1, self.sizes.out_channels, *named.latent_of(tokens))
        return x, normal(1, named.TEXT, self.sizes.text_dim)

    def forward(self, name: str, tokens: int) -> Callable[[], Tensor]:
        """One pass of a model."""
        import torch

        from gatekit_wan22 import WanConditioning

        variant, (x, text) = self.model(name), self.inputs(tokens)
        conditioning = WanConditioning(text=text, image=self._image(x))

        def call() -> Tensor:
            with torch.no_grad():
                return variant.velocity(x, SIGMA, conditioning)

        return call

    def _image(self, x: Tensor) -> Tensor | None:
        channels = self.sizes.image_channels
        return x.new_zeros(1, channels, *x.shape[2:]) if channels else None

    def peer_forward(self, tokens: int) -> Callable[[], Tensor]:
        """One pass of diffusers' model."""
        import torch

        from gatekit_wan22.precision import torch_dtype

        peer, dtype, (x, text) = self.peer(), torch_dtype(self.compute), self.inputs(tokens)
        image = self._image(x)
        given = (torch.cat([x, image], dim=1) if image is not None else x).to(dtype)
        at, text = torch.full((1,), 1000.0 * SIGMA, device=self.device), text.to(dtype)

        def call() -> Tensor:
            with torch.no_grad():
                return peer(given, at, text, return_dict=False)[0]

        return call

    def bound(self, tokens: int, fp8: bool = False, attention: bool = False) -> float:
        """Seconds of a pass at the measured rates: its products, or reading its weights once.

        Args:
            tokens: Of the video.
            fp8: Whether the matrices are multiplied in fp8.
            attention: Whether attention is in fp8 too.
        """
        todo = named.work(self.whole, tokens)
        rate = self.rates.get("fp8" if fp8 else "matmul")
        if rate is None or "matmul" not in self.rates:
            raise LeftOut("the rates of this device were not measured; add --part rates")
        products = todo.matrices / rate
        products += todo.attention / self.rates["fp8" if attention else "matmul"]
        width = 1 if fp8 else 2 if self.cuda else 4  # bytes a weight; copies count both ways
        return max(products, width * named.matrices(self.whole) / self.rates["copy"])


def layers_that_fit(sizes: TransformerSizes, device: str, variants: Sequence[str]) -> int:
    """Layers of which all models fit into free memory together."""
    from gatekit_bench.blocks import stored_bytes
    from gatekit_wan22.memory import free_bytes

    shapes = expected_shapes(sizes)
    total = sum(_count(shape) for shape in shapes.values())
    inside = named.matrices(sizes)
    width = 2 if device.startswith("cuda") else 4
    needs = width * total + sum(
        width * (total - inside) + (inside if v == FP8 else stored_bytes(v, inside // 256 * 256))
        for v in variants
    )
    room = SHARE * free_bytes(device)
    return sizes.layers if needs <= room else max(1, int(sizes.layers * room / needs))


def _count(shape: tuple[int, ...]) -> int:
    from math import prod

    return prod(shape)
