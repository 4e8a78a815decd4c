"""All matrices of an expert, decoded from GGUF blocks, beside the copy of as many bytes."""

from __future__ import annotations

from typing import Any

from gatekit_bench.findings import Row
from gatekit_bench.lab import Lab

AIM = 1.3


def dequantise(lab: Lab) -> None:
    """One row a GGUF type."""
    import torch

    from gatekit_wan22.dequantise import dequantise as decode
    from gatekit_wan22.precision import torch_dtype

    dtype = torch_dtype(lab.compute)
    for name in lab.types:
        lab.findings.need(8 if lab.cuda else 0, f"decoding {name}")
        layers: list[Any] = [m for m in lab.model(name).module.modules() if hasattr(m, "stored")]
        counts = [layer.out_features * layer.in_features for layer in layers]
        out = torch.empty(max(counts), dtype=dtype, device=lab.device)

        def work(layers: Any = layers, counts: Any = counts, out: Any = out) -> None:
            for layer, count in zip(layers, counts, strict=True):
                decode(layer.stored, layer.type_name, dtype, out=out[:count])

        took = lab.clock.turns({name: work}, budget=1.5).of(name) * lab.factor
        moved = sum(layer.stored.numel() for layer in layers) + sum(counts) * dtype.itemsize
        bound = moved / lab.rates["copy"] * lab.factor
        what = f"{len(layers) * lab.factor:.0f} matrices of {name} to {lab.compute}"
        aim = AIM if lab.cuda else None
        ratio = took / bound
        lab.findings.add(
            Row(what, took * 1e3, "ms", bound * 1e3, ratio=ratio, aim=aim, note=lab.note)
        )
