"""What ``gatekit doctor`` looks at for Wan: attention backends, Triton and a C compiler."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from gatekit import Check, Finding, compute_capability

from . import attention, compiling


def checks() -> list[Check]:
    """Wan's lines."""
    return [
        Check("attention", "every pass of a model", backends),
        Check("Triton", "GGUF kernels and compiled blocks on a GPU", triton),
    ]


def backends() -> Finding:
    """Backends that can be used in bf16, and how to get others that this GPU could use."""
    capability = compute_capability("cuda")
    device = "cuda" if capability is not None else "cpu"
    usable = attention.usable(device, "bf16", capability)
    found = (
        f"{', '.join(usable)}; auto takes {attention.choose('auto', device, 'bf16', capability)}"
    )
    lacking = {
        name: attention.lacking(name, device, "bf16", capability) for name in attention.BACKENDS
    }
    remedies = [
        f"{name}: {problem[1]}"
        for name, problem in lacking.items()
        if problem is not None and attention.BACKENDS[name].module and device == "cuda"
    ]
    return Finding("ok", found, "; ".join(remedies))


def triton() -> Finding:
    """Triton, and the C compiler that it calls."""
    problem = compiling.lacking("cuda")
    if find_spec("triton") is None:
        remedy = (
            "" if compute_capability("cuda") is None else "a CUDA build of torch for Linux has it"
        )
        return Finding("missing", "not installed; torch's operations decode instead", remedy)
    if problem is not None:
        return Finding("missing", problem[0], problem[1])
    return Finding("ok", f"{version('triton')}, with a C compiler")
