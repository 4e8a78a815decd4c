"""What computes and what writes videos: torch, GPUs, codecs. Asked of probes."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from gatekit.check import Check, Finding
from gatekit.device import DRIVERS, default_device
from gatekit.doctor.asking import Asked
from gatekit.doctor.requirements import lacking, required
from gatekit.sizetext import size

TORCH = "https://pytorch.org/get-started/locally"
PYTHON = ((3, 11), (3, 14))


def checks(computing: Asked, codecs: Asked) -> list[Check]:
    """Python, torch, the GPU and the codecs."""
    gpu = default_device() == "cuda"  # what a run takes by itself has to work
    return [
        Check("Python", "everything", python, needed=True),
        Check("torch", "everything that computes", lambda: torch(computing), needed=True),
        Check("GPU", "large models at a usable speed", lambda: cuda(computing), needed=gpu),
        Check("video codecs", "mp4 and WebP", lambda: codec(codecs), needed=True),
    ]


def python() -> Finding:
    """The interpreter."""
    here = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    if not PYTHON[0] <= sys.version_info[:2] < PYTHON[1]:
        return Finding("broken", here, "use Python 3.11 to 3.13")
    return Finding("ok", here)


def torch(asked: Asked) -> Finding:
    """That it imports and computes, and is not too old."""
    answer = asked.answer("torch")
    remedy = f"pip install --force-reinstall torch ({TORCH})"
    if isinstance(answer, Finding):
        return Finding(answer.state, answer.found, remedy)
    found = f"{answer['version']} ({cuda_of(answer)})"
    if absent := lacking([p for p in required().get("", []) if p[0] == "torch"]):
        return Finding("broken", f"{found}, older than {absent[0]}", remedy)
    return Finding("ok", found)


def cuda_of(answer: dict[str, Any]) -> str:
    """What torch was built for."""
    return f"CUDA {answer['cuda']}" if answer.get("cuda") else "built without CUDA"


def cuda(asked: Asked) -> Finding:
    """The GPUs that torch can use; why none, where a driver says that there is one."""
    answer = asked.answer("cuda")
    if isinstance(answer, Finding):
        return Finding(answer.state, answer.found, "see torch; --device cpu works without a GPU")
    if answer["gpus"]:
        gpus = [_gpu(**gpu) for gpu in answer["gpus"]]
        return Finding("ok", f"{'; '.join(gpus)}; cuDNN {answer['cudnn']}")
    if answer["mps"]:
        return Finding("note", "Apple's GPU; runs are on the CPU by default", "try --device mps")
    if not any(Path(path).exists() for path in DRIVERS):
        return Finding("missing", "no NVIDIA driver; runs are on the CPU", "")
    if not answer["cuda"]:
        return Finding(
            "missing", "an NVIDIA driver, but torch without CUDA", f"a CUDA build: {TORCH}"
        )
    return Finding(
        "broken",
        f"torch for CUDA {answer['cuda']} sees no GPU",
        "check nvidia-smi, CUDA_VISIBLE_DEVICES and that the driver is new enough",
    )


def _gpu(name: str, capability: list[int], memory: list[int]) -> str:
    free, total = memory
    return f"{name} ({capability[0]}.{capability[1]}), {size(free)} of {size(total)} free"


def codec(asked: Asked) -> Finding:
    """H.264 through PyAV, WebP through Pillow."""
    video, picture = asked.answer("av"), asked.answer("pillow")
    for package, answer in (("av", video), ("pillow", picture)):
        if isinstance(answer, Finding):
            return Finding(answer.state, answer.found, f"pip install --force-reinstall {package}")
    assert not isinstance(video, Finding) and not isinstance(picture, Finding)
    lacking = [*video["lacking"], *([] if picture["webp"] else ["WebP (Pillow)"])]
    found = f"PyAV {video['version']} (libavcodec {video['libavcodec']})"
    if lacking:
        remedy = "pip install --force-reinstall --only-binary :all: av pillow"
        return Finding("missing", f"{found} without {', '.join(lacking)}", remedy)
    return Finding("ok", f"{found}: H.264; Pillow {picture['version']}: WebP")
