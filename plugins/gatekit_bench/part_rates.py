"""What the device can do: copy, multiply, and take from the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gatekit_bench.findings import Row
from gatekit_bench.lab import Lab

BEST = 3  # of so many


def rates(lab: Lab) -> None:
    """Measure ``lab.rates``: what every bound is made of."""
    _copies(lab)
    _products(lab)


def _best(lab: Lab, call: Callable[[], Any], amount: float, calls: int) -> float:
    """Amount a second, of the best of some runs of several calls."""
    call()

    def several() -> None:
        for _ in range(calls):
            call()

    return amount * calls / min(lab.clock.once(several) for _ in range(BEST))


def _copies(lab: Lab) -> None:
    import torch

    size = 1 << (30 if lab.cuda else 26)
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=lab.device)
    target = torch.empty_like(source)
    lab.rates["copy"] = _best(lab, lambda: target.copy_(source), 2.0 * size, 4)
    lab.findings.add(Row("copy, read and written", lab.rates["copy"] / 1e9, "GB/s"))
    if lab.cuda:
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        host.copy_(source)
        lab.rates["host"] = _best(lab, lambda: target.copy_(host, non_blocking=True), 1.0 * size, 2)
        lab.findings.add(Row("pinned host memory to device", lab.rates["host"] / 1e9, "GB/s"))


def _products(lab: Lab) -> None:
    import torch

    rows, columns, tokens = lab.sizes.ffn_dim, lab.sizes.dim, max(lab.tokens)
    dtype = torch.bfloat16 if lab.cuda else torch.float32
    x = torch.randn(tokens, columns, device=lab.device, dtype=dtype)
    w = torch.randn(rows, columns, device=lab.device, dtype=dtype)
    done, calls = 2.0 * tokens * rows * columns, 10 if lab.cuda else 2
    lab.rates["matmul"] = _best(lab, lambda: x @ w.t(), done, calls)
    name = f"{lab.compute} product [{tokens}, {columns}] x [{columns}, {rows}]"
    lab.findings.add(Row(name, lab.rates["matmul"] / 1e12, "TFLOP/s"))
    if not lab.cuda or torch.cuda.get_device_capability(lab.device) < (8, 9):
        return
    from gatekit_wan22.fp8 import quantised

    (xq, xs), (wq, ws) = quantised(x), quantised(w)
    scale = ws.reshape(1, -1).contiguous()
    given: dict[str, Any] = {"out_dtype": torch.bfloat16, "use_fast_accum": True}
    multiply: Any = torch._scaled_mm  # pyright: ignore[reportPrivateImportUsage]

    def in_fp8() -> Any:
        return multiply(xq, wq.t(), scale_a=xs, scale_b=scale, **given)

    lab.rates["fp8"] = _best(lab, in_fp8, done, calls)
    lab.findings.add(Row("fp8 product, scaled by rows", lab.rates["fp8"] / 1e12, "TFLOP/s"))
