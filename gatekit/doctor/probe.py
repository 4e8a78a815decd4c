"""Probes: imports that may fail in any way, made in a process of their own.

``python -m gatekit.doctor.probe NAME...`` prints JSON objects, one a line: when a probe begins
and when it has ended, so that whoever reads knows which one took the process with it.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

from gatekit.errors import one_line


def torch_probe() -> dict[str, Any]:
    """Version, and that it computes."""
    import torch

    if float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) != 8.0:
        raise RuntimeError("a product of two matrices is wrong")
    return {"version": str(torch.__version__), "cuda": torch.version.cuda}


def cuda_probe() -> dict[str, Any]:
    """GPUs that torch can use, and that the first one computes."""
    import torch

    if not torch.cuda.is_available():
        mps = torch.backends.mps.is_available()
        return {"cuda": torch.version.cuda, "gpus": [], "mps": mps}
    if float(torch.ones(4, device="cuda").sum()) != 4.0:
        raise RuntimeError("a sum on the GPU is wrong")
    gpus = [
        {
            "name": torch.cuda.get_device_name(i),
            "capability": list(torch.cuda.get_device_capability(i)),
            "memory": list(torch.cuda.mem_get_info(i)),
        }
        for i in range(torch.cuda.device_count())
    ]
    cudnn: Any = torch.backends.cudnn
    return {"cuda": torch.version.cuda, "cudnn": cudnn.version(), "gpus": gpus, "mps": False}


def codec_probe() -> dict[str, Any]:
    """What PyAV was built with."""
    import av
    from av.codec import Codec

    lacking: list[str] = []
    for name, mode in (("libx264", "w"), ("h264", "r")):
        try:
            Codec(name, mode)  # pyright: ignore
        except Exception:
            lacking.append(f"{name} ({'encoder' if mode == 'w' else 'decoder'})")
    libraries: dict[str, tuple[int, ...]] = av.library_versions
    codec = ".".join(map(str, libraries.get("libavcodec", ())))
    return {"version": av.__version__, "libavcodec": codec, "lacking": lacking}


def webp_probe() -> dict[str, Any]:
    """Whether Pillow writes WebP."""
    import PIL
    from PIL import features

    return {"version": PIL.__version__, "webp": bool(features.check("webp"))}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": torch_probe,
    "cuda": cuda_probe,
    "av": codec_probe,
    "pillow": webp_probe,
}


def import_probe(module: str) -> dict[str, Any]:
    """Any other name is a module that is imported."""
    importlib.import_module(module)
    return {}


def main(names: list[str]) -> None:
    """Run probes in order."""
    for name in names:
        _say({"begins": name})
        try:
            call = PROBES.get(name)
            value = call() if call is not None else import_probe(name)
            _say({"name": name, "value": value})
        except BaseException as exc:
            kind = "missing" if isinstance(exc, ModuleNotFoundError) else "broken"
            _say({"name": name, "error": one_line(exc), "kind": kind})


def _say(line: dict[str, Any]) -> None:
    print("\n" + json.dumps(line), flush=True)  # a line of its own, whatever a library printed


if __name__ == "__main__":
    main(sys.argv[1:])
