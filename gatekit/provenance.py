"""What a result came from: inputs, hashes of weight files, versions."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gatekit.cache import cache_folder
from gatekit.identity import file_identity, sha256
from gatekit.jsontext import read_json

if TYPE_CHECKING:
    from gatekit.family import Inputs
    from gatekit.plan import Plan

PACKAGES = (
    *("torch", "numpy", "diffusers", "transformers", "tokenizers", "ftfy", "safetensors", "gguf"),
    "av",
)


class Hashes:
    """SHA-256 of weight files, computed in the background and remembered between runs."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self._found: dict[str, str] = {}
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        folder = cache_folder()
        store = folder / "sha256.json" if folder is not None else None
        known = _read_cache(store) if store is not None else {}
        fresh: dict[str, str] = {}
        for path in self.files:
            with contextlib.suppress(OSError):
                key = _stamp(path)
                if key not in known:
                    known[key] = fresh[key] = sha256(path)
                self._found[str(path)] = known[key]
        if fresh and store is not None:
            _write_cache(store, fresh)

    def result(self) -> dict[str, str]:
        """Path -> hash; waits for the rest. A file that went away in between is left out."""
        self._thread.join()
        return dict(self._found)


def by_name(hashes: Mapping[str, str]) -> dict[str, str]:
    """Hashes by path -> by the file's name; where several share it, with as many folders as tell.

    Results are passed on, so they do not carry whole paths; the shards of Wan's two experts
    have the same names in two folders.
    """
    parts = {path: Path(path).parts for path in hashes}

    def tail(path: str) -> str:
        for length in range(1, len(parts[path])):
            end = parts[path][-length:]
            if sum(other[-length:] == end for other in parts.values()) == 1:
                return "/".join(end)
        return path

    return {tail(path): value for path, value in hashes.items()}


def _stamp(path: Path) -> str:
    parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return "|".join(f"{p}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in parts)


def _read_cache(store: Path) -> dict[str, str]:
    try:
        content = read_json(store)
        return {str(k): str(v) for k, v in content.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _write_cache(store: Path, fresh: Mapping[str, str]) -> None:
    """Best effort: a cache that cannot be written costs time, no result."""
    partial = store.with_name(f".{store.name}.{os.getpid()}.part")
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(_read_cache(store) | dict(fresh), indent=1), "utf-8")
        partial.replace(store)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def inputs_record(inputs: Inputs) -> dict[str, Any]:
    """Inputs as plain data; images and a video by path and hash."""
    return {
        "prompt": inputs.prompt,
        "negative_prompt": inputs.negative_prompt,
        "seed": inputs.seed,
        "image": image_record(inputs.image),
        "last_image": image_record(inputs.last_image),
        "video": image_record(inputs.video),
    }


def image_record(image: Any) -> dict[str, str | None] | None:
    """Path and hash of an image or video file; for one in memory its hash alone."""
    if image is None:
        return None
    if isinstance(image, str | Path):
        path = Path(image).absolute()
        return {"file": str(path), "sha256": sha256(path) if path.is_file() else None}
    import numpy

    pixels: Any = numpy.ascontiguousarray(numpy.asarray(image))
    return {"file": None, "sha256": hashlib.sha256(pixels.tobytes()).hexdigest()}


def inputs_from(record: Mapping[str, Any]) -> Inputs:
    """The inputs of a record; an image that was only in memory is None."""
    from gatekit.family import Inputs

    def image(name: str) -> Path | None:
        found = record.get(name)
        return Path(found["file"]) if found and found.get("file") else None

    return Inputs(
        prompt=record.get("prompt", ""),
        negative_prompt=record.get("negative_prompt"),
        image=image("image"),
        last_image=image("last_image"),
        seed=record.get("seed", 0),
        video=image("video"),
    )


def fingerprint(plan: Plan, inputs: Inputs) -> str:
    """Equal for runs that make the same video: a checkpoint of one continues the other."""
    content = [
        [
            *(p.name, p.field, p.sampler.identity, p.strategy.name, p.history.name),
            *(part.params.model_dump(mode="json") for part in (p.strategy, p.history)),
            list(p.sigmas),
        ]
        for p in plan.phases
    ]
    family = plan.family
    sections = {"text_encoder": family.components.text_encoder, "vae": family.components.vae}
    files = family.component_files()
    components = [
        [part.precision, *(file_identity(f) for f in (*files.get(name, ()), part.tokenizer) if f)]
        for name, part in sections.items()
        if part is not None
    ]
    record = inputs_record(inputs)
    images = [record[k] and record[k]["sha256"] for k in ("image", "last_image", "video")]
    text = json.dumps(
        [
            content,
            [family.name, family.params.model_dump(mode="json"), components],
            list(family.latent_shape(plan.video)),
            [inputs.prompt, inputs.negative_prompt, inputs.seed, *images],
        ]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tensors_hash(value: Any) -> str:
    """SHA-256 of the tensors and plain values in mappings, sequences and dataclasses."""
    digest = hashlib.sha256()
    _feed(value, digest)
    return digest.hexdigest()[:32]


def _feed(value: Any, digest: Any) -> None:
    import torch

    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[Any, Any]", value).items():
            _feed(key, digest)
            _feed(item, digest)
    elif isinstance(value, (tuple, list)):
        for item in cast("list[Any]", value):
            _feed(item, digest)
    elif is_dataclass(value):
        for part in fields(value):
            _feed(getattr(value, part.name), digest)
    elif value is None or isinstance(value, str | int | float | bool):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    else:  # nothing whose text stays the same from one process to the next
        digest.update(type(value).__name__.encode())


def first_difference(before: Any, now: Any, at: str = "") -> str | None:
    """The first key at which two trees of plain data differ, and both values; None if nowhere."""
    if isinstance(before, dict) and isinstance(now, dict):
        was, new = cast(dict[str, Any], before), cast(dict[str, Any], now)
        pairs = [(f"{at}.{k}" if at else k, was.get(k), new.get(k)) for k in {**was, **new}]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):  # pyright: ignore[reportUnknownArgumentType]
        both = zip(cast(list[Any], before), cast(list[Any], now), strict=True)
        pairs = [(f"{at}[{i}]", a, b) for i, (a, b) in enumerate(both)]
    else:
        # Through JSON, as the earlier run was written: tuples become lists.
        same = json.dumps(before, default=str) == json.dumps(now, default=str)
        return None if same else f"{at} was {before!r}, is {now!r}"
    found = (first_difference(a, b, key) for key, a, b in pairs)
    return next((difference for difference in found if difference), None)


def versions() -> dict[str, Any]:
    """Versions of gatekit, Python, what computes, and every plugin."""
    import gatekit
    from gatekit.registry import registry

    found: dict[str, Any] = {"gatekit": gatekit.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["plugins"] = {
        info.name: f"{info.package} {info.version}".strip() for info in registry().plugins.values()
    }
    return found


def peak_memory(device: str) -> dict[str, int]:
    """Largest memory of this process so far, and of the device where it has its own."""
    peak: dict[str, int] = {}
    try:
        import resource
    except ImportError:
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peak["process_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device.startswith("cuda"):
        import torch

        peak["device_bytes"] = torch.cuda.max_memory_allocated(device)
    return peak
